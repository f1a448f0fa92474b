"""A schema registry in memory that takes every schema: tests need no lock file."""

from __future__ import annotations

from choreo.codec.schema import Schema
from choreo.errors import SchemaError
from choreo.runtime.builtin_schemas import builtin_lock
from choreo.runtime.registry_lock import FIRST_USER_ID


class MemoryRegistry:
    """The port ``choreo.ports.Registry``; looking up an id registers the schema."""

    def __init__(self) -> None:
        self._schemas: list[Schema] = []
        self._ids: dict[Schema, int] = {}
        self._subjects: dict[str, list[int]] = {}

    def id_for(self, subject: str, schema: Schema) -> int:
        """The schema's id, a new one if needed."""
        return self.register(subject, schema)

    def register(self, subject: str, schema: Schema) -> int:
        """The schema's id, a new one if needed."""
        own = builtin_lock().id_of(schema)
        if own is not None:
            return own
        found = self._ids.get(schema)
        if found is None:
            found = self._ids[schema] = FIRST_USER_ID + len(self._schemas)
            self._schemas.append(schema)
        versions = self._subjects.setdefault(subject, [])
        if found not in versions:
            versions.append(found)
        return found

    def schema_by_id(self, schema_id: int) -> Schema:
        """The schema of an id.

        Raises:
            SchemaError: CH0205, unknown id.
        """
        if schema_id < FIRST_USER_ID:
            return builtin_lock().schema(schema_id)
        if schema_id - FIRST_USER_ID >= len(self._schemas):
            raise SchemaError(f"schema id {schema_id} is unknown", code="CH0205")
        return self._schemas[schema_id - FIRST_USER_ID]

    def versions(self, subject: str) -> list[tuple[int, int, Schema]]:
        """(version, id, schema), oldest first."""
        ids = self._subjects.get(subject, [])
        return [(number, one, self.schema_by_id(one)) for number, one in enumerate(ids, 1)]

    def subjects(self) -> list[str]:
        """Every subject with versions, sorted."""
        return sorted(self._subjects)
