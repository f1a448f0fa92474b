"""Which modules are benchmarks, in the order in which they run and are shown."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from benchmarks.measure import Bench

MODULES: Final = ("throughput", "hop", "faust_kill")


def load(module: str) -> Bench:
    """The benchmark of a module of this package."""
    bench: Bench = import_module(f"benchmarks.{module}").BENCH
    return bench
