"""Multi-agent choreography over Kafka: declared topologies, typed events, exactly once.

Names load when they are first used (PEP 562): a command line, a generated event class or a test that needs one of them
does not pay for Faust, Kafka or a model's client library. Nothing inside the package imports this module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from choreo.agent.context import Context, Meta
    from choreo.agent.record import Record
    from choreo.agent.tool import Tool, tool
    from choreo.errors import ChoreoError
    from choreo.kernel.windows import Window
    from choreo.runtime.app import App
    from choreo.runtime.producer import Producer

    __version__: str

# Where each public name lives. The public API is this table and the submodules that docs/api.md describes.
_HOMES = {
    "App": "choreo.runtime.app",
    "ChoreoError": "choreo.errors",
    "Context": "choreo.agent.context",
    "Meta": "choreo.agent.context",
    "Producer": "choreo.runtime.producer",
    "Record": "choreo.agent.record",
    "Tool": "choreo.agent.tool",
    "Window": "choreo.kernel.windows",
    "tool": "choreo.agent.tool",
}

__all__ = [
    "App",
    "ChoreoError",
    "Context",
    "Meta",
    "Producer",
    "Record",
    "Tool",
    "Window",
    "__version__",
    "tool",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        value: object = metadata.version("choreo")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'choreo' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
