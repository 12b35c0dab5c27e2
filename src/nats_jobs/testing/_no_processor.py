"""What `job.processor` is when a test has not said."""

from __future__ import annotations

from ..errors import UsageError

__all__ = ("given",)


def given(processor: object) -> object:
    """Return the processor that a test gives to its job, or one that says how to give it."""
    return _NoProcessor() if processor is None else processor


class _NoProcessor:
    def __getattr__(self, name: str) -> object:
        raise UsageError(
            f"the handler asked for job.processor.{name}, and the test has given no processor: say processor=…, anything "
            "that has what the handler calls"
        )
