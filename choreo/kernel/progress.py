"""Which offsets of one input partition are finished, and how that travels in the offset's metadata.

Keys finish in any order, so one committed offset cannot say what is done. Kafka lets a commit carry a short string; the
engine puts the finished ranges above the committed offset there. Theory of operation:

* ``low`` is the lowest offset that was *delivered and is unfinished*; with none, it is the position: offsets nobody
  delivers (commit markers, aborted or compacted records) count as finished. Counting them as open would freeze the
  group at the first marker.
* Only the unfinished offsets are kept (they are bounded by what is buffered), never the finished ones (one slow key
  among many would let those grow without bound). Two unfinished neighbours in *delivery* order have nothing finished
  between them, whatever gap their numbers show.
* The ranges are written as run lengths (varints) or as a bitset, whichever is shorter.

Source: Kafka ``OffsetCommit`` metadata (``offset.metadata.max.bytes``, 4,096 by default: 4,095 pass, 4,096 fail).
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from choreo.errors import EngineError

METADATA_CHARS_MAX: Final = 3_900
"""Longest metadata string. The broker's default limit is 4,096; the rest is room for a longer owner name."""

OWNER_BYTES_MAX: Final = 255
_VERSION: Final = "1"
_RUNS: Final = 0
_BITSET: Final = 1
_BITSET_BYTES_MAX: Final = 4_096

Ranges = tuple[tuple[int, int], ...]
"""Finished offsets above ``low`` as half-open ranges ``[start, end)``, ascending, not touching."""


class Snapshot(NamedTuple):
    """Progress at one moment: all below ``low`` and all within ``done`` is finished."""

    low: int
    done: Ranges

    @property
    def top(self) -> int:
        """The offset after the last one that is finished."""
        return self.done[-1][1] if self.done else self.low


class Progress:
    """Finished offsets of one input partition, from where the last owner left it."""

    __slots__ = ("_index", "_restored", "_restored_starts", "_top", "_unfinished", "changes", "position")

    def __init__(self, low: int, done: Ranges = ()) -> None:
        self.position = low  # the next offset the consumer would deliver
        self._unfinished: OrderedDict[int, int] = OrderedDict()  # offset -> number of its delivery, ascending
        self._index = 0
        self.changes = 0  # changes so far: offsets finished and taken back
        self._top = low  # end of the highest finished offset
        self._restored = tuple(done)
        self._restored_starts = [start for start, _ in done]

    def deliver(self, offset: int) -> bool:
        """Notes a delivered offset. False: it was finished before the restart, skip it."""
        if offset < self.position:
            raise EngineError(f"offset {offset} was delivered again, expected {self.position} or higher")
        self.position = offset + 1
        self._index += 1
        if self._restored and self._was_finished(offset):
            self._top = offset + 1
            return False
        self._unfinished[offset] = self._index
        return True

    def reach_end(self, offset: int) -> None:
        """The consumer saw the end of the partition at ``offset``: what was not delivered before it is void."""
        if offset > self.position:
            self.position = offset

    def finish(self, offset: int) -> int:
        """Marks a delivered offset as finished; returns the number of its delivery, for ``reopen``."""
        number = self._unfinished.pop(offset)
        self.changes += 1
        if offset >= self._top:
            self._top = offset + 1
        return number

    def reopen(self, offsets: Iterable[tuple[int, int]]) -> None:
        """Takes back ``finish`` of (offset, delivery number) pairs; rare, so it may rebuild the order."""
        merged = dict(self._unfinished)
        before = len(merged)
        merged.update(offsets)
        self.changes += len(merged) - before
        self._unfinished = OrderedDict(sorted(merged.items()))

    def unfinished_offsets(self) -> Iterable[int]:
        """Delivered and unfinished offsets, ascending."""
        return self._unfinished.keys()

    def delivery_number(self, offset: int) -> int:
        return self._unfinished[offset]

    @property
    def low(self) -> int:
        return next(iter(self._unfinished), self.position)

    @property
    def unfinished(self) -> int:
        """Number of delivered and unfinished offsets."""
        return len(self._unfinished)

    def snapshot(self) -> Snapshot:
        low = self.low
        done: list[tuple[int, int]] = []
        previous, previous_index = -1, 0
        for offset, index in self._unfinished.items():
            if previous >= 0 and index != previous_index + 1:
                done.append((previous + 1, offset))
            previous, previous_index = offset, index
            if offset >= self._top:
                break
        else:
            if previous >= 0 and self._top > previous + 1:
                done.append((previous + 1, self._top))
        for start, end in self._restored:
            if end > self.position:
                done.append((max(start, self.position), end))
        if not done:
            return Snapshot(low, ())
        ranges = _joined(done)
        if ranges[0][0] <= low:
            # nothing is unfinished and the position lies inside a range of the last owner: low moves to its end
            low = ranges.pop(0)[1]
        return Snapshot(low, tuple(ranges))

    def _was_finished(self, offset: int) -> bool:
        if offset >= self._restored[-1][1]:
            self._restored, self._restored_starts = (), []
            return False
        at = bisect_right(self._restored_starts, offset) - 1
        return at >= 0 and offset < self._restored[at][1]


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    joined = [ranges[0]]
    for start, end in ranges[1:]:
        if start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def encode_metadata(snapshot: Snapshot, owner: str) -> str:
    """The metadata string of a commit. ``owner`` is the transactional id, so that an heir can end its transaction."""
    owner_bytes = owner.encode()
    if len(owner_bytes) > OWNER_BYTES_MAX:
        raise EngineError(f"transactional id of {len(owner_bytes)} bytes, at most {OWNER_BYTES_MAX} are possible")
    body = bytes([len(owner_bytes)]) + owner_bytes
    if snapshot.done:
        runs = _encode_runs(snapshot)
        top = snapshot.done[-1][1]
        bits = (top - snapshot.low + 7) // 8
        if bits < len(runs) and bits <= _BITSET_BYTES_MAX:
            body += bytes([_BITSET]) + _encode_bitset(snapshot, bits)
        else:
            body += bytes([_RUNS]) + runs
    return _VERSION + base64.b64encode(body).decode().rstrip("=")


