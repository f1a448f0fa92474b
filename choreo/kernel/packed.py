"""Stored form of a row: the id of the event that last shaped it, then the row's Avro bytes. One object, no overhead."""

from __future__ import annotations

from typing import Final

ID_BYTES_MAX: Final = 255
"""Ids made by choreo have 32 bytes; longer ones come from outside and are cut for the row's provenance only."""
LENGTHS: Final = tuple(bytes((length,)) for length in range(ID_BYTES_MAX + 1))
"""The first byte of a packed row, by the length of its id."""


def pack(event_id: str, value: bytes) -> bytes:
    encoded = event_id.encode()[:ID_BYTES_MAX]
    return LENGTHS[len(encoded)] + encoded + value


def unpack_row(packed: bytes) -> bytes:
    """The row alone: steps read it, nearly none asks who wrote it."""
    return packed[packed[0] + 1 :]


def unpack(packed: bytes) -> tuple[str, bytes]:
    """(event id, row bytes)"""
    end = packed[0] + 1
    return packed[1:end].decode(errors="replace"), packed[end:]
