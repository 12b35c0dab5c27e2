"""The command line: `nats-jobs`, also as `python -m nats_jobs`."""

from ._main import main as main

__all__ = ("main",)
