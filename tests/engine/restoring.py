"""A restorer that no cluster stands behind."""

from __future__ import annotations

from pathlib import Path

from choreo.runtime.facts import ClusterFacts
from choreo.runtime.records import InternalRecords
from choreo.runtime.restore import RestoreConfig, Restorer


def idle_restorer(state_dir: Path) -> Restorer:
    """Of worker ``w0`` in group ``g``; its thread waits for requests."""
    config = RestoreConfig(
        "127.0.0.1:1", {}, "g", "g.w0", (), {}, {}, "j", "t", "p", "earliest", state_dir, ClusterFacts("c", {}, {}, {})
    )
    return Restorer(config, InternalRecords(), lambda timeout_s: False, lambda: 0, lambda places: None)
