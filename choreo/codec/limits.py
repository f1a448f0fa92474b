"""What a message may cost to read: checked over the bytes before fastavro builds values from them.

fastavro trusts its input: a block count of 2⁴⁰ nulls is one it would serve, and recursion in it ends the process. A
scan walks the bytes by the writer's schema without making values and counts. Most messages never need it: from the
schema follows a size below which no bytes can exceed the limits (``Scan.unchecked_bytes``); a record without arrays,
maps and recursion is bounded by its own length, and pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from choreo.codec.schema import Schema
from choreo.codec.types import (
    Array,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Type,
    Union,
    children,
    records_of,
)
from choreo.errors import DecodeError

# Kafka's default message limit is 1 MiB. Text of 8 MiB may need 32 MiB as Python text: with the bytes still inside 64.
PAYLOAD_BYTES_MAX: Final = 8 * 1024 * 1024
# Python values in one message's arrays and maps, in plain values: at 0.2 to 0.45 µs each to scan and read this many
# take 30 ms and a few MiB. (JSON and protobuf readers bound nesting and length but not this; CVE-2023-39410 is Avro's.)
VALUES_MAX: Final = 65_536
# What a value of a logical type takes, in plain values: 0.5 to 1.5 µs; a decimal more with its digits.
_LOGICAL_COST: Final = 5
_DIGITS_PER_COST: Final = 20
# Levels of a recursive record. Java's JSON readers stop at 1,000, protobuf at 100; each level is several C frames here.
DEPTH_MAX: Final = 64
# A varint of 64 bits has 10 bytes at most.
_VARINT_BYTES_MAX: Final = 10
# Longer messages are always scanned: fastavro reads a number's bytes one by one to the end, however many there are.
_UNCHECKED_BYTES_MAX: Final = 64 * 1024

Skip = Callable[[bytes, int, list[int]], int]  # (data, position, [values left, levels left]) → position after


class _Malformed(Exception):
    """The bytes do not follow the schema or exceed a limit; the message says how."""


class Scan:
    """The check for one writer's schema. Calling it raises DecodeError or returns nothing."""

    __slots__ = ("_name", "_skip", "tagged", "unchecked_bytes")

    def __init__(self, schema: Schema) -> None:
        self._name = schema.full_name
        self.tagged = any(isinstance(node, Union) and node.records > 1 for node in _types_of(schema.root))
        self.unchecked_bytes = _unchecked_bytes(schema.root)
        self._skip = _Compiler().skip(schema.root)

    def __call__(self, data: bytes, position: int, where: str | None = None) -> None:
        if len(data) > PAYLOAD_BYTES_MAX:
            raise DecodeError(f"{len(data)} bytes are more than the {PAYLOAD_BYTES_MAX} that choreo reads", where=where)
        try:
            self._skip(data, position, [VALUES_MAX, DEPTH_MAX])
        except IndexError:
            raise DecodeError(f"the bytes end inside the {self._name}", where=where) from None
        except _Malformed as error:
            raise DecodeError(f"the bytes are not a {self._name}: {error}", where=where) from None


@lru_cache(maxsize=4_096)
def scanner(schema: Schema) -> Scan:
    """The scan of a schema, made once."""
    return Scan(schema)


def _types_of(root: Type) -> list[Type]:
    """Every type reachable from a record, unions and arrays included."""
    found: list[Type] = []
    pending: list[Type] = [child for record in records_of(root) for child in (record, *children(record))]
    while pending:
        node = pending.pop()
        found.append(node)
        if not isinstance(node, Record):
            pending.extend(children(node))
    return found


