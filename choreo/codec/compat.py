"""May a topic's schema change like this? Asked of the `avro` package, answered with the field at fault.

The package decides whether one schema can read another's data, but it reports unordered sets and loses the place inside
unions; a walk over both schemas finds every field at fault with its path. The walk is also stricter in two things that
Avro's rules let pass and that change a value silently: a decimal's scale, and time that becomes another kind of time.
Whatever either of the two objects to is a problem.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException

from choreo.codec.evolve import PROMOTIONS, same_name
from choreo.codec.schema import Schema
from choreo.codec.types import Array, Enum, Field, Fixed, Logical, Map, Primitive, Record, Type, Union, described
from choreo.errors import SchemaError

Level = Literal["BACKWARD", "FORWARD", "FULL", "NONE"]


class Problem(NamedTuple):
    """One reason against a change."""

    path: str  # record and field: supply.Booking.weight
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


Seen = dict[tuple[int, int], list[Problem]]  # pairs of records already compared, with what was found


def check(new: Schema, old: Schema, level: Level = "BACKWARD") -> list[Problem]:
    """What speaks against replacing one schema by another.

    Args:
        new: the schema that readers and writers will have.
        old: a schema that a topic's records were written with.
        level: BACKWARD (new readers read old records), FORWARD (old readers read new records), FULL (both) or NONE.

    Returns:
        Problems in the order of the fields; none if the change is allowed.
    """
    if new == old or level == "NONE":
        return []
    problems = _read_problems(new, old) if level in ("BACKWARD", "FULL") else []
    if level in ("FORWARD", "FULL"):
        problems += [
            Problem(path, f"{message} (by readers that still have the old schema)")
            for path, message in _read_problems(old, new)
        ]
    return problems


def check_versions(new: Schema, old: Sequence[Schema], level: Level = "BACKWARD") -> list[Problem]:
    """The same against all versions of a topic: its records may have been written with any of them."""
    problems: list[Problem] = []
    for one in old:
        problems += [problem for problem in check(new, one, level) if problem not in problems]
    return problems


def require(new: Schema, old: Sequence[Schema], level: Level, where: str) -> None:
    """Raises unless the change is allowed.

    Raises:
        SchemaError: CH0203 with every field at fault.
    """
    problems = check_versions(new, old, level)
    if problems:
        raise SchemaError(
            f"the change of {new.full_name} is not {level} compatible: {'; '.join(map(str, problems))}",
            code="CH0203",
            where=where,
            hint="give new fields a default, keep old ones, or use a new topic",
        )


@lru_cache(maxsize=1_024)
def _read(reader: Schema, writer: Schema) -> tuple[Problem, ...]:
    found = tuple(dict.fromkeys(_walk(reader.root, writer.root, reader.root.name, {})))
    if found:
        return found
    try:
        result = ReaderWriterCompatibilityChecker().get_compatibility(_avro(reader), _avro(writer))
    except AvroException as error:
        raise SchemaError(f"the avro package refuses the schema: {error}", where=reader.full_name) from None
    if result.compatibility is SchemaCompatibilityType.compatible:
        return ()
    places = ", ".join(sorted(place for place in result.locations if place != "/")) or "/"
    return (Problem(reader.full_name, f"{'; '.join(sorted(result.messages))} (at {places})"),)


def _read_problems(reader: Schema, writer: Schema) -> list[Problem]:
    return list(_read(reader, writer))


def _avro(schema: Schema) -> Any:
    """The schema as the avro package's object, by structure alone: it warns about logical types it does not know."""
    return avro.schema.parse(json.dumps(_structure(json.loads(schema.text))))


def _structure(body: Any) -> Any:
    if isinstance(body, list):
        return [_structure(one) for one in body]
    if not isinstance(body, dict):
        return body
    kept = ("type", "name", "aliases", "symbols", "size", "items", "values", "fields", "default")
    out = {key: body[key] for key in kept if key in body}
    for part in ("type", "items", "values", "fields"):
        if part in out:
            out[part] = _structure(out[part])
    if out.get("type") in _SCALARS and set(out) == {"type"}:
        return out["type"]
    return out


