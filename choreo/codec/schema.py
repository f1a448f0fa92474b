"""Schemas as values: one record, self-contained, with its fingerprint and the form fastavro works on.

``SchemaSet.load`` takes the texts of all `.avsc` files of a project (the caller reads the files) and resolves the
references between them. ``Schema.parse`` takes one text that stands alone, as registries hold them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from keyword import iskeyword
from typing import Any, Final

import fastavro

from choreo.codec.defaults import DefaultError, default_value
from choreo.codec.source import WINDOW_NAME, Names, compact, load_json, refuse, without_docs
from choreo.codec.types import (
    NO_DEFAULT,
    PRIMITIVES,
    Array,
    Enum,
    Field,
    Fixed,
    Logical,
    Map,
    Named,
    Primitive,
    PrimitiveName,
    Record,
    Type,
    Union,
    records_of,
    short_name,
)
from choreo.errors import SchemaError

# The largest schemas in public collections have some thousand fields.
_VALUES_MAX: Final = 20_000
_WINDOW_EXAMPLE: Final = '"window": {"kind": "sliding", "size": "5m", "every": "30s", "late": "1m"}'


class Schema:
    """One Avro record schema; immutable, equal when the fingerprints are equal.

    Attributes:
        full_name: the record's name with its namespace.
        text: canonical JSON, fully inlined, with docs. This is what a registry holds.
        fingerprint: SHA-256 (hex) of the text without docs: same fingerprint, same reading and writing.
        root: the record as typed values.
        parsed: fastavro's form.
    """

    __slots__ = ("_hash", "file", "fingerprint", "full_name", "parsed", "root", "text")

    def __init__(self, body: Mapping[str, object], file: str) -> None:
        self.full_name: Final = str(body["name"])
        self.file: Final = file
        self.text: Final = compact(body)
        self.fingerprint: Final = hashlib.sha256(compact(without_docs(body)).encode()).hexdigest()
        self._hash = hash(self.fingerprint)
        root = _Builder(f"{file}: ").type(body)
        if not isinstance(root, Record):
            refuse(f"{self.full_name} is not a record; choreo's values are records", file)
        self.root: Final = root
        _refuse_endless(root, file)
        _refuse_vast(root, file)
        _check_defaults(root, file)
        self.parsed: Final[Any] = _fastavro_form(self.text, file)

    @classmethod
    def parse(cls, text: str, file: str = "schema", others: Mapping[str, str] | None = None) -> Schema:
        """A schema from one text. ``others``: texts of the types it refers to, by a name for messages.

        Raises:
            SchemaError: CH0202, not a valid Avro record schema.
        """
        names = Names()
        for other, other_text in (others or {}).items():
            names.collect(load_json(other_text, other), "", other)
        body = load_json(text, file)
        full = names.collect(body, "", file)
        if full is None:
            refuse("the text does not define a record at its top level", file)
        return cls(names.inlined(full), file)

    def field(self, name: str) -> Field | None:
        """The record's own field of that name."""
        return self.root.field(name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and other.fingerprint == self.fingerprint

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Schema({self.full_name!r}, {self.fingerprint[:8]})"


class SchemaSet:
    """All record schemas of a project, by name."""

    def __init__(self, schemas: Mapping[str, Schema], names: Names) -> None:
        self._schemas = dict(schemas)
        self._names = names
        # full name of every named type, those inside records included → the file that defines it
        self.files: Final = {full: definition.file for full, definition in names.definitions.items()}
        self._short: dict[str, list[str]] = {}
        for full in self._schemas:
            self._short.setdefault(short_name(full), []).append(full)

    @classmethod
    def load(cls, texts: Mapping[str, str], library: Mapping[str, str] | None = None) -> SchemaSet:
        """Schemas from the texts of `.avsc` files, by file name. References between the files are resolved.

        Args:
            texts: the project's own files; each defines one named type, and each record becomes a schema of the set.
            library: texts that may only be referred to (choreo's own: ``choreo.Window``).

        Raises:
            SchemaError: CH0202 with the file (and field) at fault.
        """
        names = Names()
        tops: dict[str, str] = {}
        for file, text in (library or {}).items():
            names.collect(load_json(text, file), "", file)
        for file in sorted(texts):
            body = load_json(texts[file], file)
            full = names.collect(body, "", file)
            if full is None:
                refuse("the file does not define a named type at its top level (one record a file)", file)
            tops[full] = file
        schemas = {}
        for full in tops:
            definition = names.definitions[full]
            if definition.body["type"] == "record":
                schemas[full] = Schema(names.inlined(full), definition.file)
        return cls(schemas, names)

    def by_name(self, name: str) -> Schema:
        """The record schema of that short or full name.

        Raises:
            SchemaError: CH0202, unknown or ambiguous name.
        """
        found = self._schemas.get(name)
        if found is not None:
            return found
        candidates = self._short.get(name, [])
        if len(candidates) == 1:
            return self._schemas[candidates[0]]
        if candidates:
            raise SchemaError(f"the name {name!r} is ambiguous", hint=f"write one of {', '.join(sorted(candidates))}")
        known = ", ".join(sorted(short_name(full) for full in self._schemas)) or "none"
        raise SchemaError(f"no .avsc file defines the record {name!r}", hint=f"known records: {known}")

    def part(self, full_name: str) -> Schema:
        """The schema of a record by full name, also of one that is defined inside another's file."""
        found = self._schemas.get(full_name)
        return found if found is not None else Schema(self._names.inlined(full_name), self.files[full_name])

    def __contains__(self, name: object) -> bool:
        return name in self._schemas or (isinstance(name, str) and len(self._short.get(name, [])) == 1)

    def __iter__(self) -> Iterator[Schema]:
        return iter(sorted(self._schemas.values(), key=lambda schema: schema.full_name))

    def __len__(self) -> int:
        return len(self._schemas)


class _Builder:
    """Inlined JSON → typed values. The JSON was checked by ``source``."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._named: dict[str, Named] = {}

    def type(self, body: object) -> Type:
        if isinstance(body, str):
            return Primitive(_primitive(body)) if body in PRIMITIVES else self._named[body]
        if isinstance(body, list):
            return Union(tuple(self.type(branch) for branch in body))
        assert isinstance(body, dict), "inlined types are names, unions or objects"
        kind = body["type"]
        if kind == "record":
            return self._record(body)
        if kind == "array":
            return Array(self.type(body["items"]))
        if kind == "map":
            return Map(self.type(body["values"]))
        if kind not in ("enum", "fixed"):
            return Primitive(_primitive(kind), _logical(body))
        made: Named
        if kind == "enum":
            made = Enum(
                body["name"],
                tuple(body["symbols"]),
                body.get("default"),
                str(body.get("doc", "")),
                tuple(body.get("aliases", ())),
            )
        else:
            made = Fixed(body["name"], body["size"], _logical(body), tuple(body.get("aliases", ())))
        self._named[made.name] = made
        return made

    def _record(self, body: Mapping[str, Any]) -> Record:
        record = Record(body["name"], str(body.get("doc", "")), tuple(body.get("aliases", ())))
        self._named[record.name] = record  # before its fields: they may refer to it
        record.fields = tuple(self._field(one, record) for one in body["fields"])
        return record

    def _field(self, body: Mapping[str, Any], record: Record) -> Field:
        node = self.type(body["type"])
        window = body.get("window")
        is_window = isinstance(node, Record) and node.name == WINDOW_NAME
        place = f"{self._where}{record.name}.{body['name']}"
        if is_window and not isinstance(window, dict):
            refuse(f"a field of type {WINDOW_NAME} needs its configuration", place, f"add {_WINDOW_EXAMPLE}")
        if window is not None and not is_window:
            refuse(f"'window' configures a field of type {WINDOW_NAME}, not of another type", place)
        for key in window or ():
            if not key.isidentifier() or iskeyword(key):  # generated classes write them as arguments of a call
                refuse(f"a window has no setting {key!r:.80}", place, f"as in {_WINDOW_EXAMPLE}")
        return Field(
            body["name"],
            node,
            body.get("default", NO_DEFAULT),
            str(body.get("doc", "")),
            tuple(body.get("aliases", ())),
            window,
        )


def _primitive(name: str) -> PrimitiveName:
    assert name in PRIMITIVES, f"{name} is not a primitive type"
    return name  # type: ignore[return-value]


def _logical(body: Mapping[str, Any]) -> Logical | None:
    name = body.get("logicalType")
    known = ("timestamp", "local-timestamp", "date", "time", "decimal", "uuid")
    if not isinstance(name, str) or name.removesuffix("-millis").removesuffix("-micros") not in known:
        return None
    return Logical(name, body.get("precision", 0), body.get("scale", 0))


def _refuse_endless(root: Record, file: str) -> None:
    """Refuses a record that contains itself on every path: no finite value exists, and readers would never end."""
    records = records_of(root)
    finite: set[int] = set()

    def ends(node: Type) -> bool:
        if isinstance(node, Record):
            return id(node) in finite
        return any(ends(branch) for branch in node.branches) if isinstance(node, Union) else True

    grew = True
    while grew:
        ended = [one for one in records if id(one) not in finite and all(ends(field.type) for field in one.fields)]
        finite.update(id(one) for one in ended)
        grew = bool(ended)
    for one in records:
        if id(one) not in finite:
            refuse(
                f"{one.name} always contains itself, so no value of it is finite",
                f"{file}: {one.name}",
                'make the inner one optional: ["null", …]',
            )


def _refuse_vast(root: Record, file: str) -> None:
    """Refuses a record whose smallest value, or whose default, is larger than anyone would write by hand: each level
    may double the one inside it, and thirty lines then make a billion values."""
    sizes: dict[int, int] = {}

    def size(node: Type) -> int:
        if not isinstance(node, Record):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = 1
            sizes[id(node)] = 1 + sum(of_field(field) for field in node.fields)
        return sizes[id(node)]

    def of_field(field: Field) -> int:
        node, default = field.type, field.default
        if isinstance(node, Union) and isinstance(default, dict):
            return sum(size(branch) for branch in node.branches)
        if isinstance(node, Array) and isinstance(default, list):
            return 1 + len(default) * size(node.items)
        if isinstance(node, Map) and isinstance(default, dict):
            return 1 + len(default) * size(node.values)
        return size(node)

    if any(size(record) > _VALUES_MAX for record in records_of(root)):
        refuse(f"the smallest {root.name}, or its default, has more than {_VALUES_MAX} values", file)


def _check_defaults(root: Record, file: str) -> None:
    for record in records_of(root):
        for one in record.fields:
            if one.has_default:
                try:
                    default_value(one.type, one.default)
                except DefaultError as error:
                    refuse(str(error), f"{file}: {record.name}.{one.name}")


def _fastavro_form(text: str, file: str) -> Any:
    body = json.loads(text)
    try:
        return fastavro.parse_schema(body)
    except (fastavro.schema.SchemaParseException, ValueError, KeyError, TypeError) as error:
        refuse(f"not a valid Avro schema: {error}", file)
