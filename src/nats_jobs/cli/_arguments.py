"""Types of arguments, for argparse: each reads a text, or says what is needed."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

__all__ = ("json_value", "moment", "number", "positive", "rate", "whole")


def whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a number, 0 or more, is needed, not {text!r}")

    return int(text)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number, 1 or more, is needed, not {text!r}")

    return int(text)


def rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0

    if not value > 0:
        raise argparse.ArgumentTypeError(f"a number above 0 is needed, not {text!r}")

    return value


def moment(text: str) -> datetime:
    """Without a zone it is meant in UTC."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a date and time is needed, not {text!r}") from None

    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number is needed, not {text!r}") from None


def json_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"JSON is needed, not {text!r}") from None