def decode_metadata(low: int, metadata: str) -> tuple[Snapshot, str]:
    """Reads what ``encode_metadata`` wrote. Empty metadata (a plain commit by other tools) means: nothing above low.

    Raises:
        EngineError: CH0307, the string is not ours; starting anyway could repeat finished steps.
    """
    if not metadata:
        return Snapshot(low, ()), ""
    try:
        if metadata[0] != _VERSION or not metadata.isascii():
            raise ValueError(f"version {metadata[0]!r}")
        text = metadata[1:]
        body = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        owner_end = 1 + body[0]
        owner = body[1:owner_end].decode()
        if len(body) < owner_end:
            raise ValueError("truncated owner")
        rest = body[owner_end:]
        if not rest:
            return Snapshot(low, ()), owner
        if rest[0] == _RUNS:
            return Snapshot(low, _decode_runs(low, rest[1:])), owner
        if rest[0] == _BITSET:
            return Snapshot(low, _decode_bitset(low, rest[1:])), owner
        raise ValueError(f"kind {rest[0]}")
    except (ValueError, IndexError, binascii.Error) as error:
        raise EngineError(
            f"the group's offset metadata is not readable: {error}; seen {metadata[:40]!r}",
            code="CH0307",
            fault="environment",
            hint="another program commits offsets for this group; use another group or `choreo agent reset`",
        ) from error


def _varint(number: int, out: bytearray) -> None:
    while number > 0x7F:
        out.append(0x80 | (number & 0x7F))
        number >>= 7
    out.append(number)


def _encode_runs(snapshot: Snapshot) -> bytes:
    out = bytearray()
    at = snapshot.low
    for start, end in snapshot.done:
        _varint(start - at, out)
        _varint(end - start, out)
        at = end
    return bytes(out)


def _decode_runs(low: int, data: bytes) -> Ranges:
    numbers: list[int] = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        else:
            numbers.append(number)
            number = shift = 0
    if shift or len(numbers) % 2:
        raise ValueError("truncated runs")
    ranges: list[tuple[int, int]] = []
    at = low
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        if gap == 0 or length == 0:
            raise ValueError("an empty run")
        ranges.append((at + gap, at + gap + length))
        at += gap + length
    return tuple(ranges)


def _encode_bitset(snapshot: Snapshot, size: int) -> bytes:
    bits = 0
    for start, end in snapshot.done:
        bits |= ((1 << (end - start)) - 1) << (start - snapshot.low)
    return bits.to_bytes(size, "little")


def _decode_bitset(low: int, data: bytes) -> Ranges:
    if len(data) > _BITSET_BYTES_MAX:
        raise ValueError("bitset too long")
    bits = int.from_bytes(data, "little")
    ranges: list[tuple[int, int]] = []
    at = low
    while bits:
        skip = (bits & -bits).bit_length() - 1
        bits >>= skip
        length = (~bits & -~bits).bit_length() - 1
        bits >>= length
        ranges.append((at + skip, at + skip + length))
        at += skip + length
    if ranges and ranges[0][0] <= low:
        raise ValueError("low itself is marked as finished")
    return tuple(ranges)