class _Costs:
    """Bounds of every type of one schema. Each record is looked at once: records share parts and contain themselves."""

    def __init__(self) -> None:
        self._widths: dict[int, int] = {}
        self._values: dict[int, int] = {}

    def width(self, node: Type) -> int:
        """Fewest bytes a value of the type can have, or less."""
        match node:
            case Primitive(name="null"):
                return 0
            case Primitive(name="float"):
                return 4
            case Primitive(name="double"):
                return 8
            case Fixed(size=size):
                return size
            case Record():
                if id(node) not in self._widths:
                    self._widths[id(node)] = 0  # inside itself: reached through a union or collection, which has a byte
                    self._widths[id(node)] = sum(self.width(field.type) for field in node.fields)
                return self._widths[id(node)]
            case Union(branches=branches):
                return 1 + min(self.width(branch) for branch in branches)
            case _:
                return 1

    def values(self, node: Type) -> int:
        """Cost of one value of the type at most, in plain values, not counting the items of collections inside it."""
        match node:
            case Primitive(logical=logical) | Fixed(logical=logical) if logical is not None:
                return _LOGICAL_COST + logical.precision // _DIGITS_PER_COST
            case Record():
                if id(node) not in self._values:
                    self._values[id(node)] = 1  # inside itself: counted when the bytes are
                    self._values[id(node)] = 2 + sum(self.values(field.type) for field in node.fields)
                return self._values[id(node)]
            case Union(branches=branches):
                return 1 + max(self.values(branch) for branch in branches)
            case _:
                return 1

    def item(self, node: Array | Map) -> int:
        """Cost of one item, in a map with its key."""
        return self.values(node.items) if isinstance(node, Array) else 1 + self.values(node.values)


