"""The lock file of schema ids: which schema each id on the wire means, for ever.

It is committed and reviewed like code. A schema stays in it after its `.avsc` has moved on, because messages with the
old id stay readable only so. The output is sorted and stable: registering one schema changes only the lines about it.

    {"format": 1,
     "schemas": {"1000": {"fingerprint": "…", "schema": {…inlined Avro…}}},
     "subjects": {"flights-value": [{"id": 1000, "version": 1}]}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from choreo.codec.schema import Schema
from choreo.errors import SchemaError

FORMAT: Final = 1
# Ids below are choreo's own records, the same everywhere.
FIRST_USER_ID: Final = 1_000


class Version(NamedTuple):
    """One version of a subject."""

    version: int
    schema_id: int


@dataclass(slots=True)
class Lock:
    """Contents of a lock file; changed only by ``registered``, which returns a new one."""

    texts: Mapping[int, str] = field(default_factory=dict)  # id → inlined schema text
    fingerprints: Mapping[int, str] = field(default_factory=dict)
    subjects: Mapping[str, tuple[Version, ...]] = field(default_factory=dict)
    file: str = ""
    _parsed: dict[int, Schema] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str, file: str) -> Lock:
        """A lock from its JSON.

        Raises:
            SchemaError: CH0205, not a lock file, or edited by hand.
        """
        try:
            body: Any = json.loads(text)
            if body["format"] != FORMAT:
                raise _broken(file, f"its format is {body['format']!r}, this choreo reads {FORMAT}")
            texts, fingerprints = {}, {}
            for number, entry in body["schemas"].items():
                texts[int(number)] = json.dumps(entry["schema"], ensure_ascii=False, separators=(",", ":"))
                fingerprints[int(number)] = str(entry["fingerprint"])
            subjects = {
                str(subject): tuple(Version(int(one["version"]), int(one["id"])) for one in versions)
                for subject, versions in body["subjects"].items()
            }
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise _broken(file, f"{type(error).__name__}: {error}"[:200]) from None
        for subject, versions in subjects.items():
            if [one.version for one in versions] != list(range(1, len(versions) + 1)):
                raise _broken(file, f"the versions of {subject} are not 1, 2, 3, …")
            for one in versions:
                if one.schema_id not in texts:
                    raise _broken(file, f"{subject} names the id {one.schema_id}, which has no schema")
        return cls(texts, fingerprints, subjects, file)

    def dump(self) -> str:
        """The file's text."""
        body = {
            "format": FORMAT,
            "schemas": {
                str(number): {"fingerprint": self.fingerprints[number], "schema": json.loads(self.texts[number])}
                for number in sorted(self.texts)
            },
            "subjects": {
                subject: [{"id": one.schema_id, "version": one.version} for one in self.subjects[subject]]
                for subject in sorted(self.subjects)
            },
        }
        return json.dumps(body, ensure_ascii=False, indent=1) + "\n"

    def schema(self, schema_id: int) -> Schema:
        """The schema of an id.

        Raises:
            SchemaError: CH0205, unknown, or not what its fingerprint says.
        """
        found = self._parsed.get(schema_id)
        if found is not None:
            return found
        if schema_id not in self.texts:
            raise SchemaError(
                f"no schema has the id {schema_id}",
                code="CH0205",
                where=self.file or None,
                hint="was the record written with another registry?",
            )
        schema = Schema.parse(self.texts[schema_id], f"{self.file} id {schema_id}")
        if schema.fingerprint != self.fingerprints[schema_id]:
            raise _broken(self.file, f"the schema of id {schema_id} was changed after it was registered")
        self._parsed[schema_id] = schema
        return schema

    def adopt(self, known: Iterable[Schema]) -> None:
        """Takes schemas that were parsed already instead of parsing the same texts again."""
        by_text = {schema.text: schema for schema in known}
        for number, text in self.texts.items():
            schema = by_text.get(text)
            if schema is not None and schema.fingerprint == self.fingerprints[number]:
                self._parsed[number] = schema

    def versions(self, subject: str) -> tuple[Version, ...]:
        """Versions of a subject, oldest first; empty if the subject is unknown."""
        return self.subjects.get(subject, ())

    def find(self, subject: str, schema: Schema) -> Version | None:
        """The newest version of a subject that is this schema."""
        for one in reversed(self.versions(subject)):
            if self.fingerprints[one.schema_id] == schema.fingerprint:
                return one
        return None

    def id_of(self, schema: Schema) -> int | None:
        """The id of a schema under whatever subject."""
        same = (number for number, print_ in self.fingerprints.items() if print_ == schema.fingerprint)
        return min(same, default=None)

    def registered(self, subject: str, schema: Schema, first_id: int = FIRST_USER_ID) -> tuple[Lock, int]:
        """A lock in which the subject's newest version is this schema, and its id. The same lock if it is already."""
        known = self.versions(subject)
        found = self.id_of(schema)
        if found is not None and known and known[-1].schema_id == found:
            return self, found
        number = found if found is not None else max((*self.texts, first_id - 1)) + 1
        subjects = {**self.subjects, subject: (*known, Version(len(known) + 1, number))}
        texts = {number: schema.text, **self.texts}
        return Lock(texts, {**self.fingerprints, number: schema.fingerprint}, subjects, self.file), number


def _broken(file: str, reason: str) -> SchemaError:
    return SchemaError(
        f"the lock file of schema ids cannot be used: {reason}",
        code="CH0205",
        where=file,
        hint="restore it from version control; only `choreo apply` changes it",
    )
