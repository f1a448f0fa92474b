"""Whether the schemas of a topology can read what is registered, and so may lie in its topics already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from choreo.codec.compat import check_versions
from choreo.codec.schema import Schema, SchemaSet
from choreo.codec.types import short_name
from choreo.topology.desired import WantedSchema, wanted_schemas
from choreo.topology.model import Topology
from choreo.topology.problems import Lint, problem

EVOLUTION_HINT: Final = "give new fields a default, keep old ones, or use a new topic"


def objection_to(schema: Schema, versions: Sequence[Schema], wanted: WantedSchema, *, foreign: bool) -> str | None:
    """What speaks against making a schema a subject's newest version; None if nothing does.

    Args:
        schema: what the project has.
        versions: registered schemas of the subject.
        wanted: the subject and its compatibility.
        foreign: others write the topic and register their schema: ours only has to read theirs.
    """
    problems = check_versions(schema, versions, "BACKWARD" if foreign else wanted.compatibility)
    if not problems:
        return None
    what = "cannot read what its owner writes" if foreign else f"is not {wanted.compatibility} compatible"
    return f"{short_name(schema.full_name)} {what}: {'; '.join(str(one) for one in problems)}"


def lint_evolution(
    topology: Topology, schemas: SchemaSet, registered: Mapping[str, Sequence[Schema]]
) -> Iterator[Lint]:
    """A CH0203 for each schema that cannot replace what is registered.

    Args:
        topology: without unknown schemas.
        schemas: the project's records.
        registered: versions by subject, such as the file registry's.
    """
    for wanted in wanted_schemas(topology):
        versions = registered.get(wanted.subject, ())
        if not versions or wanted.record not in schemas:
            continue
        objection = objection_to(schemas.by_name(wanted.record), versions, wanted, foreign=False)
        if objection is not None:
            place = topology.at(*wanted.owner, "schema")
            yield problem("CH0203", place, objection, "a change that old records and readers survive", EVOLUTION_HINT)
