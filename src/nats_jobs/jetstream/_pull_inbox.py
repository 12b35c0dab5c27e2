"""One inbox for pull requests, and how much of what was asked for there has not come yet. No IO."""

from __future__ import annotations

import math

__all__ = ("PullInbox",)

_MAX_SILENT_BEATS = 2


class PullInbox:
    """Counts what is outstanding on one inbox, and how long nothing was heard there.

    A request that is alive gets a delivery or a heartbeat in each interval. Which of the requests it belongs to cannot
    be told: so of several on one inbox, one that was lost hides behind those that are served. Once no more are sent
    there, silence tells.
    """

    __slots__ = ("_heard", "_silent_beats", "_was_empty", "asked_since", "outstanding", "sid", "subject")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.sid = 0
        self.outstanding = 0
        self.asked_since = -math.inf
        """When the oldest of what is outstanding was asked for, at the earliest."""

        self._heard = True
        self._silent_beats = 0
        self._was_empty = True

    def asked(self, batch: int, now: float) -> None:
        if not self.outstanding:
            self.asked_since = now
            self._silent_beats = 0

        self.outstanding += batch

    def heard(self) -> None:
        """Note any sign of life."""
        self._heard = True

    def settle(self, count: int) -> int:
        """Take `count` off what is outstanding, as far as there is so much; return how many that were."""
        count = min(count, self.outstanding)
        self.outstanding -= count
        if not self.outstanding:
            self._was_empty = True

        return count

    def beat(self) -> None:
        """Note that the time of a heartbeat has passed."""
        self._silent_beats = 0 if self._heard else self._silent_beats + 1
        self._heard = False

    @property
    def is_silent(self) -> bool:
        """Whether what is outstanding must be thought lost."""
        return self.outstanding > 0 and self._silent_beats >= _MAX_SILENT_BEATS

    @property
    def is_done(self) -> bool:
        """Whether nothing is outstanding, and nothing came between the last two beats."""
        return not self.outstanding and self._silent_beats > 0

    def may_hide_a_loss(self) -> bool:
        """Whether something was outstanding all the time since this was last asked."""
        was_empty, self._was_empty = self._was_empty, not self.outstanding
        return not was_empty
