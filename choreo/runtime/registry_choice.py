"""Which schema registry a topology uses: the committed file, or a Confluent-compatible server."""

from __future__ import annotations

from choreo.ports import Registry
from choreo.runtime.project import SCHEMAS, Project
from choreo.runtime.registry_file import LOCK_NAME, FileRegistry
from choreo.runtime.registry_http import HttpRegistry
from choreo.topology.model import Topology


def open_registry(project: Project, topology: Topology) -> Registry:
    """The registry that ``CHOREO_SCHEMA_REGISTRY`` or ``cluster.schema_registry`` names; connects when first asked."""
    address = project.registry_address(topology)
    if address == "file":
        return FileRegistry(project.root / SCHEMAS / LOCK_NAME)
    return HttpRegistry(address)
