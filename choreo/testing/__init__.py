"""The test kit: agents and whole topologies in process, with virtual time, no broker and no network.

``TopologyDriver`` is the way in. Names load when they are first used; importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from choreo.testing.bus import MemoryBus
    from choreo.testing.cases import Case, read_cases
    from choreo.testing.clock import ManualClock
    from choreo.testing.driver import TopologyDriver

_HOMES = {
    "Case": "choreo.testing.cases",
    "ManualClock": "choreo.testing.clock",
    "MemoryBus": "choreo.testing.bus",
    "TopologyDriver": "choreo.testing.driver",
    "read_cases": "choreo.testing.cases",
}

__all__ = ["Case", "ManualClock", "MemoryBus", "TopologyDriver", "read_cases"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'choreo.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
