"""One engine in a test's hands: inputs in, bursts out, commits when the test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from choreo.kernel.burst import Burst
from choreo.kernel.engine import Engine, EngineConfig, Refusals
from choreo.kernel.packed import unpack
from choreo.kernel.progress import Snapshot
from choreo.kernel.restore import Restored
from choreo.kernel.values import (
    Answer,
    Call,
    Delivery,
    Envelope,
    Failure,
    InputTopic,
    ParkedRow,
    Settlement,
    TimerRow,
)
from tests.kernel.fakes import CHANGELOG, FACTS, TABLE, FakeRunner, Script

IN = "in"
SECOND = "second"
INBOX = "inbox"
NOW_MS = 1_000_000


class Rows:
    """Committed rows of one partition."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    def get(self, entity: str, /) -> bytes | None:
        return self.rows.get(entity)


def parse(delivery: Delivery, topic: InputTopic) -> Envelope:
    """Id and event time stand in the headers as plain text; without them the place and the Kafka timestamp."""
    headers = dict(delivery.headers)
    event_id = headers.get("id", f"{delivery.topic}/{delivery.partition}/{delivery.offset}".encode()).decode()
    time_ms = int(headers["time"]) if "time" in headers else delivery.timestamp_ms
    return Envelope(event_id, "", time_ms, event_id, "", 0, "", "", "")


