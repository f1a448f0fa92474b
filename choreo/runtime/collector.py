"""Python's cyclic garbage collector, set for a process through which many short-lived objects pass."""

from __future__ import annotations

import gc
from typing import Final

YOUNG_OBJECTS: Final = 50_000
"""Containers made, and not freed by reference counts, before the collector looks at the young ones. Python's 700 makes
it walk the events of a burst dozens of times before they are done (a quarter of the engine's time in a profile). A
burst keeps some ten containers an event; 50,000 of them are about 5 MB, the most that waits for the collector."""
YOUNG_ROUNDS: Final = 20
"""Rounds of one generation before the next older one is looked at."""


def tune_collector() -> None:
    """For a worker that has started: what exists now (modules, classes, schemas) is never walked again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, YOUNG_ROUNDS)
