"""Simulated worlds: workers with real engines on a cluster in memory, under faults, from one seed.

    python -m tests.kernel.world --seed 17          # replays one world and tells what happened
    python -m tests.kernel.world --seeds 0-20000    # many of them

Theory of operation. A worker's thread is a generator that does what ``choreo/runtime/session.py`` does and yields
wherever a crash, a pause or another worker may come in between; its restore is a second one, after
``choreo/runtime/restore.py``. A seeded scheduler resumes one of them at a time and plants faults; then it heals the
world and lets everything come to rest. What the log then says is compared with what the promises say. There are no
threads and no clocks: a seed is a schedule.

The cluster has what the promises lean on: transactions whose markers take offsets, read_committed, fencing, unstable
offsets, generations, static members. It has no compaction and no retention; ``kernel/restore.py`` has tests of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from choreo.errors import EngineError, FencedSignal
from choreo.kernel.burst import Burst
from choreo.kernel.engine import Engine, EngineConfig, Refusals
from choreo.kernel.envelope import parse_headers, rfc3339, row_provenance
from choreo.kernel.packed import pack, unpack
from choreo.kernel.partitioner import murmur2_partition
from choreo.kernel.progress import Snapshot
from choreo.kernel.restore import Ends, Restored, starting_point
from choreo.kernel.values import (
    Answer,
    Checkpoint,
    Delivery,
    EntityState,
    Envelope,
    InputTopic,
    OutRecord,
    ParkedRow,
    Settlement,
    TimerRow,
)
from choreo.runtime.records import InternalRecords
from choreo.runtime.stores.memory import MemoryStore
from choreo.testing.bus import MemoryBus, MemoryProducer
from tests.kernel.cluster import Group
from tests.kernel.fakes import (
    ALARM,
    CHANGELOG,
    DEAD,
    DECISIONS,
    FACTS,
    OUT,
    REJECTED,
    TABLE,
    FakeRunner,
    Script,
    chained,
    count_and_chain,
)

JOURNAL: Final = "journal"
TIMERS: Final = "timers"
PARKED: Final = "parked"
INBOX: Final = "inbox"
EVENT_STEP_MS: Final = 100_000_000
"""Between the event times of two inputs: so much more than the wall clock of a run moves, even when it jumps, that
until the end only event time fires timers."""
WALL_START_MS: Final = 1_700_000_000_000
EVENT_START_MS: Final = WALL_START_MS - 1_000 * EVENT_STEP_MS
"""Before the wall clock: an event time may not lead its Kafka timestamp by much."""
CLOCK_JUMP_MS: Final = 3_600_000
HEAL_ROUNDS_MAX: Final = 4_000
RECORDS: Final = InternalRecords()

Thread = Generator[None, None, Any]


class UnknownOutcome(Exception):
    """As in the session: it starts over from the log."""


class Broken(AssertionError):
    """A promise that this world did not keep."""


@dataclass(frozen=True)
class Plan:
    """What a seed decides beforehand."""

    partitions: int
    workers: int
    inputs: tuple[InputTopic, ...]
    entities: int
    events: int
    in_flight: int
    retries: int
    steps: int
    fault_rate: float
    words: tuple[str, ...]
    single_topic: bool
    ordered_times: bool


def plan_of(chance: random.Random) -> Plan:
    topics = 1 if chance.random() < 0.6 else 2
    dedupe_ms = None if chance.random() < 0.5 else 10**12
    words = ["", "", "call", "call call", "timer", "timer call", "cancel"]
    for more in (["flaky", "flaky call"], ["tired", "broken"], ["park", "park call"], ["big", "forget", "call flaky"]):
        words += more if chance.random() < 0.5 else []
    if chance.random() < 0.1:
        words.append("rejected")
    return Plan(
        partitions=chance.randint(1, 4),
        workers=chance.randint(1, 3),
        inputs=(
            *(InputTopic(f"in-{number}", dedupe_ms, "c", f"t{number}") for number in range(topics)),
            InputTopic(INBOX, None, "c", "ti", inbox=True),
        ),
        entities=chance.choice((1, 3, 8)),
        events=chance.randint(10, 60),
        in_flight=chance.choice((1, 2, 100)),
        retries=chance.randint(0, 2),
        steps=chance.randint(100, 400),
        fault_rate=chance.choice((0.0, 0.03, 0.08, 0.15)),
        words=tuple(words),
        single_topic=topics == 1,
        ordered_times=chance.random() < 0.5,
    )


@dataclass(frozen=True)
class Sent:
    """One input record that became visible."""

    delivery: Delivery
    envelope: Envelope
    entity: str | None  # None: its key cannot be used
    words: tuple[str, ...]


# -- a worker ----------------------------------------------------------------------------------------------------------


class Worker:
    """One process. Its two threads are generators; the world resumes them."""

    def __init__(self, world: World, instance: str) -> None:
        self.world = world
        self.instance = instance
        self.owner = f"choreo.{instance}"
        self.engine: Engine | None = None
        self.refusals = Refusals()
        self.stores: dict[int, MemoryStore] = {}
        self.positions: dict[tuple[str, int], int] = {}
        self.tickets: dict[int, int] = {}
        self.last_ticket = 0
        self.results: deque[tuple[int, int, Restored | EngineError, MemoryStore]] = deque()
        self.stopped: dict[int, EngineError] = {}
        self.restores: deque[Thread] = deque()
        self.calls: dict[int, Any] = {}
        self.paused = False
        self.in_callback = False
        self.in_transaction = False
        self.commit_after_ms = 0
        self.main: Thread = self._life()

    def threads(self) -> list[Thread]:
        return [self.main, *list(self.restores)[:1]]

    def resume(self, thread: Thread) -> None:
        if thread not in self.threads():
            return  # given up meanwhile
        try:
            next(thread)
        except StopIteration:
            if thread is self.main:
                self.world.ended(self)
            else:
                self.restores.remove(thread)

    def _life(self) -> Thread:
        while True:
            try:
                yield from self._session()
            except UnknownOutcome:
                self.world.note("starts over", self.instance)
                assert self.engine is not None
                self.engine.reset()
                self._forget()
                yield
            except FencedSignal:
                self.world.note("fenced", self.instance)
                return

    def _forget(self) -> None:
        self.stores, self.positions, self.tickets, self.calls = {}, {}, {}, {}
        self.results.clear()
        self.restores.clear()
        self.in_callback = False
        self.commit_after_ms = 0

    def _session(self) -> Thread:
        world = self.world
        self.engine = engine = world.make_engine(self.owner, self.refusals)
        self.producer = world.bus.producer(self.owner)
        yield
        self.member = world.group.join(self.instance)
        yield
        while True:
            yield from self._poll()
            self._take_answers()
            self._take_restored()
            engine.pump(world.now_ms, world.chance.choice((1, 3, 2_000)))
            for call_id, call in engine.calls_to_start():
                self.calls[call_id] = call
            for call_id in engine.calls_to_cancel():
                self.calls.pop(call_id, None)
            if not world.now_ms < self.commit_after_ms <= world.now_ms + 20:
                yield from self._commit_once()
            yield

    # -- group -----------------------------------------------------------------------------------------------------

    def _poll(self) -> Thread:
        world, group = self.world, self.world.group
        if group.displaced(self.member):
            self._probe()
        if not group.knows(self.member):
            self._on_lost(set(self.member.owned))
            self.member = group.join(self.instance)
        group.heartbeat(self.member)
        assigned = group.assignment(self.member)
        if assigned is not None:
            member = self.member
            gone = member.owned - assigned
            if gone:
                self.in_callback = True
                yield from self._on_revoke(gone)
                self.in_callback = False
                member.owned -= gone
                if group.knows(member):
                    group.rebalance()
            new = assigned - member.owned
            member.owned |= new
            self._on_assign(new)
            if world.repeats_callbacks:
                self._on_assign(new)
        self._fetch()

    def _probe(self) -> None:
        """Somebody has this instance name: is there a newer worker?"""
        self.producer.begin()
        self.producer.abort()
        raise UnknownOutcome("displaced by nobody")

    def _on_assign(self, assigned: set[int]) -> None:
        assert self.engine is not None
        numbers = tuple(sorted(number for number in assigned if not self.engine.owns(number)))
        if not numbers:
            return
        self.last_ticket += 1
        for number in numbers:
            self.engine.assign(number)
            self.tickets[number] = self.last_ticket
            self.stopped.pop(number, None)
            for topic in self.world.plan.inputs:
                self.positions[topic.name, number] = 0
        self.restores.append(self._restore(self.last_ticket, numbers))

    def _on_revoke(self, gone: set[int]) -> Thread:
        while (yield from self._commit_once()):
            pass
        self._give_up(gone)

    def _on_lost(self, gone: set[int]) -> None:
        self.world.note("lost", self.instance)
        self._give_up(gone)

    def _give_up(self, gone: set[int]) -> None:
        assert self.engine is not None
        self.engine.revoke(number for number in gone if self.engine.owns(number))
        for call_id in self.engine.calls_to_cancel():
            self.calls.pop(call_id, None)
        for number in gone:
            self.tickets.pop(number, None)
            self.stores.pop(number, None)

    # -- input -----------------------------------------------------------------------------------------------------

    def _fetch(self) -> None:
        engine, world = self.engine, self.world
        assert engine is not None
        paused = engine.paused()
        for topic in world.plan.inputs:
            for number in sorted(self.member.owned):
                at = (topic.name, number)
                if at in paused:
                    continue
                found, position = world.bus.read(topic.name, number, self.positions[at])
                most = world.chance.choice((1, 5, 1_000))
                if len(found) > most:
                    found, position = found[:most], found[most].offset
                    engine.deliver(found)
                else:
                    engine.deliver(found)
                    engine.reach_end(topic.name, number, position)
                self.positions[at] = position

    def _take_answers(self) -> None:
        assert self.engine is not None
        chance = self.world.chance
        for call_id in [call_id for call_id in self.calls if chance.random() < self.world.answers]:
            self.calls.pop(call_id)
            self.engine.answer(call_id, Answer("yes", None), self.world.now_ms)
            if self.world.repeats_callbacks:
                self.engine.answer(call_id, Answer("again", None), self.world.now_ms)

    def _take_restored(self) -> None:
        assert self.engine is not None
        while self.results:
            ticket, number, restored, store = self.results.popleft()
            if self.tickets.get(number) != ticket:
                continue  # lost meanwhile
            del self.tickets[number]
            if isinstance(restored, EngineError):
                self.stopped[number] = restored
                self.world.note("stopped", f"{self.instance} {number}: {restored}")
                continue
            self.stores[number] = store
            self.engine.restored(number, restored)
            for topic, snapshot in restored.progress.items():
                self.positions[topic, number] = self.world.seek(snapshot.low)

    # -- restore ---------------------------------------------------------------------------------------------------

    def _restore(self, ticket: int, numbers: tuple[int, ...]) -> Thread:
        world = self.world
        if world.mutant == "ends before offsets":
            ends = self._ends(numbers)
            yield
            committed, owners = yield from self._committed(numbers)
        else:
            committed, owners = yield from self._committed(numbers)
            yield
            ends = self._ends(numbers)
        yield
        state = {number: _State() for number in numbers}
        for number in numbers:
            for topic in (CHANGELOG, JOURNAL, TIMERS, PARKED):
                yield from self._read(state[number], topic, number, ends[topic, number], owners)
        for number in numbers:
            restored: Restored | EngineError
            try:
                restored = self._assembled(number, state[number], committed)
            except EngineError as error:
                restored = error
            self.results.append((ticket, number, restored, state[number].store))

    def _assembled(self, number: int, state: _State, committed: dict[tuple[str, int], Snapshot | None]) -> Restored:
        world = self.world
        event_time_ms, seen_at_ms = -1, 0
        progress: dict[str, Snapshot] = {}
        for topic in world.input_names:
            checkpoint = state.checkpoints.get(topic)
            if checkpoint is not None and checkpoint.event_time_ms > event_time_ms:
                event_time_ms, seen_at_ms = checkpoint.event_time_ms, checkpoint.seen_at_ms
            ends = Ends(0, world.bus.end_offset(topic, number))
            progress[topic] = starting_point(
                f"{topic}/{number}", committed[topic, number], checkpoint, ends, "earliest"
            )
        world.note("restored", f"{self.instance} {number} from {progress}")
        timers, parked = list(state.timers.values()), list(state.parked.values())
        return Restored(progress, event_time_ms, seen_at_ms, state.entities, timers, parked, {TABLE: state.store})

    def _committed(self, numbers: tuple[int, ...]) -> Thread:
        world, group = self.world, self.world.group
        wanted = [(topic, number) for topic in world.input_names for number in numbers]
        waited = 0
        while any(group.unstable(*one) for one in wanted) and world.mutant != "unstable offsets":
            waited += 1
            if waited == 10:
                self._end_transactions({group.committed(*one)[1] for one in wanted})
            yield
        found = {one: group.committed(*one) for one in wanted}
        return {one: snapshot for one, (snapshot, _) in found.items()}, {owner for _, owner in found.values()}

    def _end_transactions(self, owners: set[str]) -> None:
        for owner in sorted(owners - {"", self.owner}):
            self.world.note("ends transaction of", owner)
            self.world.bus.producer(owner)

    def _ends(self, numbers: tuple[int, ...]) -> dict[tuple[str, int], int]:
        bus, topics = self.world.bus, (CHANGELOG, JOURNAL, TIMERS, PARKED)
        if self.world.mutant == "ends of read_committed":
            return {(topic, number): bus.read(topic, number, 0)[1] for topic in topics for number in numbers}
        return {(topic, number): bus.end_offset(topic, number) for topic in topics for number in numbers}

    def _read(self, state: _State, topic: str, number: int, end: int, owners: set[str]) -> Thread:
        position, waited = 0, 0
        while position < end:
            found, position = self.world.bus.read(topic, number, position)
            for one in found:
                state.take(topic, one)
            if position < end:
                waited += 1
                if waited == 10:
                    self._end_transactions(owners)
                yield

    # -- commits ---------------------------------------------------------------------------------------------------

    def _commit_once(self) -> Thread:
        engine, world = self.engine, self.world
        assert engine is not None
        burst = engine.take_burst(world.now_ms)
        if burst is None:
            return False
        self.in_transaction = True
        ended = yield from self._transaction(burst)
        self.in_transaction = False
        if ended != "committed":
            world.note(ended, self.instance)
        if ended == "committed":
            for (number, _, entity), (_, packed) in burst.rows.items():
                self.stores[number].apply([(entity, packed)], None, world.now_ms)
            engine.committed(burst, world.now_ms)
            return True
        if ended == "rejected":
            engine.refuse_burst(burst)
            raise UnknownOutcome(ended)
        if ended in ("unknown", "displaced"):
            if world.mutant != "unknown is aborted":
                raise UnknownOutcome(ended)
            self.producer = world.bus.producer(self.owner)
        engine.put_back(burst)
        if ended == "rebalancing":
            self.commit_after_ms = world.now_ms + 20
            return False
        self.producer = world.bus.producer(self.owner)
        return False

    def _transaction(self, burst: Burst) -> Thread:
        world, producer = self.world, self.producer
        plain, rows = RECORDS.produced(
            burst, changelogs={TABLE: CHANGELOG}, journal=JOURNAL, timers=TIMERS, parked=PARKED
        )
        records = [*plain, *rows]
        metadata = self.member.metadata()
        late = records if world.mutant == "offsets before records" else []
        producer.begin()
        yield
        if not late:
            for record in records:
                if record.value == REJECTED:
                    producer.abort()
                    return "rejected"
                producer.send(record, world.now_ms)
        yield
        verdict = world.group.verdict(metadata)
        if verdict != "accepted":
            producer.abort()
            return verdict
        world.group.send_offsets(producer, burst.offsets)
        yield
        for record in late:
            producer.send(record, world.now_ms)
        fault = world.commit_fault()
        if fault == "aborted":
            producer.abort()
            return "aborted"
        if fault == "unknown, not committed":
            return "unknown"
        before = {
            (one.topic, one.partition): world.group.committed(one.topic, one.partition)[0] for one in burst.offsets
        }
        producer.commit()
        world.check_offsets(before)
        yield
        return "unknown" if fault == "unknown, committed" else "committed"


@dataclass
class _State:
    """One partition number while it is read back."""

    store: MemoryStore = field(default_factory=MemoryStore)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    entities: dict[str, EntityState] = field(default_factory=dict)
    timers: dict[bytes, TimerRow] = field(default_factory=dict)
    parked: dict[bytes, ParkedRow] = field(default_factory=dict)

    def take(self, topic: str, one: Delivery) -> None:
        assert one.key is not None
        if topic == CHANGELOG:
            packed = None if one.value is None else pack(row_provenance(one.headers) or "", one.value)
            self.store.apply([(one.key.decode(), packed)], None, 0)
        elif topic == JOURNAL:
            entry = RECORDS.journal_entry(one.key, one.value)
            if isinstance(entry, Checkpoint):
                self.checkpoints[entry.topic] = entry
            else:
                self.entities[entry[0]] = entry[1]
        elif one.value is None:
            (self.timers if topic == TIMERS else self.parked).pop(one.key, None)
        elif topic == TIMERS:
            self.timers[one.key] = RECORDS.timer(one.value)
        else:
            self.parked[one.key] = RECORDS.parked(one.value)


# -- the world ---------------------------------------------------------------------------------------------------------


class World:
    """Everything there is, from one seed."""

    def __init__(self, seed: int, *, mutant: str = "", told: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.mutant = mutant
        self.chance = random.Random(seed)
        self.plan = plan = plan_of(self.chance)
        self.input_names = [topic.name for topic in plan.inputs]
        self.bus = MemoryBus()
        aligned = (*self.input_names, CHANGELOG, JOURNAL, TIMERS, PARKED)
        for name in aligned:
            self.bus.create_topic(name, plan.partitions)
        for name in (OUT, DEAD, DECISIONS):
            self.bus.create_topic(name, 1)
        self.group = Group(self.bus, plan.partitions, self.chance)
        self.script = Script(timer_after_ms=2 * EVENT_STEP_MS + EVENT_STEP_MS // 2)
        self.now_ms = WALL_START_MS
        self.workers: dict[str, Worker] = {}
        self.zombies: list[Worker] = []
        self.faults: Counter[str] = Counter()
        self.answers = 0.3
        self.repeats_callbacks = self.chance.random() < 0.3
        self.redrives: Counter[tuple[str, int, int]] = Counter()
        self.healed = False
        self._left = plan.events
        self._jumps = 2
        self._feeder: MemoryProducer | None = None
        self._told = told
        self._ids = 0

    def note(self, what: str, whom: object = "") -> None:
        self.faults[what] += 1
        if self._told is not None:
            self._told(f"{self.now_ms - WALL_START_MS:>9} ms  {what} {whom}")

    def make_engine(self, owner: str, refusals: Refusals) -> Engine:
        plan = self.plan
        config = EngineConfig(
            inputs=plan.inputs,
            partitions=plan.partitions,
            owner=owner,
            facts=FACTS,
            changelogs={TABLE: CHANGELOG},
            parse=parse_headers,
            partition_of=murmur2_partition,
            settlement=RECORDS.settlement,
            references=lambda table, key: None,
            in_flight=plan.in_flight,
            retries=plan.retries,
            retry_backoff_ms=50,
        )
        return Engine(config, FakeRunner(self.script), refusals)

    # -- the run ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Raises ``Broken`` (or whatever an engine raises) if a promise is not kept."""
        for number in range(self.plan.workers):
            self._start(f"w{number}")
        for _ in range(self.plan.steps):
            self.now_ms += self.chance.choice((0, 1, 10))
            if self.chance.random() < 0.3:
                self._feed()
            if self.chance.random() < self.plan.fault_rate:
                self._fault()
            threads = [
                (worker, thread)
                for worker in (*self.workers.values(), *self.zombies)
                if not worker.paused
                for thread in worker.threads()
            ]
            if threads:
                worker, thread = self.chance.choice(threads)
                worker.resume(thread)
                if not worker.in_callback and hasattr(worker, "member") and self.chance.random() < 0.2:
                    self.group.heartbeat(worker.member)
        self._heal()
        Checks(self).all()

    def ended(self, worker: Worker) -> None:
        """A process exited by itself."""
        if self.workers.get(worker.instance) is worker:
            del self.workers[worker.instance]
        else:
            self.zombies.remove(worker)

    def _start(self, instance: str) -> None:
        self.workers[instance] = Worker(self, instance)

    def _fault(self) -> None:
        kind = self.chance.choice(
            ("crash", "start", "start", "pause", "pause", "expire", "twin", "clock", "timeout", "leave")
        )
        alive = list(self.workers.values())
        absent = [f"w{number}" for number in range(self.plan.workers) if f"w{number}" not in self.workers]
        if kind == "crash" and alive:
            worker = self.chance.choice(alive)
            worker.main.close()
            del self.workers[worker.instance]
            self.note("crash", worker.instance)
        elif kind == "start" and absent:
            instance = self.chance.choice(absent)
            self._start(instance)
            self.note("start", instance)
        elif kind == "pause" and alive:
            worker = self.chance.choice(alive)
            worker.paused = not worker.paused
            self.note("pause" if worker.paused else "continue", worker.instance)
        elif kind == "expire":
            away = [*absent, *(worker.instance for worker in alive if worker.paused)]
            if away:
                instance = self.chance.choice(away)
                self.group.expire(instance)
                self.note("session expired", instance)
        elif kind == "twin" and alive:
            worker = self.chance.choice(alive)
            self.zombies.append(worker)
            self._start(worker.instance)
            self.note("started twice", worker.instance)
        elif kind == "leave" and len(alive) > 1:
            worker = self.chance.choice(alive)
            worker.main.close()
            del self.workers[worker.instance]
            self.group.expire(worker.instance)
            self.note("crash and session expired", worker.instance)
        elif kind == "clock" and self._jumps:
            self._jumps -= 1
            self.now_ms += self.chance.choice((-1, 1)) * CLOCK_JUMP_MS
            self.note("clock jumps")
        elif kind == "timeout" and absent:
            self.bus.producer(f"choreo.{self.chance.choice(absent)}")
            self.note("transaction timed out")

    def commit_fault(self) -> str:
        if self.healed or self.chance.random() > self.plan.fault_rate:
            return ""
        return self.chance.choice(("aborted", "unknown, not committed", "unknown, committed"))

    def seek(self, offset: int) -> int:
        """Where the consumer goes on after a seek: what was fetched before may still come out first."""
        return self.chance.choice((offset, offset, 0))

    # -- input -----------------------------------------------------------------------------------------------------

    def _feed(self) -> None:
        chance = self.chance
        if self._left <= 0:
            return
        transactional = chance.random() < 0.5
        producer = None
        if transactional:
            producer = self.bus.producer("feeder")
            producer.begin()
        aborted = transactional and chance.random() < 0.3
        for _ in range(chance.randint(1, 4)):
            record = self._input()
            if producer is None:
                self.bus.send(record, self.now_ms)
            else:
                producer.send(record, self.now_ms)
            if not aborted:
                self._left -= 1
        if producer is not None:
            if aborted:
                producer.abort()
            else:
                producer.commit()

    def _input(self) -> OutRecord:
        chance, plan = self.chance, self.plan
        topic = chance.choice(plan.inputs[:-1])
        entity = f"e{chance.randrange(plan.entities)}"
        key: bytes | None = entity.encode()
        partition = murmur2_partition(entity.encode(), plan.partitions)
        unusable = chance.random()
        if unusable < 0.02:
            key = None
        elif unusable < 0.04:
            key = b"\xff\xfe"
        elif unusable < 0.06:
            partition = (partition + 1) % plan.partitions
        self._ids += 1
        number = self._ids
        if topic.dedupe_ms is not None and chance.random() < 0.15:
            number = max(1, number - chance.randint(1, 3))  # sent again
        event_id = f"{topic.name}-{entity}-{number}"
        late = 0 if plan.ordered_times else chance.choice((0, 0, 3, -3))
        time_ms = EVENT_START_MS + (self._ids + late) * EVENT_STEP_MS
        value = chance.choice(plan.words).encode()
        headers = (("ce_id", event_id.encode()), ("ce_time", rfc3339(time_ms).encode()))
        return OutRecord(topic.name, partition, key, value, headers)

    # -- people ----------------------------------------------------------------------------------------------------

    def settle(self, settlement: Settlement) -> None:
        partition = murmur2_partition(settlement.entity.encode(), self.plan.partitions)
        value = RECORDS.encode_settlement(settlement)
        self.bus.send(OutRecord(INBOX, partition, settlement.entity.encode(), value, ()), self.now_ms)
        self.note(settlement.kind, settlement.entity)

    def parked_rows(self) -> list[ParkedRow]:
        rows: list[ParkedRow] = []
        for number in range(self.plan.partitions):
            state = _State()
            for one in self.bus.read(PARKED, number, 0)[0]:
                state.take(PARKED, one)
            rows += state.parked.values()
        return rows

    def _people(self, parked: list[ParkedRow]) -> None:
        """Settles what waits for a person: cures the cause of some, then retries or drops."""
        for entity in sorted({row.entity for row in parked}):
            rows = [row for row in parked if row.entity == entity]
            for row in rows:
                if self.chance.random() < 0.6:
                    self.script.cured.add(row.event_id)
            if self.chance.random() < 0.3:
                number = self.chance.choice((-1, rows[0].number, rows[-1].number))
                self.settle(Settlement("drop", entity, number, "me", "no use", None))
            else:
                self.settle(Settlement("retry", entity, -1, "me", "", None))

    def _redrive(self) -> None:
        for told in self.dead_letters():
            source = told["source"]
            if source is None or told["code"] not in ("CH9003", "CH0304") or self.chance.random() < 0.5:
                continue
            topic, partition, offset = source
            if self.redrives[topic, partition, offset]:
                continue
            delivery = next(one for one in self.bus.read(topic, partition, 0)[0] if one.offset == offset)
            self.redrives[topic, partition, offset] += 1
            if self.chance.random() < 0.7:
                self.script.cured.add(parse_headers(delivery, self._topic(topic)).event_id)
            self.settle(Settlement("redrive", told["entity"], -1, "me", "", delivery))

    def _topic(self, name: str) -> InputTopic:
        return next(topic for topic in self.plan.inputs if topic.name == name)

    def dead_letters(self) -> list[dict[str, Any]]:
        return [json.loads(one.value or b"") for one in self.bus.read(DEAD, 0, 0)[0]]

    # -- rest ------------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.note("healed")
        self.healed = True
        self.answers = 1.0
        while self._left > 0:
            self._feed()
        for worker in (*self.workers.values(), *self.zombies):
            worker.paused = False
        for number in range(self.plan.workers):
            instance = f"w{number}"
            if instance not in self.workers:
                if number and self.chance.random() < 0.5:
                    self.group.expire(instance)
                else:
                    self._start(instance)
        self._rest("input")
        for _ in range(3):
            self._redrive()
            self._rest("redriven input")
        for _ in range(50):
            parked = self.parked_rows()
            if not parked:
                break
            self._people(parked)
            self._rest("settlements")
        else:
            for entity in {row.entity for row in self.parked_rows()}:
                self.settle(Settlement("drop", entity, -1, "me", "enough", None))
            self._rest("settlements")
        self.now_ms += EVENT_STEP_MS * (self.plan.events + 100)
        self._rest("timers")
        self.now_ms += 2_000  # commits of positions behind markers
        self._rest("idle commits")

    def _rest(self, waiting_for: str) -> None:
        for round_number in range(HEAL_ROUNDS_MAX):
            self.now_ms += 25
            if round_number % 100 == 50:
                self._time_out_transactions()
            for worker in (*self.workers.values(), *self.zombies):
                for thread in worker.threads():
                    worker.resume(thread)
            for number in range(self.plan.workers):  # somebody was fenced by an heir: its supervisor starts it again
                if f"w{number}" not in self.workers and (not self.workers or self.group.waits_for(f"w{number}")):
                    self._start(f"w{number}")
            if self._at_rest():
                return
        raise Broken(f"no rest while waiting for {waiting_for}: {self._unrest()}")

    def _time_out_transactions(self) -> None:
        for number in range(self.plan.workers):
            if f"w{number}" not in self.workers:
                self.bus.producer(f"choreo.w{number}")

    def _at_rest(self) -> bool:
        return not self._unrest()

    def _unrest(self) -> str:
        owned: Counter[int] = Counter()
        if self.zombies:
            return "zombies"
        for worker in self.workers.values():
            for number, error in worker.stopped.items():
                if number in worker.member.owned:
                    raise Broken(f"{worker.instance} cannot start partition {number}: {error}")
        for worker in self.workers.values():
            engine = worker.engine
            if engine is None or not hasattr(worker, "member"):
                return f"{worker.instance} has not joined"
            if worker.tickets or worker.restores or worker.results or worker.calls or worker.in_transaction:
                return f"{worker.instance} restores, calls or commits"
            if not engine.idle:
                return f"{worker.instance} is not idle: {engine.statistics()}"
            wakes_at_ms = engine.wakes_at_ms(self.now_ms)
            if wakes_at_ms is not None and wakes_at_ms <= self.now_ms:
                return f"{worker.instance} wants to go on"
            for number in worker.member.owned:
                owned[number] += 1
                for topic in self.input_names:
                    if worker.positions.get((topic, number), -1) < self.bus.end_offset(topic, number):
                        return f"{worker.instance} has not read {topic}/{number}"
        if owned != Counter(range(self.plan.partitions)):
            return f"owned: {owned}"
        return ""

    # -- while it runs ---------------------------------------------------------------------------------------------

    def check_offsets(self, before: dict[tuple[str, int], Snapshot | None]) -> None:
        """What was finished stays finished: no commit may take progress back."""
        for place, earlier in before.items():
            later, _ = self.group.committed(*place)
            if earlier is not None and (later is None or not _covers(later, earlier)):
                raise Broken(f"{place}: committed {earlier}, then {later}")