class Rig:
    """An engine with one partition (more if asked for), restored and empty."""

    def __init__(
        self,
        *,
        inputs: tuple[InputTopic, ...] = (InputTopic(IN), InputTopic(INBOX, inbox=True)),
        partitions: tuple[int, ...] = (0,),
        refusals: Refusals | None = None,
        partition_of: Callable[[bytes, int], int] | None = None,
        script: Script | None = None,
        **config: Any,
    ) -> None:
        self.now_ms = NOW_MS
        self.script = script or Script()
        self.runner = FakeRunner(self.script)
        self.inputs = inputs
        self.settlements: dict[int, Settlement | Failure] = {}  # by offset in the inbox
        self.next_offset: dict[tuple[str, int], int] = {}
        self.calls: dict[int, Call] = {}
        self.calls_regardless = True  # of rows that are not committed yet
        self.stores = {number: Rows() for number in partitions}
        defaults: dict[str, Any] = {
            "inputs": inputs,
            "partitions": max(partitions) + 1,
            "owner": "group.w0",
            "facts": FACTS,
            "changelogs": {TABLE: CHANGELOG},
            "parse": parse,
            "partition_of": partition_of or (lambda key, count: int(key[-1:]) % count if count > 1 else 0),
            "settlement": lambda delivery: self.settlements[delivery.offset],
            "references": lambda table, key: None,
            "retry_backoff_ms": 100,
        }
        self.engine = Engine(EngineConfig(**{**defaults, **config}), self.runner, refusals)
        for number in partitions:
            self.engine.assign(number)
            self.restore(number)

    def restore(
        self,
        number: int = 0,
        *,
        progress: dict[str, Snapshot] | None = None,
        event_time_ms: int = -1,
        timers: tuple[TimerRow, ...] = (),
        parked: tuple[ParkedRow, ...] = (),
        entities: dict[str, Any] | None = None,
    ) -> None:
        snapshots = {topic.name: Snapshot(0, ()) for topic in self.inputs} | (progress or {})
        self.engine.restored(
            number,
            Restored(
                snapshots,
                event_time_ms,
                self.now_ms,
                entities or {},
                list(timers),
                list(parked),
                {TABLE: self.stores[number]},
            ),
        )
        for name, snapshot in snapshots.items():
            self.next_offset[name, number] = snapshot.low

    # -- input ---------------------------------------------------------------------------------------------------------

    def delivery(
        self,
        value: str | bytes,
        key: str | bytes | None = "a",
        *,
        topic: str = IN,
        number: int = 0,
        id: str | None = None,
        time: int | None = None,
        at: int | None = None,
        offset: int | None = None,
    ) -> Delivery:
        if offset is None:
            offset = self.next_offset.get((topic, number), 0)
        self.next_offset[topic, number] = offset + 1
        headers = [("id", id.encode())] if id is not None else []
        headers += [("time", str(time).encode())] if time is not None else []
        return Delivery(
            topic,
            number,
            offset,
            self.now_ms if at is None else at,
            key.encode() if isinstance(key, str) else key,
            value.encode() if isinstance(value, str) else value,
            headers,
        )

    def send(self, value: str | bytes, key: str | bytes | None = "a", **more: Any) -> Delivery:
        delivery = self.delivery(value, key, **more)
        self.engine.deliver([delivery])
        return delivery

    def settle(self, settlement: Settlement, number: int = 0) -> None:
        offset = self.next_offset.get((INBOX, number), 0)
        self.settlements[offset] = settlement
        self.send(b"", settlement.entity, topic=INBOX, number=number)

    def retry(self, entity: str = "a") -> None:
        self.settle(Settlement("retry", entity, -1, "me", "", None))

    def drop(self, number: int = -1, entity: str = "a") -> None:
        self.settle(Settlement("drop", entity, number, "me", "no use", None))

    def reach_end(self, topic: str = IN, number: int = 0) -> None:
        self.engine.reach_end(topic, number, self.next_offset.get((topic, number), 0))

    # -- work ----------------------------------------------------------------------------------------------------------

    def pump(self, after_ms: int = 0) -> None:
        self.now_ms += after_ms
        self.engine.pump(self.now_ms)
        self.calls.update(self.engine.calls_to_start(regardless=self.calls_regardless))
        for call_id in self.engine.calls_to_cancel():
            self.calls.pop(call_id, None)

    def answer(self, entity: str | None = None) -> None:
        """Answers the oldest call, or the oldest one of an entity."""
        call_id = next(number for number, call in self.calls.items() if entity in (None, call.arguments))
        del self.calls[call_id]
        self.engine.answer(call_id, Answer("yes", None), self.now_ms)
        self.pump()

    def burst(self) -> Burst | None:
        self.pump()
        return self.engine.take_burst(self.now_ms)

    def committed(self, burst: Burst) -> None:
        for (number, _, entity), (_, packed) in burst.rows.items():
            if packed is None:
                self.stores[number].rows.pop(entity, None)
            else:
                self.stores[number].rows[entity] = packed
        self.engine.committed(burst, self.now_ms)

    def commit(self) -> list[Burst]:
        """Runs and commits until nothing is left to commit."""
        bursts: list[Burst] = []
        while (burst := self.burst()) is not None:
            self.committed(burst)
            bursts.append(burst)
        return bursts

    def count(self, entity: str = "a", number: int = 0) -> int:
        packed = self.stores[number].rows.get(entity)
        return 0 if packed is None else int(unpack(packed)[1].split()[0])


def steps_of(bursts: list[Burst]) -> list[tuple[str, str]]:
    """What the steps of bursts became, in order: (event id, done | dead code | parked number | nothing)."""
    found: list[tuple[str, str]] = []
    for burst in bursts:
        for done in burst.steps:
            outcome = done.outcome
            if outcome.dead_letter is not None:
                import json

                ended = f"dead {json.loads(outcome.dead_letter.value or b'{}')['code']}"
            elif outcome.parked is not None:
                ended = f"parked {outcome.parked.number}"
            elif outcome.emits:
                ended = "done"
            elif outcome.decision is not None:
                ended = "duplicate"
            else:
                ended = "nothing"
            found.append((done.event_id, ended))
    return found


def lows(bursts: list[Burst], topic: str = IN) -> int:
    """The offset that was committed last."""
    return [commit.offset for burst in bursts for commit in burst.offsets if commit.topic == topic][-1]
