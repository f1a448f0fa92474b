"""Values → Avro binary, by functions built once per schema.

Theory of operation. Reading is fastavro's, and so was writing at first. But a step writes three to four records, and
fastavro's writer spends most of its time on what is the same for every value: it collects the field names of each
record in sets, looks types up by name and validates each branch of a union before it writes one; and still it lets
through what does not fit (integers beyond 32 bits, datetimes without a zone in the *machine's* zone, text for numbers),
so that a check had to come before it. A function per type that checks and writes in one pass takes less than half the
time: 9 µs instead of 21 for a ``choreo.Decision``, 2.5 instead of 4.3 for an event of eight fields. fastavro remains
the reference: tests compare the bytes.

A writer takes exactly the plain value (``int``, not its subclass); anything else raises ``MISFIT``, and ``fit`` then
either says what is wrong or makes the value plain. So the common case pays for no explanation.

Source: Apache Avro specification 1.12, "Binary Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from choreo.codec.defaults import EPOCH, EPOCH_LOCAL, to_raw
from choreo.codec.evolve import python_type
from choreo.codec.fit import decimal_fits
from choreo.codec.schema import Schema
from choreo.codec.types import (
    INT_MAX,
    INT_MIN,
    LONG_MAX,
    LONG_MIN,
    Array,
    Enum,
    Fixed,
    Logical,
    Map,
    Primitive,
    Record,
    Type,
    Union,
    type_name,
)

Write = Callable[[bytearray, Any], None]

MISFIT: Final = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, struct.error)
_DOUBLE: Final = struct.Struct("<d").pack
_FLOAT: Final = struct.Struct("<f").pack
_DAY_ZERO: Final = EPOCH.toordinal()


def writer(schema: Schema) -> Write:
    """Appends a value of the record to a buffer; raises one of ``MISFIT`` for what is not plainly such a value."""
    return _Compiler().write(schema.root)


def _varint(out: bytearray, number: int) -> None:
    """Appends a long: zig-zag, seven bits a byte, the lowest first."""
    n = (number << 1) ^ (number >> 63)
    if n < 0x80:
        out.append(n)
    elif n < 0x4000:
        out.append(n & 0x7F | 0x80)
        out.append(n >> 7)
    elif 1 << 35 <= n < 1 << 42:  # milliseconds since 1970 from 1970-07 to 2039
        out += bytes(
            (
                n & 0x7F | 0x80,
                n >> 7 & 0x7F | 0x80,
                n >> 14 & 0x7F | 0x80,
                n >> 21 & 0x7F | 0x80,
                n >> 28 & 0x7F | 0x80,
                n >> 35,
            )
        )
    else:
        while n > 0x7F:
            out.append(n & 0x7F | 0x80)
            n >>= 7
        out.append(n)


def _null(out: bytearray, value: Any) -> None:
    if value is not None:
        raise TypeError


def _boolean(out: bytearray, value: Any) -> None:
    if value is True:
        out.append(1)
    elif value is False:
        out.append(0)
    else:
        raise TypeError


def _int(out: bytearray, value: Any) -> None:
    if type(value) is not int or not INT_MIN <= value <= INT_MAX:
        raise TypeError
    if -64 <= value < 64:
        out.append((value << 1) ^ (value >> 63))
    else:
        _varint(out, value)


def _long(out: bytearray, value: Any) -> None:
    if type(value) is not int or not LONG_MIN <= value <= LONG_MAX:
        raise TypeError
    if -64 <= value < 64:
        out.append((value << 1) ^ (value >> 63))
    else:
        _varint(out, value)


def _float(out: bytearray, value: Any) -> None:
    if type(value) is not float:
        raise TypeError
    out += _FLOAT(value)  # struct refuses what is beyond 32 bits


def _double(out: bytearray, value: Any) -> None:
    if type(value) is not float:
        raise TypeError
    out += _DOUBLE(value)


def _bytes(out: bytearray, value: Any) -> None:
    if type(value) is not bytes:
        raise TypeError
    size = len(value)
    if size < 64:
        out.append(size << 1)
    else:
        _varint(out, size)
    out += value


def _string(out: bytearray, value: Any) -> None:
    if type(value) is not str:
        raise TypeError
    text = value.encode()
    size = len(text)
    if size < 64:
        out.append(size << 1)
    else:
        _varint(out, size)
    out += text


_PRIMITIVES: Final[dict[str, Write]] = {
    "null": _null,
    "boolean": _boolean,
    "int": _int,
    "long": _long,
    "float": _float,
    "double": _double,
    "bytes": _bytes,
    "string": _string,
}


def _timestamp_millis(out: bytearray, value: Any) -> None:
    if type(value) is not datetime:
        raise TypeError
    since = value - EPOCH  # TypeError without a zone
    _varint(out, (since.days * 86_400 + since.seconds) * 1_000 + since.microseconds // 1_000)


def _timestamp_micros(out: bytearray, value: Any) -> None:
    if type(value) is not datetime:
        raise TypeError
    since = value - EPOCH
    _varint(out, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def _local_timestamp_millis(out: bytearray, value: Any) -> None:
    if type(value) is not datetime:
        raise TypeError
    since = value - EPOCH_LOCAL  # TypeError with a zone
    _varint(out, (since.days * 86_400 + since.seconds) * 1_000 + since.microseconds // 1_000)


def _local_timestamp_micros(out: bytearray, value: Any) -> None:
    if type(value) is not datetime:
        raise TypeError
    since = value - EPOCH_LOCAL
    _varint(out, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def _date(out: bytearray, value: Any) -> None:
    if type(value) is not date:
        raise TypeError
    _varint(out, value.toordinal() - _DAY_ZERO)


def _uuid(out: bytearray, value: Any) -> None:
    if type(value) is not UUID:
        raise TypeError
    out.append(72)  # 36 bytes
    out += str(value).encode()


_LOGICAL: Final[dict[str, Write]] = {
    "timestamp-millis": _timestamp_millis,
    "timestamp-micros": _timestamp_micros,
    "local-timestamp-millis": _local_timestamp_millis,
    "local-timestamp-micros": _local_timestamp_micros,
    "date": _date,
    "uuid": _uuid,
}


def _time(logical: Logical) -> Write:
    def write(out: bytearray, value: Any) -> None:
        if type(value) is not time or value.tzinfo is not None:
            raise TypeError
        raw = to_raw(logical, value)
        assert isinstance(raw, int)
        _varint(out, raw)

    return write


def _decimal(logical: Logical, size: int | None) -> Write:
    def write(out: bytearray, value: Any) -> None:
        if type(value) is not Decimal or not decimal_fits(logical, value):
            raise TypeError
        raw = to_raw(logical, value, size)
        assert isinstance(raw, bytes)
        if size is None:
            _varint(out, len(raw))
        out += raw

    return write


def _fixed(size: int) -> Write:
    def write(out: bytearray, value: Any) -> None:
        if type(value) is not bytes or len(value) != size:
            raise TypeError
        out += value

    return write


def _enum(symbols: tuple[str, ...]) -> Write:
    numbers: dict[object, bytes] = {}
    for number, symbol in enumerate(symbols):
        encoded = bytearray()
        _varint(encoded, number)
        numbers[symbol] = bytes(encoded)

    def write(out: bytearray, value: Any) -> None:
        out += numbers[value]

    return write


def _array(item: Write) -> Write:
    def write(out: bytearray, value: Any) -> None:
        if type(value) is not list:
            raise TypeError
        if value:
            _varint(out, len(value))
            for one in value:
                item(out, one)
        out.append(0)

    return write


def _doubles(out: bytearray, value: Any) -> None:
    """An array of doubles, as windows have many: packed at once."""
    if type(value) is not list:
        raise TypeError
    if value:
        _varint(out, len(value))
        out += struct.pack(f"<{len(value)}d", *value)
    out.append(0)


def _map(item: Write) -> Write:
    def write(out: bytearray, value: Any) -> None:
        if type(value) is not dict:
            raise TypeError
        if value:
            _varint(out, len(value))
            for key, one in value.items():
                _string(out, key)
                item(out, one)
        out.append(0)

    return write


def _optional(null: int, other: int, write_other: Write) -> Write:
    """A union of null and one other type, by far the most common."""

    def write(out: bytearray, value: Any) -> None:
        if value is None:
            out.append(null)
        else:
            out.append(other)
            write_other(out, value)

    return write


class _Compiler:
    def __init__(self) -> None:
        self._records: dict[int, Write] = {}

    def write(self, node: Type) -> Write:
        match node:
            case Primitive(logical=logical) if logical is not None:
                return self._logical(logical, None)
            case Primitive(name=name):
                return _PRIMITIVES[name]
            case Fixed(logical=logical, size=size) if logical is not None:
                return self._logical(logical, size)
            case Fixed(size=size):
                return _fixed(size)
            case Enum(symbols=symbols):
                return _enum(symbols)
            case Array(items=Primitive(name="double", logical=None)):
                return _doubles
            case Array(items=items):
                return _array(self.write(items))
            case Map(values=values):
                return _map(self.write(values))
            case Union():
                return self._union(node)
            case Record():
                return self._record(node)

    def _logical(self, logical: Logical, size: int | None) -> Write:
        if logical.name == "decimal":
            return _decimal(logical, size)
        return _LOGICAL.get(logical.name) or _time(logical)

    def _union(self, node: Union) -> Write:
        names = [type_name(branch) for branch in node.branches]
        writes = [self.write(branch) for branch in node.branches]
        if len(names) == 2 and "null" in names:
            null = names.index("null")
            return _optional(null << 1, (1 - null) << 1, writes[1 - null])
        by_name: dict[object, tuple[int, Write]] = {}
        by_class: dict[type, tuple[int, Write]] = {}
        twice: set[type] = set()
        for number, (branch, write) in enumerate(zip(node.branches, writes, strict=True)):
            by_name[names[number]] = number, write
            if isinstance(branch, Primitive):
                kind = python_type(branch)
                twice |= {kind} & by_class.keys()
                by_class[kind] = number, write
        for kind in twice:  # an int and a long: which one is meant is decided with care
            del by_class[kind]

        def union(out: bytearray, value: Any) -> None:
            if type(value) is tuple:
                name, value = value
                number, write = by_name[name]
            else:
                number, write = by_class[type(value)]
            _varint(out, number)
            write(out, value)

        return union

    def _record(self, node: Record) -> Write:
        known = self._records.get(id(node))
        if known is not None:
            return known
        writes: list[tuple[str, Write]] = []
        count = len(node.fields)

        def record(out: bytearray, value: Any) -> None:
            if type(value) is not dict or len(value) != count:
                raise TypeError
            for name, write in writes:
                write(out, value[name])

        self._records[id(node)] = record  # before its fields: they may contain it
        writes.extend((field.name, self.write(field.type)) for field in node.fields)
        return record
