"""The processor: how one is opened, run and closed, and all that can be done with it."""

from ._opening import job_processor as job_processor
from ._processor import JobProcessor as JobProcessor
from ._run import run as run

__all__ = ("JobProcessor", "job_processor", "run")