def _covers(later: Snapshot, earlier: Snapshot) -> bool:
    """Whether all that was finished still is."""
    above = {offset for start, end in later.done for offset in range(start, end)}
    return later.low >= earlier.low and all(
        offset < later.low or offset in above for start, end in earlier.done for offset in range(start, end)
    )


# -- what must be true at the end --------------------------------------------------------------------------------------


class Checks:
    """Reads the log of a world at rest."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.outs = [json.loads(one.value or b"") for one in world.bus.read(OUT, 0, 0)[0]]
        self.dead = world.dead_letters()
        self.decisions = [json.loads(one.value or b"") for one in world.bus.read(DECISIONS, 0, 0)[0]]
        self.inputs = self._inputs()

    def all(self) -> None:
        self.every_input_ends_once()
        self.entities_in_order()
        self.rows_are_the_folds()
        self.timers_once()
        self.timers_in_event_time()
        self.decisions_are_numbered()
        self.offsets_are_at_the_end()
        self.duplicates_have_one_effect()

    def _inputs(self) -> dict[tuple[str, int, int], Sent]:
        world = self.world
        found: dict[tuple[str, int, int], Sent] = {}
        for topic in world.plan.inputs[:-1]:
            for number in range(world.plan.partitions):
                for one in world.bus.read(topic.name, number, 0)[0]:
                    entity: str | None = None
                    if one.key is not None and one.key != b"\xff\xfe":
                        entity = one.key.decode()
                        if murmur2_partition(one.key, world.plan.partitions) != number:
                            entity = None
                    words = tuple((one.value or b"").decode().split())
                    found[topic.name, number, one.offset] = Sent(one, parse_headers(one, topic), entity, words)
        return found

    def every_input_ends_once(self) -> None:
        ends: Counter[tuple[str, int, int]] = Counter()
        for told in (*self.outs, *self.dead):
            if told["source"] is not None:
                ends[tuple(told["source"])] += 1
        for status, _, _, source in self.decisions:
            if status == "duplicate":
                ends[tuple(source)] += 1
        for place, sent in self.inputs.items():
            expected = 1 + self.world.redrives[place]
            if ends[place] != expected:
                raise Broken(f"{place} {sent.entity} {sent.words}: {ends[place]} ends, expected {expected}")
        if set(ends) - set(self.inputs):
            raise Broken(f"ends of input that nobody sent: {set(ends) - set(self.inputs)}")
        letters = {tuple(told["source"]) for told in self.dead if told["source"] is not None}
        for place, sent in self.inputs.items():
            if sent.entity is None and place not in letters:
                raise Broken(f"{place} has an unusable key and is no dead letter")

    def entities_in_order(self) -> None:
        """Outputs of an entity follow its inputs' offsets, except what a person sent again."""
        last: dict[tuple[str, str], int] = {}
        again = {place for place, count in self.world.redrives.items() if count}
        for told in self.outs:
            if told["source"] is None or tuple(told["source"]) in again:
                continue
            topic, _, offset = told["source"]
            if offset <= last.get((told["entity"], topic), -1):
                raise Broken(f"{told['entity']}: {topic} offset {offset} after {last[told['entity'], topic]}")
            last[told["entity"], topic] = offset

    def rows_are_the_folds(self) -> None:
        world = self.world
        rows: dict[str, tuple[int, str, str]] = {}
        for told in self.outs:
            entity = told["entity"]
            count, chain, provenance = rows.get(entity, (0, "", ""))
            if (told["provenance"] or "") != provenance:
                raise Broken(f"{entity}: row before {told['id']} came from {told['provenance']}, not {provenance}")
            if not told["chain"]:
                rows.pop(entity, None)
                continue
            expected = (count + 1, chained(chain, told["id"]), told["id"])
            if (told["count"], told["chain"]) != expected[:2]:
                raise Broken(f"{entity}: {told['id']} counted {told['count']}, expected {expected[0]}")
            rows[entity] = expected
        for number in range(world.plan.partitions):
            state = _State()
            for one in world.bus.read(CHANGELOG, number, 0)[0]:
                state.take(CHANGELOG, one)
            folded = dict(state.store.items())
            expected_rows = {
                entity: row
                for entity, row in rows.items()
                if murmur2_partition(entity.encode(), world.plan.partitions) == number
            }
            unpacked = {
                entity: (*count_and_chain(unpack(packed)[1]), unpack(packed)[0]) for entity, packed in folded.items()
            }
            if unpacked != expected_rows:
                raise Broken(f"changelog {number} holds {unpacked}, expected {expected_rows}")
            owner = next(worker for worker in world.workers.values() if number in worker.member.owned)
            if dict(owner.stores[number].items()) != folded:
                raise Broken(f"store of partition {number} differs from its changelog")

    def timers_once(self) -> None:
        dead = [told["timer"] for told in self.dead if told["timer"] is not None]
        alive: dict[str, str] = {}
        fired: set[str] = set()
        for told in self.outs:
            entity = told["entity"]
            if told["fired"] is not None:
                timer_id = told["fired"][0]
                if timer_id in fired:
                    raise Broken(f"timer {timer_id} of {entity} fired twice")
                fired.add(timer_id)
                if alive.pop(entity, None) != timer_id:
                    raise Broken(f"timer {timer_id} of {entity} fired, but was not set")
            if told["cancel"]:
                alive.pop(entity, None)
            for timer_id, _ in told["set"]:
                alive[entity] = timer_id
        if dead:
            raise Broken(f"timers in dead letters: {dead}")
        if alive:
            raise Broken(f"timers never fired: {alive}")
        state = _State()
        for number in range(self.world.plan.partitions):
            for one in self.world.bus.read(TIMERS, number, 0)[0]:
                state.take(TIMERS, one)
        if state.timers:
            raise Broken(f"timers left in their topic: {state.timers}")

    def timers_in_event_time(self) -> None:
        """No timer fires ahead of an earlier event of its entity, whatever crashed in between."""
        world = self.world
        if not world.plan.single_topic or any("park" in sent.words for sent in self.inputs.values()):
            return
        reached: dict[int, int] = {}
        clock: dict[tuple[str, int, int], int] = {}
        for place, sent in sorted(self.inputs.items(), key=lambda item: item[0]):
            reached[place[1]] = max(reached.get(place[1], 0), sent.envelope.time_ms)
            clock[place] = reached[place[1]]
        fired: dict[str, int] = {}
        for told in self.outs:
            if told["fired"] is not None:
                fired[told["entity"]] = max(fired.get(told["entity"], 0), told["fired"][1])
            elif not world.redrives[tuple(told["source"])]:
                at_ms = fired.get(told["entity"], 0)
                if at_ms > clock[tuple(told["source"])] + EVENT_STEP_MS // 2 - CLOCK_JUMP_MS * 2:
                    raise Broken(f"{told['entity']}: a timer at {at_ms} fired before {told['source']}")

    def decisions_are_numbered(self) -> None:
        last: Counter[str] = Counter()
        for status, entity, sequence, source in self.decisions:
            if not entity or (source is not None and self.inputs[tuple(source)].entity is None):
                continue
            if sequence != last[entity] + 1:
                raise Broken(f"{entity}: decision {sequence} ({status}) after {last[entity]}")
            last[entity] = sequence

    def offsets_are_at_the_end(self) -> None:
        world = self.world
        for topic in world.input_names:
            for number in range(world.plan.partitions):
                snapshot, _ = world.group.committed(topic, number)
                end = world.bus.end_offset(topic, number)
                if snapshot != Snapshot(end, ()):
                    raise Broken(f"{topic}/{number} ends at {end}, committed is {snapshot}")

    def duplicates_have_one_effect(self) -> None:
        world = self.world
        effects: Counter[tuple[str, str]] = Counter()
        for told in self.outs:
            if told["source"] is None:
                continue
            sent = self.inputs[tuple(told["source"])]
            if world._topic(told["source"][0]).dedupe_ms is not None:
                effects[told["entity"], sent.envelope.event_id] += 1
        more = {who: count for who, count in effects.items() if count > 1}
        if more:
            raise Broken(f"events handled more than once: {more}")


