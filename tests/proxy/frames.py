"""Kafka's framing, as far as a proxy needs it: where a message ends, what a request asks for, which answer is whose.

Source: Kafka protocol guide, "Request Header" and "Response Header". Size, api key, api version, correlation id and
client id stand at the same places in every version.
"""

from __future__ import annotations

import asyncio
import struct
from enum import IntEnum
from typing import NamedTuple

FRAME_BYTES_MAX = 104_857_600
"""Kafka's own bound (``socket.request.max.bytes``); what claims to be larger is no frame."""

_SIZE = struct.Struct(">i")
_REQUEST = struct.Struct(">hhi")  # api key, api version, correlation id
_CORRELATION = struct.Struct(">i")
_LENGTH = struct.Struct(">h")


class Api(IntEnum):
    """Requests by their api key: those that a worker's life is made of."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    SYNC_GROUP = 14
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


class NotKafka(Exception):
    """What came is no Kafka frame, or an answer that nobody asked for."""


class Request(NamedTuple):
    """The header of a request."""

    api_key: int
    api_version: int
    correlation: int
    client: str


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame without its size, None at the end of the stream (a frame cut short counts as the end).

    Raises:
        NotKafka: the size is impossible.
    """
    try:
        (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
        if not _CORRELATION.size <= size <= FRAME_BYTES_MAX:
            raise NotKafka(f"a frame of {size} bytes")
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def framed(frame: bytes) -> bytes:
    """A frame with its size before it, as it travels."""
    return _SIZE.pack(len(frame)) + frame


def parse_request(frame: bytes) -> Request:
    """The header of a request.

    Raises:
        NotKafka: it is too short for one.
    """
    try:
        api_key, api_version, correlation = _REQUEST.unpack_from(frame)
        (length,) = _LENGTH.unpack_from(frame, _REQUEST.size)
    except struct.error as error:
        raise NotKafka(f"a request of {len(frame)} bytes") from error
    start = _REQUEST.size + _LENGTH.size
    return Request(api_key, api_version, correlation, frame[start : start + max(length, 0)].decode("utf-8", "replace"))


def correlation_of(response: bytes) -> int:
    """Which request a response answers."""
    correlation: int = _CORRELATION.unpack_from(response)[0]
    return correlation
