"""Avro bytes of a schema that are almost right: a writer that lies now and then.

Random damage to a valid message seldom gets past its first fields. This writer walks the schema and writes a valid
value, except that at any place it may write what the format allows and nobody expects: blocks with negative counts and
wrong sizes, counts and lengths without end, indexes outside unions and enums, numbers of eleven bytes, recursion, text
that is not UTF-8, decimals beyond their precision, NaN.

Source: Apache Avro 1.12 specification, section Data Serialization and Deserialization.
"""

from __future__ import annotations

import struct
from random import Random
from typing import Final

from choreo.codec.limits import DEPTH_MAX, VALUES_MAX
from choreo.codec.types import Array, Enum, Fixed, Map, Primitive, Record, Type, Union

BYTES_MAX: Final = 60_000
# Parts of one value: a branching recursion would otherwise go on until the bytes run out.
_PARTS_MAX: Final = 4_000
_EXTREMES: Final = (0, 1, -1, 2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63), 2**40, VALUES_MAX, VALUES_MAX + 1)
_COUNTS: Final = (1 << 40, -(1 << 40), -(2**63), 2**63 - 1, VALUES_MAX, VALUES_MAX + 1, 1_000_000, 1 << 27)
_DOUBLES: Final = (0.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e308, 5e-324, 3.5e38, 0.25)


def varint(number: int) -> bytes:
    """A long as Avro writes it."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class Liar:
    """Writes one value.

    Args:
        chance: where everything comes from.
        lies: how often, from 0 to 1, a place is written wrong.
    """

    def __init__(self, chance: Random, lies: float) -> None:
        self._chance = chance
        self._lies = lies
        # A level of recursion is a record, a union and perhaps an array here.
        self._depth_max = 3 * DEPTH_MAX + 6 if lies and chance.random() < 0.1 else 4
        self._left = [_PARTS_MAX]  # shared with the writers of blocks
        self._out = bytearray()

    def value(self, root: Type) -> bytes:
        self._write(root, 0)
        return bytes(self._out[:BYTES_MAX])

    def _lie(self) -> bool:
        return self._chance.random() < self._lies

    def _number(self, number: int) -> None:
        if self._lie():
            self._out += self._chance.choice((b"\xff" * 11, b"\x80" * 40, varint(number)[:-1] + b"\x80\x00", b""))
        else:
            self._out += varint(number)

    def _write(self, node: Type, depth: int) -> None:
        self._left[0] -= 1
        if len(self._out) > BYTES_MAX or self._left[0] < -_PARTS_MAX:
            return
        match node:
            case Primitive() | Fixed():
                self._scalar(node)
            case Enum(symbols=symbols):
                self._number(self._chance.choice(_EXTREMES) if self._lie() else self._chance.randrange(len(symbols)))
            case Array(items=items):
                self._blocks(items, depth, keyed=False)
            case Map(values=values):
                self._blocks(values, depth, keyed=True)
            case Union(branches=branches):
                self._union(branches, depth)
            case Record(fields=fields):
                for one in fields:
                    self._write(one.type, depth + 1)

    def _union(self, branches: tuple[Type, ...], depth: int) -> None:
        if self._lie():
            self._number(self._chance.choice((*_EXTREMES, len(branches), -len(branches))))
            return
        deep = self._depth_max > DEPTH_MAX  # into the depth rather than out of it
        fitting = [one for one in branches if isinstance(one, Record) == deep] if depth > 2 else []
        if depth > self._depth_max or self._left[0] < 0:
            fitting = [one for one in branches if not isinstance(one, Record)]
        branch = self._chance.choice(fitting or branches)
        self._number(branches.index(branch))
        self._write(branch, depth + 1)

    def _blocks(self, items: Type, depth: int, *, keyed: bool) -> None:
        chance = self._chance
        for _ in range(chance.choice((0, 1, 1, 2))):
            count = chance.randrange(1, 4) if depth < min(self._depth_max, 5) else depth < self._depth_max
            if self._left[0] < 0:
                count = 0
            elif self._lie():
                count = chance.choice((*_COUNTS, 3_000))
            if count == 0:
                break
            inner = Liar(chance, self._lies)
            inner._depth_max, inner._left = self._depth_max, self._left
            for _ in range(min(abs(count), 4 if abs(count) != 3_000 else 3_000)):
                if keyed:
                    inner._text(chance.choice((b"k", b"k1", chance.randbytes(2).hex().encode())))
                inner._write(items, depth + 1)
            if chance.random() < 0.3 and count > 0:
                size = chance.choice((*_EXTREMES, len(inner._out) + 1)) if self._lie() else len(inner._out)
                self._out += varint(-count) + varint(size)
            else:
                self._number(count)
            self._out += inner._out
        if not self._lie():
            self._out.append(0)

    def _text(self, content: bytes) -> None:
        if self._lie():
            self._number(self._chance.choice((*_EXTREMES, len(content) + 1, 1 << 30)))
        else:
            self._number(len(content))
        self._out += content

    def _scalar(self, node: Primitive | Fixed) -> None:
        chance = self._chance
        if isinstance(node, Fixed):
            self._out += chance.randbytes(max(0, node.size - self._lie()))
            return
        match node.name:
            case "null":
                return
            case "boolean":
                self._out.append(chance.choice((2, 255)) if self._lie() else chance.randrange(2))
            case "int" | "long":
                usual = chance.randrange(0, 2_000_000_000_000 if node.logical and "m" in node.logical.name else 70_000)
                self._number(chance.choice(_EXTREMES) if self._lie() or chance.random() < 0.05 else usual)
            case "float":
                self._out += struct.pack("<f", chance.choice((0.25, float("nan"), float("inf"), -0.0, 3.4e38)))
            case "double":
                self._out += struct.pack("<d", chance.choice(_DOUBLES))
            case "bytes":
                size = chance.choice((0, 1, 4, 60, 700)) if self._lie() else chance.randrange(1, 6)
                self._text(chance.randbytes(size))
            case _:
                self._text(self._string(node))

    def _string(self, node: Primitive) -> bytes:
        chance = self._chance
        if self._lie():
            return chance.choice((b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b"\x00", b"a" * 5_000, chance.randbytes(36)))
        if node.logical is not None:
            return b"c0ffee00-0000-4000-8000-%012x" % chance.randrange(2**32)
        return chance.choice((b"", b"JFK", "é😀".encode(), b"UA1545-EWR-20130101"))