def _unchecked_bytes(root: Record) -> int:
    """Longest message that cannot exceed a limit, whatever its bytes are."""
    safe = _UNCHECKED_BYTES_MAX
    costs = _Costs()
    records = records_of(root)
    if any(_contains_itself(record) for record in records):
        safe = min(safe, DEPTH_MAX)  # each level takes a byte at least
    for node in _types_of(root):
        if isinstance(node, Array | Map):
            items = node.items if isinstance(node, Array) else node.values
            width = costs.width(items) + isinstance(node, Map)
            if width == 0:
                return 0  # items of no bytes: a count alone makes values
            safe = min(safe, VALUES_MAX * width // costs.item(node))
        elif isinstance(node, Primitive) and node.name == "bytes" and node.logical is not None:
            safe = min(safe, _decimal_bytes_max(node.logical.precision))
    return safe


def _contains_itself(record: Record) -> bool:
    return any(record is inner for child in children(record) for inner in records_of(child))


def _decimal_bytes_max(precision: int) -> int:
    needed: int = (10**precision).bit_length() // 8 + 1
    return max(needed, 64)  # some writers pad to a fixed width


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A long (zig-zag), and the position after it."""
    byte = data[position]
    position += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), position
    number = byte & 0x7F
    shift = 7
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), position
        shift += 7
        if shift >= 7 * _VARINT_BYTES_MAX:
            raise _Malformed("a number is longer than 64 bits")


def _skip_varint(data: bytes, position: int, left: list[int]) -> int:
    end = position
    while data[end] >= 0x80:
        end += 1
        if end - position >= _VARINT_BYTES_MAX:
            raise _Malformed("a number is longer than 64 bits")
    return end + 1


def _skip_fixed(size: int) -> Skip:
    def skip(data: bytes, position: int, left: list[int]) -> int:
        position += size
        if position > len(data):
            raise IndexError
        return position

    return skip


def _skip_bytes(data: bytes, position: int, left: list[int]) -> int:
    size, position = _varint(data, position)
    if size < 0:
        raise _Malformed(f"a length is negative ({size})")
    position += size
    if position > len(data):
        raise IndexError
    return position


def _skip_decimal(longest: int) -> Skip:
    def skip(data: bytes, position: int, left: list[int]) -> int:
        end = _skip_bytes(data, position, left)
        if end - position > longest + 2:
            raise _Malformed(f"a decimal has about {end - position} bytes, its precision allows {longest}")
        return end

    return skip


def _skip_enum(count: int) -> Skip:
    def skip(data: bytes, position: int, left: list[int]) -> int:
        index, position = _varint(data, position)
        if not 0 <= index < count:
            raise _Malformed(f"an enum has {count} symbols, the bytes name number {index}")
        return position

    return skip


class _Compiler:
    """Types → functions that step over one value."""

    def __init__(self) -> None:
        self._records: dict[int, Skip] = {}
        self._costs = _Costs()

    def skip(self, node: Type) -> Skip:
        match node:
            case Primitive(name="null"):
                return lambda data, position, left: position
            case Primitive(name="boolean"):
                return _skip_fixed(1)
            case Primitive(name="float"):
                return _skip_fixed(4)
            case Primitive(name="double"):
                return _skip_fixed(8)
            case Primitive(name="int" | "long"):
                return _skip_varint
            case Enum(symbols=symbols):
                return _skip_enum(len(symbols))
            case Primitive(name="bytes", logical=logical) if logical is not None:
                return _skip_decimal(_decimal_bytes_max(logical.precision))
            case Primitive():
                return _skip_bytes
            case Fixed(size=size):
                return _skip_fixed(size)
            case Array(items=items):
                return _blocks(self.skip(items), self._costs.item(node), _fixed_width(items), keyed=False)
            case Map(values=values):
                return _blocks(self.skip(values), self._costs.item(node), None, keyed=True)
            case Union(branches=branches):
                return _union([self.skip(branch) for branch in branches])
            case Record():
                return self._record(node)

    def _record(self, node: Record) -> Skip:
        known = self._records.get(id(node))
        if known is not None:
            return known
        fields: list[Skip] = []
        cost = self._costs.values(node)

        def plain(data: bytes, position: int, left: list[int]) -> int:
            for skip in fields:
                position = skip(data, position, left)
            return position

        def counted(data: bytes, position: int, left: list[int]) -> int:
            left[0] -= cost
            left[1] -= 1
            if left[0] < 0:
                raise _Malformed(_TOO_MANY)
            if left[1] < 0:
                raise _Malformed(f"{node.name} is nested more than {DEPTH_MAX} levels deep")
            position = plain(data, position, left)
            left[1] += 1
            return position

        chosen = counted if _contains_itself(node) else plain
        self._records[id(node)] = chosen
        fields.extend(self.skip(field.type) for field in node.fields)
        return chosen


_TOO_MANY: Final = f"its arrays and maps hold more than choreo reads (as much as {VALUES_MAX} plain values)"


def _union(branches: list[Skip]) -> Skip:
    count = len(branches)

    def skip(data: bytes, position: int, left: list[int]) -> int:
        index, position = _varint(data, position)
        if not 0 <= index < count:
            raise _Malformed(f"a union has {count} branches, the bytes name number {index}")
        return branches[index](data, position, left)

    return skip


def _blocks(skip_item: Skip, cost: int, item_bytes: int | None, *, keyed: bool) -> Skip:
    """Steps over an array's or a map's blocks.

    Args:
        skip_item: steps over one item, in a map over its value.
        cost: of one item.
        item_bytes: of every item, if they all have the same: then a block is stepped over at once.
        keyed: a map.
    """

    def skip(data: bytes, position: int, left: list[int]) -> int:
        while True:
            count, position = _varint(data, position)
            if count == 0:
                return position
            if count < 0:
                count = -count
                size, position = _varint(data, position)
                if not 0 <= size <= len(data) - position:
                    raise _Malformed(f"a block claims {size} bytes, {len(data) - position} are left")
            left[0] -= count * cost
            if left[0] < 0:
                raise _Malformed(f"{_TOO_MANY}: a block of {count}")
            if item_bytes is not None:
                position += count * item_bytes
                if position > len(data):
                    raise IndexError
                continue
            for _ in range(count):
                if keyed:
                    position = _skip_bytes(data, position, left)
                position = skip_item(data, position, left)

    return skip


def _fixed_width(node: Type) -> int | None:
    """Bytes of every value of the type, if they all have the same."""
    match node:
        case Primitive(name="null"):
            return 0
        case Primitive(name="boolean"):
            return 1
        case Primitive(name="float"):
            return 4
        case Primitive(name="double"):
            return 8
        case Fixed(size=size):
            return size
        case _:
            return None
