"""The Avro types as plain values: what the schema reader builds and everything else in the codec walks.

fastavro works on dictionaries; this tree exists so that the rest of the codec (limits, evolution, checks, generated
classes) reads a typed structure instead. A record may contain itself, so ``Record.fields`` is filled after the record
exists; nothing changes it later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

PrimitiveName = Literal["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
PRIMITIVES: Final[frozenset[str]] = frozenset(PrimitiveName.__args__)  # type: ignore[attr-defined]

# Logical types that become Python values, and the type they annotate. Others are ignored, as Avro asks for.
LOGICAL: Final[Mapping[str, frozenset[str]]] = {
    "timestamp-millis": frozenset({"long"}),
    "timestamp-micros": frozenset({"long"}),
    "local-timestamp-millis": frozenset({"long"}),
    "local-timestamp-micros": frozenset({"long"}),
    "date": frozenset({"int"}),
    "time-millis": frozenset({"int"}),
    "time-micros": frozenset({"long"}),
    "decimal": frozenset({"bytes", "fixed"}),
    "uuid": frozenset({"string"}),
}

INT_MIN: Final = -(2**31)
INT_MAX: Final = 2**31 - 1
LONG_MIN: Final = -(2**63)
LONG_MAX: Final = 2**63 - 1


class _NoDefault:
    """Marks a field without a default; ``None`` is a default of its own (null)."""

    def __repr__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT: Final = _NoDefault()


@dataclass(frozen=True, slots=True)
class Logical:
    """A logical type that choreo turns into a Python value."""

    name: str
    precision: int = 0  # decimal only
    scale: int = 0


@dataclass(frozen=True, slots=True)
class Primitive:
    name: PrimitiveName
    logical: Logical | None = None


@dataclass(frozen=True, slots=True)
class Fixed:
    name: str
    size: int
    logical: Logical | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Enum:
    name: str
    symbols: tuple[str, ...]
    default: str | None = None
    doc: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Array:
    items: Type


@dataclass(frozen=True, slots=True)
class Map:
    values: Type


@dataclass(frozen=True, slots=True)
class Union:
    branches: tuple[Type, ...]

    @property
    def records(self) -> int:
        """How many branches are records. With two or more, a value names its branch: ``(full name, value)``."""
        return sum(isinstance(branch, Record) for branch in self.branches)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record. ``default`` is the JSON value as written in the schema."""

    name: str
    type: Type
    default: object = NO_DEFAULT
    doc: str = ""
    aliases: tuple[str, ...] = ()
    window: Mapping[str, object] | None = None  # configuration of a `choreo.Window` field

    @property
    def has_default(self) -> bool:
        return self.default is not NO_DEFAULT


@dataclass(eq=False, slots=True)
class Record:
    name: str
    doc: str = ""
    aliases: tuple[str, ...] = ()
    fields: tuple[Field, ...] = field(default=(), repr=False)

    def field(self, name: str) -> Field | None:
        return next((one for one in self.fields if one.name == name), None)


Type = Primitive | Fixed | Enum | Array | Map | Union | Record
Named = Fixed | Enum | Record


def short_name(full_name: str) -> str:
    """Name without its namespace."""
    return full_name.rpartition(".")[2]


def type_name(node: Type) -> str:
    """The name Avro gives a type: of a named type its full name, otherwise the kind."""
    match node:
        case Primitive(name=name):
            return name
        case Array():
            return "array"
        case Map():
            return "map"
        case Union():
            return "union"
        case _:
            return node.name


def described(node: Type) -> str:
    """A type in words, for messages: ``timestamp-millis (long)``, ``enum choreo.Kind``, ``null or string``."""
    match node:
        case Primitive(name=name, logical=logical):
            return f"{logical.name} ({name})" if logical else name
        case Fixed(name=name, size=size, logical=logical):
            return f"{logical.name if logical else 'fixed'} {name} of {size} bytes"
        case Enum(name=name):
            return f"enum {name}"
        case Array(items=items):
            return f"array of {described(items)}"
        case Map(values=values):
            return f"map of {described(values)}"
        case Union(branches=branches):
            return " or ".join(described(branch) for branch in branches)
        case Record(name=name):
            return f"record {name}"


def children(node: Type) -> Iterator[Type]:
    """The types directly inside a type."""
    match node:
        case Array(items=items):
            yield items
        case Map(values=values):
            yield values
        case Union(branches=branches):
            yield from branches
        case Record(fields=fields):
            for one in fields:
                yield one.type
        case _:
            return


def records_of(root: Type) -> list[Record]:
    """Every record reachable from a type, each once, outermost first."""
    found: list[Record] = []
    seen: set[int] = set()
    queue: list[Type] = [root]
    while queue:
        node = queue.pop(0)
        if isinstance(node, Record):
            if id(node) in seen:
                continue
            seen.add(id(node))
            found.append(node)
        queue.extend(children(node))
    return found
