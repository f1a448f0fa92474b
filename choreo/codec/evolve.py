"""Evolution at run time: a value read with its writer's schema → the value the reader's schema describes.

fastavro can resolve while it reads, but it hands out a reader's defaults as they stand in the JSON (a timestamp as a
number, bytes as text, one shared list for all rows) and ignores the reader's logical types. Here the bytes are always
read with the writer's schema, and a converter, built once per pair of schemas, makes the reader's value of it.

Source: Apache Avro specification 1.12, "Schema Resolution". Beyond it: instants keep their meaning between millis and
micros, and decimals of another scale are refused (the specification would shift the point silently).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final, NoReturn
from uuid import UUID

from choreo.codec.defaults import default_factory, from_raw, to_raw
from choreo.codec.schema import Schema
from choreo.codec.types import (
    Array,
    Enum,
    Field,
    Fixed,
    Logical,
    Map,
    Named,
    Primitive,
    Record,
    Type,
    Union,
    described,
    short_name,
)
from choreo.errors import SchemaError

Convert = Callable[[Any], Any]

PROMOTIONS: Final = {
    "int": frozenset({"int", "long", "float", "double"}),
    "long": frozenset({"long", "float", "double"}),
    "float": frozenset({"float", "double"}),
    "string": frozenset({"string", "bytes"}),
    "bytes": frozenset({"bytes", "string"}),
}
_FLOAT: Final = struct.Struct("<f")
_PYTHON: Final[dict[str, type]] = {
    "null": type(None),
    "boolean": bool,
    "int": int,
    "long": int,
    "float": float,
    "double": float,
    "string": str,
    "bytes": bytes,
}
_LOGICAL_PYTHON: Final[dict[str, type]] = {
    "timestamp-millis": datetime,
    "timestamp-micros": datetime,
    "local-timestamp-millis": datetime,
    "local-timestamp-micros": datetime,
    "date": date,
    "time-millis": time,
    "time-micros": time,
    "decimal": Decimal,
    "uuid": UUID,
}


class UnresolvableError(ValueError):
    """This value has no counterpart in the reader's schema, although others of the writer's have."""


def converter(writer: Schema, reader: Schema) -> Convert | None:
    """What turns the writer's values into the reader's; None where they are the same.

    The values it takes were read with the branches of unions named for every named type: ``(full name, value)``.

    Raises:
        SchemaError: CH0203, the reader can read no value of the writer; ``where`` is the field.
    """
    return _Resolver().resolve(writer.root, reader.root, reader.root.name)


def python_type(node: Primitive) -> type:
    """The class of the values that fastavro makes of a primitive type."""
    return _LOGICAL_PYTHON[node.logical.name] if node.logical else _PYTHON[node.name]


def _refuse(writer: Type, reader: Type, path: str) -> NoReturn:
    raise SchemaError(f"written as {described(writer)}, read as {described(reader)}", code="CH0203", where=path)


def same_name(writer: Named, reader: Named) -> bool:
    """Whether two named types count as the same one: the unqualified name, or one of the reader's aliases."""
    return (
        short_name(writer.name) == short_name(reader.name)
        or writer.name in reader.aliases
        or short_name(writer.name) in reader.aliases
    )


class _Resolver:
    def __init__(self) -> None:
        self._pairs: dict[tuple[int, int], list[Convert | None]] = {}

    def resolve(self, writer: Type, reader: Type, path: str) -> Convert | None:
        if isinstance(writer, Union):
            return self._from_union(writer, reader, path)
        if isinstance(reader, Union):
            return self._to_union(writer, reader, path)
        if isinstance(writer, Record) and isinstance(reader, Record):
            return self._record(writer, reader, path)
        if isinstance(writer, Enum) and isinstance(reader, Enum):
            return _enum(writer, reader, path)
        if isinstance(writer, Array) and isinstance(reader, Array):
            return _each(self.resolve(writer.items, reader.items, f"{path}[]"))
        if isinstance(writer, Map) and isinstance(reader, Map):
            return _each_value(self.resolve(writer.values, reader.values, f"{path}{{}}"))
        if isinstance(writer, Fixed) and isinstance(reader, Fixed):
            if writer.size != reader.size or not same_name(writer, reader):
                _refuse(writer, reader, path)
            return _logical(writer, reader, path)
        if isinstance(writer, Primitive) and isinstance(reader, Primitive):
            if reader.name != writer.name and reader.name not in PROMOTIONS.get(writer.name, ()):
                _refuse(writer, reader, path)
            return _logical(writer, reader, path)
        _refuse(writer, reader, path)

    def _from_union(self, writer: Union, reader: Type, path: str) -> Convert | None:
        by_name: dict[str, Convert | None] = {}
        by_type: dict[type, Convert | None] = {}
        reasons: list[SchemaError] = []
        for branch in writer.branches:
            try:
                convert = self.resolve(branch, reader, path)
            except SchemaError as error:
                reasons.append(error)
                continue
            if isinstance(branch, Record | Enum | Fixed):
                by_name[branch.name] = convert
            else:
                kind = {Array: list, Map: dict}.get(type(branch))
                by_type[python_type(branch) if isinstance(branch, Primitive) else kind or object] = convert
        if not by_name and not by_type:
            raise reasons[0]
        if not reasons and not by_name and not any(by_type.values()):
            return None

        def from_union(value: Any) -> Any:
            if type(value) is tuple:
                name, value = value
                if name not in by_name:
                    raise UnresolvableError(f"{path}: written as {name}, which the reader's type does not take")
                convert = by_name[name]
            else:
                if type(value) not in by_type:
                    raise UnresolvableError(f"{path}: {value!r:.80} has no place in the reader's {described(reader)}")
                convert = by_type[type(value)]
            return value if convert is None else convert(value)

        return from_union

    def _to_union(self, writer: Type, reader: Union, path: str) -> Convert | None:
        exact = [branch for branch in reader.branches if _same_kind(writer, branch)]
        for branch in [*exact, *(one for one in reader.branches if one not in exact)]:
            try:
                convert = self.resolve(writer, branch, path)
            except SchemaError:
                continue
            if not isinstance(branch, Record) or reader.records < 2:
                return convert
            name = branch.name
            return lambda value: (name, value if convert is None else convert(value))
        _refuse(writer, reader, path)

    def _record(self, writer: Record, reader: Record, path: str) -> Convert | None:
        if not same_name(writer, reader):
            _refuse(writer, reader, path)
        pair = (id(writer), id(reader))
        if pair in self._pairs:  # the record contains itself: look the converter up when it runs
            cell = self._pairs[pair]

            def again(value: Any) -> Any:
                return cell[0](value) if cell[0] is not None else value

            return again
        cell = self._pairs[pair] = [None]
        moves: list[tuple[str, str, Convert | None]] = []
        fills: list[tuple[str, Callable[[], object]]] = []
        for field in reader.fields:
            source = _source(writer, field)
            if source is not None:
                moves.append((source.name, field.name, self.resolve(source.type, field.type, f"{path}.{field.name}")))
            elif field.has_default:
                fills.append((field.name, default_factory(field.type, field.default)))
            else:
                raise SchemaError(
                    f"the reader's field {field.name!r} has no default and the writer did not write it",
                    code="CH0203",
                    where=f"{path}.{field.name}",
                )
        same = len(moves) == len(writer.fields) and all(old == new and not convert for old, new, convert in moves)
        if same and not fills:
            return None

        def record(value: Any) -> Any:
            made = {new: value[old] if convert is None else convert(value[old]) for old, new, convert in moves}
            for name, fill in fills:
                made[name] = fill()
            return made

        cell[0] = record
        return record


