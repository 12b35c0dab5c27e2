"""Which attempt is the last: our count of attempts against the server's count of deliveries. No IO.

`attempt` is the server's delivery count. Only a failing attempt can be the last; a job that was merely
interrupted is delivered again, above `num_attempts` too, out of spare deliveries. The delivery that
reaches the server's `max_deliver` is the last one that anybody will ever get.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("SPARE_DELIVERIES", "Limits")

# For stops, lost leases and crashes, which are not attempts.
SPARE_DELIVERIES = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_deliver` is the consumer's, `max_age` the stream's, in seconds; 0 when it has none."""

    num_attempts: int
    max_deliver: int
    max_age: float = 0.0

    def may_have_expired(self, age: float) -> bool:
        """Whether the stream may have removed a message that it stored `age` seconds ago."""
        return 0 < self.max_age <= age

    def last_attempt(self, *, delayed: bool = False) -> int:
        """Return the number of the attempt that exhausts the job if it fails. A delayed job was delivered once to wait."""
        last = self.num_attempts + delayed
        return min(last, self.max_deliver) if self.max_deliver else last

    def is_crash_loop(self, attempt: int) -> bool:
        """Whether the spare deliveries are used up: the job's workers must have died of it again and again.

        Not when `max_deliver` leaves nothing to spare: then this is an attempt like the others.
        """
        return self.max_deliver > self.num_attempts + 1 and attempt >= self.max_deliver

    def is_last_delivery(self, attempt: int) -> bool:
        """Whether the server will never deliver it again, whatever we answer."""
        return 0 < self.max_deliver <= attempt
