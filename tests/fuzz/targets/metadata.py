"""Offset metadata of any program: progress or CH0307, never steps that count as finished and are not."""

from __future__ import annotations

import base64
from itertools import pairwise
from random import Random
from typing import Final

from choreo.errors import EngineError
from choreo.kernel.progress import OWNER_BYTES_MAX, Progress, Snapshot, decode_metadata, encode_metadata
from tests.fuzz.changes import BINARY, TEXT, Cursor, changed
from tests.fuzz.target import Target, promised

LOW: Final = 1_000_000
OWNER: Final = "shop.recovery.worker-0"
WORDS: Final = (*TEXT, *BINARY, b"1", b"=", b"==", b"A" * 64, b"/" * 64)


def check(data: bytes) -> None:
    """The input is the metadata's text, of which Kafka makes valid UTF-8."""
    text = data.decode("utf-8", errors="replace")
    try:
        snapshot, owner = decode_metadata(LOW, text)
    except EngineError as error:
        promised(error.code == "CH0307", str(error))
        promised(len(str(error)) < 1_000, "the error is as long as the input")
        return
    check_sane(snapshot)
    promised(len(owner.encode()) <= OWNER_BYTES_MAX, "the owner's name")
    promised(decode_metadata(LOW, encode_metadata(snapshot, owner)) == (snapshot, owner), "read, written, read")
    again = Progress(*snapshot)
    promised(again.snapshot() == snapshot, "the progress that it starts is another")


def check_sane(snapshot: Snapshot) -> None:
    promised(snapshot.low == LOW, snapshot.low)
    edges = [snapshot.low, *(edge for pair in snapshot.done for edge in pair)]
    promised(all(before < after for before, after in pairwise(edges)), edges[:20])


def check_written(data: bytes) -> None:
    """The input is a history: which of some delivered offsets finished. It survives the metadata."""
    cursor = Cursor(data)
    progress = Progress(LOW)
    finished: set[int] = set()
    offset = LOW
    delivered: list[int] = []
    while cursor.more and len(delivered) < 2_000:
        step = cursor.byte()
        offset += step >> 2 if step < 0xF0 else (step & 0x0F) << 12
        progress.deliver(offset)
        delivered.append(offset)
        if step & 1:
            progress.finish(offset)
            finished.add(offset)
        offset += 1
    before = progress.snapshot()
    after, owner = decode_metadata(before.low, encode_metadata(before, OWNER))
    promised((after, owner) == (before, OWNER), (before, after))
    heir = Progress(*after)
    for one in delivered:
        if one >= after.low:
            promised(heir.deliver(one) == (one not in finished), f"offset {one}")
        else:
            promised(one in finished, f"offset {one} would be skipped")


def _seeds() -> tuple[bytes, ...]:
    snapshots = (
        Snapshot(LOW, ()),
        Snapshot(LOW, ((LOW + 1, LOW + 2),)),
        Snapshot(LOW, ((LOW + 200, LOW + 90_000), (LOW + 2**40, LOW + 2**41))),
        Snapshot(LOW, tuple((LOW + 2 * n + 1, LOW + 2 * n + 2) for n in range(300))),
    )
    return tuple(encode_metadata(one, owner).encode() for one in snapshots for owner in (OWNER, "", "é"))


def change(seed: bytes, chance: Random) -> bytes:
    """Damage to the text, or to what is inside its base64."""
    if chance.random() < 0.3:
        return changed(seed, chance, WORDS)
    text = seed[1:]
    try:
        body = base64.b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:  # an input that was damaged before
        body = text
    if chance.random() < 0.2:
        body = b"\x00" + chance.choice((b"\x00", b"\x01")) + chance.randbytes(chance.randrange(40))
    return b"1" + base64.b64encode(changed(body, chance, BINARY)).rstrip(b"=")


def targets() -> list[Target]:
    histories = (b"", b"\x01\x00\x01\x05\x00\xff", bytes(range(256)), b"\x00" + b"\x01" * 500)
    return [
        Target("metadata/read", check, _seeds(), change, share=10),
        Target(
            "metadata/written", check_written, histories, lambda seed, chance: changed(seed, chance, BINARY), share=10
        ),
    ]