def _source(writer: Record, field: Field) -> Field | None:
    """The writer's field that a reader's field reads: by name, else by the reader's aliases."""
    names = (field.name, *field.aliases)
    return next((found for name in names if (found := writer.field(name)) is not None), None)


def _same_kind(writer: Type, reader: Type) -> bool:
    if isinstance(writer, Primitive) and isinstance(reader, Primitive):
        return writer.name == reader.name
    if isinstance(writer, Record | Enum | Fixed) and isinstance(reader, Record | Enum | Fixed):
        return writer.name == reader.name
    return type(writer) is type(reader)


def _each(convert: Convert | None) -> Convert | None:
    return None if convert is None else lambda value: [convert(one) for one in value]


def _each_value(convert: Convert | None) -> Convert | None:
    return None if convert is None else lambda value: {key: convert(one) for key, one in value.items()}


def _enum(writer: Enum, reader: Enum, path: str) -> Convert | None:
    if not same_name(writer, reader):
        _refuse(writer, reader, path)
    known = frozenset(reader.symbols)
    if known.issuperset(writer.symbols):
        return None
    default = reader.default

    def enum(value: Any) -> Any:
        if value in known:
            return value
        if default is None:
            raise UnresolvableError(f"{path}: the symbol {value!r} is unknown to the reader, which has no default")
        return default

    return enum


def _logical(writer: Primitive | Fixed, reader: Primitive | Fixed, path: str) -> Convert | None:
    old, new = writer.logical, reader.logical
    promote = _promotion(writer, reader)
    if old is None and new is None:
        return promote
    if old is not None and new is not None:
        if old.name == "decimal" or new.name == "decimal":
            return _decimal(old, new, writer, reader, path)
        if promote is not None or _family(old) != _family(new):
            _refuse(writer, reader, path)
        if old.name.endswith("-micros") and new.name.endswith("-millis"):
            coarse = new
            return lambda value: from_raw(coarse, to_raw(coarse, value))
        return None
    size = writer.size if isinstance(writer, Fixed) else None
    if old is not None:
        lost = old

        def plain(value: Any) -> Any:
            raw = to_raw(lost, value, size)
            return raw if promote is None else promote(raw)

        return plain
    assert new is not None
    gained = new

    def typed(value: Any) -> Any:
        return from_raw(gained, value if promote is None else promote(value))

    return typed


def _family(logical: Logical) -> str:
    return logical.name.removesuffix("-millis").removesuffix("-micros")


def _decimal(old: Logical, new: Logical, writer: Type, reader: Type, path: str) -> Convert | None:
    if old.name != new.name or old.scale != new.scale:
        _refuse(writer, reader, path)
    if new.precision >= old.precision:
        return None
    digits = new.precision

    def narrower(value: Decimal) -> Decimal:
        if value.adjusted() + 1 + new.scale > digits:
            raise UnresolvableError(f"{path}: {value} has more than the reader's {digits} digits")
        return value

    return narrower


def _to_float(value: int) -> float:
    """The nearest number that a 32-bit float holds."""
    nearest: float = _FLOAT.unpack(_FLOAT.pack(value))[0]
    return nearest


def _promotion(writer: Primitive | Fixed, reader: Primitive | Fixed) -> Convert | None:
    if isinstance(writer, Fixed) or isinstance(reader, Fixed) or writer.name == reader.name:
        return None
    match writer.name, reader.name:
        case (("int" | "long"), "double"):
            return float
        case (("int" | "long"), "float"):
            return _to_float
        case "string", "bytes":
            return lambda value: value.encode()
        case "bytes", "string":
            return lambda value: value.decode()
        case _:
            return None
