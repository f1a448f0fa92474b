"""The example topology as a base that tests lay fragments over."""

from __future__ import annotations

from choreo.codec.schema import SchemaSet
from choreo.runtime.builtin_schemas import library_texts
from choreo.topology.example import SCHEMAS, TOPOLOGY
from choreo.topology.model import Topology
from choreo.topology.parse import parse

EXAMPLE_SCHEMAS = SchemaSet.load(SCHEMAS, library=library_texts())


def example(fragment: str = "", **env: str) -> Topology:
    """The example with a fragment of YAML laid over it."""
    overlay = (fragment, "fragment.yaml") if fragment else None
    parsed = parse(TOPOLOGY, "example.yaml", overlay=overlay, env=env)
    assert parsed.topology is not None, [str(one) for one in parsed.problems]
    return parsed.topology
