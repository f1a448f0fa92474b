"""What the runtime has to provide, as Protocols: one adapter per port, and fakes that pass the same tests."""

from __future__ import annotations

from typing import Protocol

from choreo.codec.schema import Schema


class Registry(Protocol):
    """Which id on the wire means which schema. Subjects are ``{topic}-value``."""

    def id_for(self, subject: str, schema: Schema) -> int:
        """The id of a schema that is registered for the subject. Looks up only.

        Raises:
            SchemaError: CH0205 if it is not; CH0207 if the registry is away.
        """
        ...

    def schema_by_id(self, schema_id: int) -> Schema:
        """The schema of an id.

        Raises:
            SchemaError: CH0205 if unknown; CH0207 if the registry is away.
        """
        ...

    def register(self, subject: str, schema: Schema) -> int:
        """Makes the schema the subject's newest version unless it is, and returns its id.

        Raises:
            SchemaError: CH0203 if the registry refuses it as incompatible; CH0207 if the registry is away.
        """
        ...

    def versions(self, subject: str) -> list[tuple[int, int, Schema]]:
        """(version, id, schema), oldest first; empty if nothing is registered."""
        ...

    def subjects(self) -> list[str]:
        """Every subject with versions, sorted."""
        ...
