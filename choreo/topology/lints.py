"""What is wrong between the declarations of a topology."""

from __future__ import annotations

from choreo.codec.schema import SchemaSet
from choreo.topology.model import Topology
from choreo.topology.problems import Lint

__all__ = ["Lint", "lint"]


def lint(topology: Topology, schemas: SchemaSet) -> list[Lint]:
    """Every problem of a topology that parsed."""
    return []
