"""One worker of a simulated world: what ``choreo/runtime/session.py`` and ``restore.py`` do, as generators.

A generator yields wherever a crash, a pause or another worker may come in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from choreo.errors import EngineError, FencedSignal
from choreo.kernel.burst import Burst
from choreo.kernel.engine import Engine, Refusals
from choreo.kernel.envelope import row_provenance
from choreo.kernel.packed import pack
from choreo.kernel.progress import Snapshot
from choreo.kernel.restore import Ends, Restored, starting_point
from choreo.kernel.values import Answer, Checkpoint, Delivery, EntityState, ParkedRow, TimerRow
from choreo.runtime.records import InternalRecords
from choreo.runtime.stores.memory import MemoryStore
from tests.kernel.fakes import CHANGELOG, REJECTED, TABLE

if TYPE_CHECKING:
    from tests.kernel.world import World

JOURNAL: Final = "journal"
TIMERS: Final = "timers"
PARKED: Final = "parked"
REBALANCE_PAUSE_MS: Final = 20
PATIENCE: Final = 10
"""Resumptions a restore waits before it ends a predecessor's transaction."""
RECORDS: Final = InternalRecords()

Thread = Generator[None, None, Any]


class UnknownOutcome(Exception):
    """As in the session: it starts over from the log."""


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
            if not world.now_ms < self.commit_after_ms <= world.now_ms + REBALANCE_PAUSE_MS:
                yield from self._commit_once()
            for call_id in engine.calls_to_cancel():
                self.calls.pop(call_id, None)
            if not engine.uncommitted:
                self.calls.update(engine.calls_to_start())
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
        if "ends before offsets" in world.mutant:
            ends = self._ends(numbers)
            yield
            committed, owners = yield from self._committed(numbers)
        else:
            committed, owners = yield from self._committed(numbers)
            yield
            ends = self._ends(numbers)
        yield
        state = {number: State() for number in numbers}
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

    def _assembled(self, number: int, state: State, committed: dict[tuple[str, int], Snapshot | None]) -> Restored:
        world = self.world
        event_time_ms, seen_at_ms = -1, 0
        progress: dict[str, Snapshot] = {}
        for topic in world.input_names:
            checkpoint = state.checkpoints.get(topic)
            if checkpoint is not None and checkpoint.event_time_ms > event_time_ms:
                event_time_ms, seen_at_ms = checkpoint.event_time_ms, checkpoint.seen_at_ms
            ends = Ends(0, world.bus.end_offset(topic, number))
            progress[topic] = starting_point(
                f"{topic}/{number}", committed[topic, number], checkpoint, ends, "earliest", world.topic(topic).topic_id
            )
        world.note("restored", f"{self.instance} {number} from {progress}")
        timers, parked = list(state.timers.values()), list(state.parked.values())
        return Restored(progress, event_time_ms, seen_at_ms, state.entities, timers, parked, {TABLE: state.store})

    def _committed(self, numbers: tuple[int, ...]) -> Thread:
        world, group = self.world, self.world.group
        wanted = [(topic, number) for topic in world.input_names for number in numbers]
        waited = 0
        while any(group.unstable(*one) for one in wanted) and "unstable offsets" not in world.mutant:
            waited += 1
            if waited == PATIENCE:
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
        if "ends of read_committed" in self.world.mutant:
            return {(topic, number): bus.read(topic, number, 0)[1] for topic in topics for number in numbers}
        return {(topic, number): bus.end_offset(topic, number) for topic in topics for number in numbers}

    def _read(self, state: State, topic: str, number: int, end: int, owners: set[str]) -> Thread:
        position, waited = 0, 0
        while position < end:
            found, position = self.world.bus.read(topic, number, position)
            for one in found:
                if one.offset < end:  # what came later need not have been there yet
                    state.take(topic, one)
            if position < end:
                waited += 1
                if waited == PATIENCE:
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
            if "unknown is aborted" not in world.mutant:
                raise UnknownOutcome(ended)
            self.producer = world.bus.producer(self.owner)
        engine.put_back(burst)
        if ended == "rebalancing":
            self.commit_after_ms = world.now_ms + REBALANCE_PAUSE_MS
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
        late = records if "offsets before records" in world.mutant else []
        producer.begin()
        yield
        if any(record.value == REJECTED for record in records):
            producer.abort()
            return "rejected"
        if not late:
            for record in records:
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
class State:
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
