"""Which modules are benchmarks, in the order in which they run and are shown."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from benchmarks.measure import Bench

MODULES: Final = (
    *("throughput", "hop", "waiting", "slow_key", "restart", "restore", "memory", "plan", "faust_kill"),
    "growth",  # last: it takes longest, and quick runs end when their time is over
)


def load(module: str) -> Bench:
    """The benchmark of a module of this package."""
    bench: Bench = import_module(f"benchmarks.{module}").BENCH
    return bench
