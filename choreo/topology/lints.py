"""What is wrong between the declarations of a topology, beyond what the parser sees in a single field.

The rules live in ``lints_*`` by theme, each with its code, its explanation and its examples; docs/lints.md is made from
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from choreo.codec.schema import Schema, SchemaSet
from choreo.topology import lints_delivery, lints_graph, lints_keys, lints_names, lints_promises
from choreo.topology.evolution import lint_evolution
from choreo.topology.model import Topology
from choreo.topology.problems import Lint, in_order
from choreo.topology.rules import RULES, View

__all__ = ["RULES", "THEMES", "Lint", "lint"]

# Order and headings of docs/lints.md; importing the modules registers their rules.
THEMES = {
    lints_names: "Names",
    lints_graph: "Who hears whom",
    lints_keys: "Keys, partitions, rows",
    lints_delivery: "What Kafka keeps and takes",
    lints_promises: "What an agent may do and promises",
}


def lint(
    topology: Topology, schemas: SchemaSet, registered: Mapping[str, Sequence[Schema]] | None = None
) -> list[Lint]:
    """Every problem of a topology that parsed, in the order of the file.

    Args:
        topology: as parsed.
        schemas: the project's records.
        registered: schemas that topics may hold already, by subject; without them evolution is not looked at.
    """
    view = View(topology, schemas)
    found = [one for rule in RULES.values() for one in rule.run(view)]
    return in_order([*found, *lint_evolution(topology, schemas, registered or {})])