def run_world(seed: int, *, mutant: str = "", told: Callable[[str], None] | None = None) -> World:
    world = World(seed, mutant=mutant, told=told)
    try:
        world.run()
    except Exception as error:
        error.add_note(f"replay: python -m tests.kernel.world --seed {seed}")
        raise
    return world


def main(arguments: Iterable[str]) -> int:
    parser = argparse.ArgumentParser(description="Runs simulated worlds.")
    parser.add_argument("--seed", type=int, help="replay one world, step by step")
    parser.add_argument("--seeds", default="0-500", help="first and last, such as 0-20000")
    chosen = parser.parse_args(list(arguments))
    if chosen.seed is not None:
        world = World(chosen.seed, told=lambda line: print(line))  # noqa: T201
        print(world.plan)  # noqa: T201
        world.run()
        return 0
    first, last = map(int, chosen.seeds.split("-"))
    faults: Counter[str] = Counter()
    failed: list[int] = []
    for seed in range(first, last):
        try:
            faults += run_world(seed).faults
        except Exception as error:  # noqa: BLE001 - a runner of tests: it tells and goes on
            failed.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {error}")  # noqa: T201
    print(f"{last - first} worlds, {len(failed)} broken: {failed}; {dict(faults)}")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))


__all__ = ["ALARM", "Broken", "World", "run_world"]