_SCALARS = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


def _walk(reader: Type, writer: Type, path: str, seen: Seen) -> Iterator[Problem]:
    """Every place where the reader cannot read what the writer may have written."""
    if isinstance(writer, Union):
        for branch in writer.branches:
            yield from _walk(reader, branch, path, seen)
    elif isinstance(reader, Union):
        yield from _into_union(reader, writer, path, seen)
    elif isinstance(reader, Record) and isinstance(writer, Record):
        yield from _records(reader, writer, path, seen)
    elif isinstance(reader, Enum) and isinstance(writer, Enum):
        if not same_name(writer, reader):
            yield Problem(path, f"the enum is named {reader.name}, records have {writer.name}; give it an alias")
        lost = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
        if lost and reader.default is None:
            yield Problem(path, f"the symbol {lost[0]!r} is gone and the enum has no default")
    elif isinstance(reader, Array) and isinstance(writer, Array):
        yield from _walk(reader.items, writer.items, f"{path}[]", seen)
    elif isinstance(reader, Map) and isinstance(writer, Map):
        yield from _walk(reader.values, writer.values, f"{path}{{}}", seen)
    elif isinstance(reader, Fixed) and isinstance(writer, Fixed):
        if reader.size != writer.size:
            yield Problem(path, f"its size is {reader.size} bytes, records have {writer.size}")
        elif not same_name(writer, reader):
            yield Problem(path, f"the fixed is named {reader.name}, records have {writer.name}; give it an alias")
        yield from _logicals(reader, writer, path)
    elif isinstance(reader, Primitive) and isinstance(writer, Primitive):
        if reader.name != writer.name and reader.name not in PROMOTIONS.get(writer.name, ()):
            yield _differs(reader, writer, path)
        yield from _logicals(reader, writer, path)
    else:
        yield _differs(reader, writer, path)


def _differs(reader: Type, writer: Type, path: str) -> Problem:
    return Problem(path, f"its type is {described(reader)}, records have {described(writer)}")


def _into_union(reader: Union, writer: Type, path: str, seen: Seen) -> Iterator[Problem]:
    closest: list[Problem] = []
    for branch in reader.branches:
        problems = list(_walk(branch, writer, path, seen))
        if not problems:
            return
        if type(branch) is type(writer) and not isinstance(branch, Primitive):
            closest = closest or problems
    yield from closest or [_differs(reader, writer, path)]


def _records(reader: Record, writer: Record, path: str, seen: Seen) -> Iterator[Problem]:
    if not same_name(writer, reader):
        yield Problem(path, f"the record is named {reader.name}, records have {writer.name}; give it an alias")
        return
    pair = (id(reader), id(writer))
    if pair not in seen:
        seen[pair] = []  # inside itself: nothing new
        found = (problem for field in reader.fields for problem in _field(field, writer, path, seen))
        seen[pair] = list(dict.fromkeys(found))  # each once, or records that share parts would multiply them
    yield from seen[pair]


def _field(field: Field, writer: Record, path: str, seen: Seen) -> Iterator[Problem]:
    place = f"{path}.{field.name}"
    names = (field.name, *field.aliases)
    source = next((found for name in names if (found := writer.field(name)) is not None), None)
    if source is not None:
        yield from _walk(field.type, source.type, place, seen)
    elif not field.has_default:
        yield Problem(place, "it has no default, and records without it exist")


def _logicals(reader: Primitive | Fixed, writer: Primitive | Fixed, path: str) -> Iterator[Problem]:
    new, old = reader.logical, writer.logical
    if new is None or old is None:
        return
    if new.name == old.name == "decimal":
        if new.scale != old.scale:
            yield Problem(path, f"the decimal has {new.scale} digits after the point, records have {old.scale}")
        elif new.precision < old.precision:
            yield Problem(path, f"the decimal has {new.precision} digits, records have up to {old.precision}")
    elif _family(new) != _family(old):
        yield _differs(reader, writer, path)


def _family(logical: Logical) -> str:
    return logical.name.removesuffix("-millis").removesuffix("-micros")
