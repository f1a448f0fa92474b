"""Many values of one schema that differ in few places: the rest of their bytes is made once.

Theory of operation. Avro writes a record as its fields one after another, so a field's bytes do not depend on others.
A ``Template`` has an ordinary encoder write one value with a mark in each place that varies, and cuts the bytes at the
marks. ``fill`` joins the pieces with new bytes for those places. Nothing here knows the schema or how Avro writes
arrays, unions and names: the encoder does; and fastavro writes the numbers that are filled in.

A mark that cannot be told from the rest, by chance or because somebody knows it, makes no template: ``Template.made``
then says None, as it does where the pieces with the original's own bytes do not give the original again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

from fastavro import schemaless_writer

from choreo.codec.wire import Encoder

Path = tuple[str | int, ...]
"""Where in a value: names of fields, positions in arrays."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_INT_MARK: Final = 0x5EED_0000
_LONG_MARK: Final = 0x5EED_0000_0000  # as milliseconds, the year 5277


def whole_bytes(value: int) -> bytes:
    """Bytes of an int, a long, or a moment in milliseconds."""
    out = BytesIO()
    schemaless_writer(out, "long", value)
    return out.getvalue()


repeated_bytes: Final = lru_cache(maxsize=4_096)(whole_bytes)
"""``whole_bytes`` of what repeats: counts, lengths, moments."""


def text_bytes(value: bytes) -> bytes:
    """Bytes of a text in UTF-8, or of bytes: their number, and they themselves."""
    return repeated_bytes(len(value)) + value


class Kind(Enum):
    """What varies in a place."""

    TEXT = "text"
    INT = "int"
    LONG = "long"
    MOMENT = "moment"
    DATA = "data"


def _mark(kind: Kind, number: int) -> tuple[object, bytes]:
    """A value that tells the place with this number, and its bytes."""
    match kind:
        case Kind.TEXT:
            text = f"\x02place {number}\x03"
            return text, text_bytes(text.encode())
        case Kind.DATA:
            data = b"\x02place %d\x03" % number
            return data, text_bytes(data)
        case Kind.INT:
            return _INT_MARK + number, whole_bytes(_INT_MARK + number)
        case Kind.LONG:
            return _LONG_MARK + number, whole_bytes(_LONG_MARK + number)
        case Kind.MOMENT:
            ms = _LONG_MARK + number
            return _EPOCH + ms * _MILLISECOND, whole_bytes(ms)


def _own_bytes(value: Any, kind: Kind) -> bytes:
    match kind:
        case Kind.TEXT:
            return text_bytes(value.encode())
        case Kind.DATA:
            return text_bytes(value)
        case Kind.MOMENT:
            return whole_bytes((value - _EPOCH) // _MILLISECOND)
        case _:
            return whole_bytes(value)


class Template:
    """Bytes of one value with places left open."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces  # constant, place, constant, …, constant

    @classmethod
    def made(cls, encoder: Encoder, value: Mapping[str, Any], places: Sequence[tuple[Path, Kind]]) -> Template | None:
        """A template of values that differ from ``value`` in some places only.

        Args:
            encoder: how such values are written.
            value: one of them.
            places: what varies, in the order of the schema.
        """
        marked = _copy(value)
        marks: list[bytes] = []
        for number, (path, kind) in enumerate(places):
            shown, data = _mark(kind, number)
            _at(marked, path[:-1])[path[-1]] = shown
            marks.append(data)
        pieces = _cut(encoder.encode(marked), marks)
        if pieces is None:
            return None
        made = cls(pieces)
        own = [_own_bytes(_at(value, path), kind) for path, kind in places]
        return made if made.fill(own) == encoder.encode(value) else None

    def fill(self, places: Sequence[bytes]) -> bytes:
        """The bytes of a value.

        Args:
            places: bytes of each place, in the order given to ``made``; from the functions of this module.
        """
        pieces = self._pieces.copy()
        pieces[1::2] = places
        return b"".join(pieces)


def _cut(data: bytes, marks: list[bytes]) -> list[bytes] | None:
    pieces: list[bytes] = []
    position = 0
    for mark in marks:
        found = data.find(mark, position)
        if found < 0 or data.count(mark) != 1:
            return None
        pieces += (data[position:found], b"")
        position = found + len(mark)
    return [*pieces, data[position:]]


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copy(one) for name, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value
