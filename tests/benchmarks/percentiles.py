"""Percentiles of a list of seconds."""

from __future__ import annotations

__all__ = ("latency_figures",)


def latency_figures(seconds: list[float]) -> dict[str, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return {
        "p50_ms": ordered[len(ordered) // 2] * 1e3,
        "p99_ms": ordered[min(last, int(len(ordered) * 0.99))] * 1e3,
    }
