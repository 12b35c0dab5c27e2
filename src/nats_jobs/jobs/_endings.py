"""How an attempt ends: a closed list, and the one function that picks from it. No IO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .._groups import sole_exception
from ..errors import JobTimeout, Reject, Retry, Snooze
from ._reasons import CancelReason

__all__ = ("Cancelled", "Done", "Ending", "Failed", "Interrupted", "Lost", "Rejected", "Snoozed", "ending_of")


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised, asked for another try, or ran past its timeout. `delay` overrides the backoff."""

    error: Exception
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class Snoozed:
    delay: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """Never to be tried again. `reason` is the class of reason: `rejected`, `undecodable`, `crash-loop`, `interrupted`."""

    reason: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Cut short through no fault of its own; another worker may have it at once."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Cancelled on request; not to be tried again."""


@dataclass(frozen=True, slots=True)
class Lost:
    """No longer ours; nothing may be sent."""


Ending: TypeAlias = Done | Failed | Snoozed | Rejected | Interrupted | Cancelled | Lost


def ending_of(
    reason: CancelReason | None, returned: bool, error: Exception | None, timeout: JobTimeout | None
) -> Ending:
    """Pick the ending of an attempt.

    What the handler asks for explicitly (Reject, Snooze) counts. Else the reason it was cut short
    for holds, whatever it raised while it was being cancelled. A handler that returns after a stop has
    done its work; one that returns after its timeout has not done it in time.

    Args:
        reason: why the job's scope was cancelled, if it was.
        returned: whether the handler came to its end.
        error: what it raised.
        timeout: the error for a timeout, given when the reason is one.
    """
    if reason is CancelReason.LEASE_LOST:
        return Lost()

    error = _meant(error)
    match error:
        case Reject():
            return Rejected("rejected", error)
        case Snooze():
            return Snoozed(error.delay)

    if reason is CancelReason.TIMEOUT:
        assert timeout is not None
        timeout.__cause__ = error
        return Failed(timeout)

    if returned:
        return Done()

    if reason is CancelReason.CANCELLED:
        return Cancelled()

    if reason is CancelReason.STOP:
        return Interrupted(reason.value)

    assert error is not None
    return Failed(error, error.delay if isinstance(error, Retry) else None)


def _meant(error: Exception | None) -> Exception | None:
    """Look into the groups that a handler's own task groups make: one leaf is what was meant, and a Reject among many."""
    if not isinstance(error, ExceptionGroup):
        return error

    rejected = error.subgroup(Reject)
    only = sole_exception(rejected or error)
    return only if isinstance(only, Exception) else error
