"""Reads what a round left in Kafka and in the ledger, with clients that share no code with choreo."""

from __future__ import annotations

import base64
import sqlite3
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chaos import reader
from tests.chaos.bank.evidence import (
    AGENTS,
    RECORDS,
    TABLES,
    TOPICS,
    TOPOLOGY,
    Call,
    Change,
    Commit,
    Decision,
    Event,
    Letter,
    Place,
    Value,
    group,
)
from tests.chaos.wire import Wire, builtin

OFFSETS_TOPIC = "__consumer_offsets"
DECISIONS_TOPIC = f"{TOPOLOGY}.decisions"
_OFFSET_KEYS = (0, 1)  # versions of keys that name an offset; others are about groups


def changelog(agent: str) -> str:
    return f"{group(agent)}.changelog.{TABLES[agent].replace('_', '-')}"


class Wires:
    """Record types by the topic that carries them, with the ids of the committed lock file."""

    def __init__(self, root: Path, ids: Mapping[str, int]) -> None:
        schemas = root / "schemas"
        self.events = {topic: Wire.load(schemas / f"{RECORDS[topic]}.avsc", ids[f"{topic}-value"]) for topic in TOPICS}
        self.rows = {
            agent: Wire.load(schemas / f"{RECORDS[TABLES[agent]]}.avsc", ids[f"{changelog(agent)}-value"])
            for agent in AGENTS
        }
        self.decision = builtin("choreo.Decision")
        self.letter = builtin("choreo.DeadLetter")


def events(bootstrap: str, topic: str, wire: Wire) -> list[Event]:
    """Committed records of one of the bank's topics."""
    return [event(record, wire) for record in reader.read(bootstrap, topic)]


def event(record: reader.Found, wire: Wire) -> Event:
    """A record of one of the bank's topics as a value; poison has none."""
    key: str | None = None
    value: Value | None = None
    try:
        key = None if record.key is None else record.key.decode()
        value = wire.decode(record.value or b"")
    except (AssertionError, UnicodeDecodeError, EOFError, struct.error, ValueError, IndexError):
        value = None  # poison; whether it should be is for the invariants
    event_id = record.header("ce_id")
    return Event(
        Place(record.topic, record.partition, record.offset),
        key,
        value,
        record.key,
        record.value,
        event_id,
        record.header("ce_source"),
        record.header("ce_time"),
        record.header("ce_correlationid") or event_id,
        record.header("ce_causationid"),
        int(record.header("ce_choreohop") or "0"),
    )


def changes(bootstrap: str, agent: str, wire: Wire) -> list[Change]:
    """Committed records of an agent's changelog."""
    return [
        Change(
            TABLES[agent],
            record.partition,
            record.offset,
            record.text_key,
            None if record.value is None else wire.decode(record.value),
            record.header("ce_causationid"),
        )
        for record in reader.read(bootstrap, changelog(agent))
    ]


def decision(record: reader.Found, wires: Wires) -> Decision:
    """A decision record as a value."""
    value = wires.decision.decode(record.value or b"")
    agent = value["agent"]
    row: dict[str, Any] | None = next(iter(value["rows"]), None)
    before, after = (None, None) if row is None else (row["before"], row["after"])
    wire = wires.rows[agent]
    return Decision(
        Place(record.topic, record.partition, record.offset),
        agent,
        value["entity"],
        value["sequence"],
        value["outcome"],
        value["event_id"],
        Place(value["topic"] or "", _number(value["partition"]), _number(value["offset"])),
        value["correlation_id"],
        value["causation_id"],
        value["hop"],
        tuple((one["topic"], one["event_id"]) for one in value["emits"]),
        None if before is None else wire.decode(before),
        None if after is None else wire.decode(after),
        bool(value["rows"]),
        value["code"],
    )


def _number(value: int | None) -> int:
    return -1 if value is None else value


def letters(bootstrap: str) -> list[Letter]:
    """Dead letters of all agents."""
    return [
        Letter(agent, one.event_id, one.code, Place(one.topic, one.partition, one.offset), one.key, one.value)
        for agent in AGENTS
        for one in reader.dead_letters(bootstrap, f"{group(agent)}.dead-letters")
    ]


def committed(bootstrap: str) -> dict[tuple[str, str, int], int]:
    """(group, topic, partition) → offset, for the bank's groups."""
    client = reader.admin(bootstrap)
    return {
        (group(agent), topic, partition): offset
        for agent in AGENTS
        for (topic, partition), offset in reader.committed_offsets(client, group(agent)).items()
    }


def commits(bootstrap: str) -> list[Commit]:
    """Every committed offset commit of the bank's groups, from the coordinator's own log.

    Source: Kafka's ``OffsetCommitKey`` (versions 0, 1) and ``OffsetCommitValue`` (3, and 4, which is flexible).
    """
    groups = {group(agent) for agent in AGENTS}
    found = []
    for record in reader.read(bootstrap, OFFSETS_TOPIC):
        if record.key is None or record.value is None:
            continue
        key = _Bytes(record.key)
        if key.int16() not in _OFFSET_KEYS:
            continue
        name, topic, partition = key.text(), key.text(), key.int32()
        if name not in groups or topic.endswith(".journal"):  # there a restore leaves its mark (choreo.runtime.barrier)
            continue
        value = _Bytes(record.value)
        version = value.int16()
        if version not in (3, 4):
            raise AssertionError(f"version {version} of OffsetCommitValue is not known here")
        offset, _epoch = value.int64(), value.int32()
        metadata = (value.text() if version == 3 else value.compact_text()).rstrip("\0")  # librdkafka sends C's zero
        found.append(Commit(name, topic, partition, offset, metadata, _owner(metadata), value.int64()))
    return found


def _owner(metadata: str) -> str:
    """The transactional id in choreo's offset metadata: a version character, then base64 of a length and the text."""
    if not metadata:
        return ""
    body = base64.b64decode(metadata[1:] + "=" * (-len(metadata[1:]) % 4))
    return body[1 : 1 + body[0]].decode()


class _Bytes:
    """Reads Kafka's big-endian primitives one after another."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def int16(self) -> int:
        return self._number(">h", 2)

    def int32(self) -> int:
        return self._number(">i", 4)

    def int64(self) -> int:
        return self._number(">q", 8)

    def text(self) -> str:
        length = self.int16()
        self._at += length
        return self._data[self._at - length : self._at].decode()

    def compact_text(self) -> str:
        length = shift = 0
        while True:
            (byte,) = struct.unpack_from(">B", self._data, self._at)
            self._at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        self._at += length - 1
        return self._data[self._at - (length - 1) : self._at].decode()

    def _number(self, form: str, size: int) -> int:
        (number,) = struct.unpack_from(form, self._data, self._at)
        self._at += size
        assert isinstance(number, int)
        return number


def calls(file: Path, after: int = 0) -> list[Call]:
    """What the ledger recorded after a call, from its file."""
    database = sqlite3.connect(file)
    try:
        rows = database.execute(
            "select number, at_ms, account, key from calls where number > ? order by number", (after,)
        )
        return [Call(*row) for row in rows]
    finally:
        database.close()
