"""Damage to bytes and texts, from a seeded source of chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

BYTES_MAX: Final = 16_384
"""Longest input that changes make, so that repeating a span again and again stays affordable."""

# Numbers at which widths end; as zig-zag varints they begin lengths, counts and indexes in Avro.
_VARINTS: Final = (b"\x00", b"\x01", b"\x02", b"\x03", b"\x7f", b"\x80\x01", b"\xff\xff\x7f", b"\xff" * 9 + b"\x01")
_VARINTS_MORE: Final = (b"\xff" * 4 + b"\x0f", b"\xfe" * 9 + b"\x01", b"\x80" * 12, b"\xff" * 11, b"\x80" * 5 + b"\x20")
BINARY: Final = (
    *_VARINTS,
    *_VARINTS_MORE,
    b"\x00" * 8,
    b"\x00\x00\xf8\x7f",
    b"\x00" * 6 + b"\xf0\xff",
    b"\xed\xa0\x80",
)

# What upsets readers of text: ends of ranges, other scripts' digits, half characters, endless nesting, control bytes.
_TEXTS: Final = (
    *("", "0", "-0", "-1", "--5", "1e999", "-1e-999", "007", "+7", "9" * 400, "9" * 5_000, "1.0", "0x10", "1_000"),
    *("9223372036854775808", "-9223372036854775809", "2147483648", "²", "٣", "٣٤", "NaN", "Infinity", "-Infinity"),
    *("null", "~", "true", "True", "[]", "{}", '""', "[" * 40, "{" * 40, '{"a":' * 40, "[" * 3_000, "]" * 3, "\\"),
    *("\\ud800", "\\u0000", "\x00", "\ufeff", "\u2028", "\x85", "\U0010ffff", "é", "😀", "\r\n", "\n", "\t", " "),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "2013-02-30", "24:00", "1970-01-01T00:00Z"),
    *("urn:uuid:c0ffee00-0000-4000-8000-000000000001", "{C0FFEE00000040008000000000000001}", "%s", "{0}", "../.."),
)
TEXT: Final = (*(text.encode() for text in _TEXTS), b"\xff", b"\xc3", b"\xed\xa0\x80")

Words = Sequence[bytes]


def changing(words: Words) -> Callable[[bytes, Random], bytes]:
    """Changes that know the format's words."""
    return lambda data, chance: changed(data, chance, words)


def changed(source: bytes, chance: Random, words: Words) -> bytes:
    """The bytes with one to four changes."""
    data = bytearray(source)
    for _ in range(chance.randrange(1, 5)):
        _change(data, chance, words)
        if len(data) > BYTES_MAX:
            del data[BYTES_MAX:]
    return bytes(data)


def _change(data: bytearray, chance: Random, words: Words) -> None:
    start = chance.randrange(len(data) + 1)
    end = min(len(data), start + 1 + int(chance.random() ** 3 * 60))
    match chance.randrange(11):
        case 0 if start < len(data):
            data[start] ^= 1 << chance.randrange(8)
        case 1 if start < len(data):
            data[start] = chance.randrange(256)
        case 2:
            data[start:start] = chance.randbytes(chance.randrange(1, 5))
        case 3:
            del data[start:end]
        case 4:
            del data[start:]
        case 5:
            data[start:start] = data[start:end] * chance.choice((1, 1, 2, 30))
        case 6:
            span = bytes(data[start:end])
            del data[start:end]
            place = chance.randrange(len(data) + 1)
            data[place:place] = span
        case 7 | 8:
            data[start:start] = chance.choice(words)
        case _:
            data[start:end] = chance.choice(words)


def word_of(text: str) -> list[bytes]:
    """The different words of a text, with the marks that separate them left out."""
    for mark in ",{}[]:\"'":
        text = text.replace(mark, " ")
    return sorted({word.encode() for word in text.split()})


class Cursor:
    """Reads an input as a series of choices: what a target needs that takes more than one value."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """The next byte; 0 at the end."""
        return self.take(1)[0] if self._at < len(self._data) else 0

    def take(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        found = self._data[self._at : self._at + count]
        self._at += len(found)
        return found

    def number(self, count: int = 8) -> int:
        """A signed number of so many bytes."""
        return int.from_bytes(self.take(count), "little", signed=True)

    def chunk(self) -> bytes:
        """Bytes with their length before them."""
        return self.take(self.byte())

    def rest(self) -> bytes:
        return self.take(len(self._data))

    @property
    def more(self) -> bool:
        return self._at < len(self._data)
