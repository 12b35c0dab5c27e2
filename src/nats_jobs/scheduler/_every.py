"""Intervals, counted from the Unix epoch: they do not depend on who declares them, or when."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ..errors import ScheduleError
from ._moments import in_utc

__all__ = ("Every", "parse_every")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MIN_SECONDS = 0.01
_MAX_SECONDS = 10 * 366 * 86_400.0
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER = r"(\d{1,12}(?:\.\d{1,12})?)(ms|s|m|h|d|)"
_TEXT = re.compile(rf"@every +{_NUMBER}(?: +offset +{_NUMBER})?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Every:
    """A tick each `seconds`, counted from 1970-01-01T00:00:00Z, and not from when it was declared.

    Args:
        seconds: between two ticks, from 0.01 to ten years; kept to the microsecond.
        offset: seconds that each tick is later. `Every(3600, offset=60)` is a minute past each hour in UTC.

    Raises:
        ScheduleError: one of them is out of range.
    """

    seconds: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        seconds = _number(self.seconds, "seconds")
        if not _MIN_SECONDS <= seconds <= _MAX_SECONDS:
            raise ScheduleError(
                "rule", f"Every: seconds must be from 0.01 to ten years, not {self.seconds!r}"
            )

        object.__setattr__(self, "seconds", _rounded(seconds))
        # Later by a whole interval is the same rule.
        offset = _micros(_number(self.offset, "offset")) % _micros(seconds)
        object.__setattr__(self, "offset", offset / 1e6)

    @property
    def text(self) -> str:
        offset = f" offset {_plain(self.offset)}s" if self.offset else ""
        return f"@every {_plain(self.seconds)}s{offset}"

    def next(self, after: datetime) -> datetime | None:
        interval, offset = _micros(self.seconds), _micros(self.offset)
        elapsed = (in_utc(after, "after") - _EPOCH) // _MICROSECOND
        count = (elapsed - offset) // interval + 1
        try:
            return _EPOCH + (count * interval + offset) * _MICROSECOND
        except OverflowError:
            return None

    def explain(self) -> str:
        later = f", {_plain(self.offset)} seconds after a multiple of it" if self.offset else ""
        return f"Every {_plain(self.seconds)} seconds since 1970 in UTC{later}"


def parse_every(text: str) -> Every:
    """Read "@every 30s", or "@every 1.5h offset 5m": numbers with ms, s, m, h or d, or seconds without."""
    if (match := _TEXT.fullmatch(text.strip())) is None:
        raise ScheduleError(
            "rule", f"{text!r} is not an interval such as '@every 30s' or '@every 1h offset 5m'"
        )

    number, unit, offset, offset_unit = match.groups()
    later = float(offset) * _UNITS[offset_unit.lower()] if offset else 0.0
    return Every(float(number) * _UNITS[unit.lower()], later)


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ScheduleError("rule", f"Every: {name} must be a number of seconds, not {value!r}")

    return value


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


def _rounded(seconds: float) -> float:
    return _micros(seconds) / 1e6


def _plain(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
