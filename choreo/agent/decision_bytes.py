"""Avro bytes of a decision, written by hand.

Every step writes one, and its schema has 29 fields, seven of them lists: the general encoder takes longer than the rest
of the step together (measured: 32 µs of 53, this one 19). It is right as long as the fields are these, in this order:
``FIELDS`` is compared with the schema when a writer is made, and tests compare the bytes with the general encoder's.

Source: Avro 1.12 specification, binary encoding (zig-zag variable-length longs, length-prefixed strings, arrays as
counted blocks, unions by branch number).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

FIELDS: Final = [
    "id",
    "topology",
    "agent",
    "version",
    "entity",
    "sequence",
    "kind",
    "outcome",
    "at",
    "event_time",
    "event_id",
    "event_type",
    "topic",
    "partition",
    "offset",
    "timer",
    "correlation_id",
    "causation_id",
    "hop",
    "traceparent",
    "rows",
    "emits",
    "timers_set",
    "timers_cancelled",
    "calls",
    "references",
    "sources",
    "code",
    "message",
]
KINDS: Final = ("event", "timer")
OUTCOMES: Final = ("done", "dead_letter", "parked", "duplicate")

NULL: Final = b"\x00"
EMPTY: Final = b"\x00"  # of an array
_SOME: Final = b"\x02"  # second branch of ["null", …]
_LENGTHS_KEPT: Final = 1_024


def long_bytes(number: int) -> bytes:
    """An int or long."""
    return _LENGTHS[number] if 0 <= number < _LENGTHS_KEPT else _varint(number)


def _varint(number: int) -> bytes:
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_LENGTHS: Final = tuple(map(_varint, range(_LENGTHS_KEPT)))
time_bytes: Final = lru_cache(maxsize=1_024)(_varint)
"""A moment in milliseconds: neighbouring decisions share theirs."""


def bytes_bytes(data: bytes) -> bytes:
    """A value of type bytes, or of type string already in UTF-8."""
    length = len(data)
    return (_LENGTHS[length] if length < _LENGTHS_KEPT else _varint(length)) + data


def text_bytes(text: str) -> bytes:
    """A string; what UTF-8 cannot write becomes question marks."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = text.encode(errors="replace")
    length = len(data)
    return (_LENGTHS[length] if length < _LENGTHS_KEPT else _varint(length)) + data


def optional_text(text: str | None) -> bytes:
    """A ["null", "string"]."""
    return NULL if text is None else _SOME + text_bytes(text)


def optional_long(number: int | None) -> bytes:
    """A ["null", "int"] or ["null", "long"]."""
    return NULL if number is None else _SOME + long_bytes(number)


def optional_bytes(data: bytes | None) -> bytes:
    """A ["null", "bytes"]."""
    return NULL if data is None else _SOME + bytes_bytes(data)


def array_bytes(items: Iterable[bytes]) -> bytes:
    """An array of encoded items."""
    parts = list(items)
    return long_bytes(len(parts)) + b"".join(parts) + EMPTY if parts else EMPTY


class DecisionLists(NamedTuple):
    """The lists of a decision, encoded."""

    rows: bytes = EMPTY
    emits: bytes = EMPTY
    timers_set: bytes = EMPTY
    timers_cancelled: bytes = EMPTY
    calls: bytes = EMPTY
    references: bytes = EMPTY
    sources: bytes = EMPTY


NO_LISTS: Final = DecisionLists()


def enum_bytes(symbols: tuple[str, ...]) -> dict[str, bytes]:
    """Encoded symbols of an enum."""
    return {symbol: long_bytes(number) for number, symbol in enumerate(symbols)}
