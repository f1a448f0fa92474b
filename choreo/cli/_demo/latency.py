"""Percentiles of latencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Latency(NamedTuple):
    """In milliseconds; None where nothing was measured."""

    p50: float | None
    p99: float | None
    measured: int


def latency(milliseconds: Sequence[float]) -> Latency:
    """Median and 99th percentile by nearest rank: values that really occurred."""
    ordered = sorted(milliseconds)
    return Latency(_at(ordered, 50), _at(ordered, 99), len(ordered))


def _at(ordered: Sequence[float], percent: int) -> float | None:
    if not ordered:
        return None
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
