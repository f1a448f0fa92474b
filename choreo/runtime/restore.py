"""Reads a partition's state back from Kafka, on a thread of its own, in the one order that is safe.

(a) the group's *stable* offsets, (b) the logs' ends including what is not committed yet, (c) everything up to those
ends at read_committed. The other way round loses rows to a zombie: it may still commit between the two reads. (a) and
(b) are not taken from whoever answers, see ``barrier``.

Waiting for (a) or (c) longer than ``BLOCKED_S`` means that a dead worker left a transaction open. Its transactional id
stands in the last committed metadata; ``init_transactions`` on that id ends it at once instead of after its timeout.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from choreo.errors import ChoreoError, EngineError, HostError
from choreo.kernel.progress import Snapshot, decode_metadata
from choreo.kernel.restore import Ends, Restored, starting_point
from choreo.kernel.values import Checkpoint, EntityState, ParkedRow, TimerRow
from choreo.runtime.barrier import AGAIN_S, Commit, Mark, written_ends
from choreo.runtime.carry import Carried
from choreo.runtime.facts import ClusterFacts, unreachable
from choreo.runtime.group_look import Asked, GroupLook
from choreo.runtime.group_offsets import GroupOffsets
from choreo.runtime.kafka_config import REQUEST_TIMEOUT_S, reader, transactional_producer
from choreo.runtime.log_ends import log_ends
from choreo.runtime.records import InternalRecords
from choreo.runtime.stores.memory import MemoryStore
from choreo.runtime.stores.rocksdb import RocksStore
from choreo.topology import names

BLOCKED_S: Final = 0.5
"""After this long an open transaction of a predecessor is taken for abandoned (its session has ended already)."""
BEHIND_S: Final = 10.0
"""How long a broker may go on answering what it knew before it lost its partitions: its session with the controller."""
BARRIER_TIMEOUT_MS: Final = 5_000
"""Of the transaction in which a restore writes what nobody reads."""
_BARRIER_TIMEOUTS: Final = ("transaction.timeout.ms", "message.timeout.ms", "socket.timeout.ms")
"""librdkafka wants none of the others to be longer than the transaction's."""
BARRIER_S: Final = 30.0
"""How long a restore tries to write it: a partition whose leader died has another one after nine seconds or so."""
READ_BATCH: Final = 250
"""Small, so that messages die young: with 10,000 at a time half of a restore's time was garbage collection."""
RESTORE_TIMEOUT_S: Final = 300.0
"""Without any progress for this long a restore gives up and the worker starts over."""

_log = logging.getLogger("choreo.engine")


class Store(Protocol):
    """Committed rows of one table and partition."""

    def get(self, entity: str, /) -> bytes | None: ...
    def apply(self, writes: Any, next_offset: int | None, at_ms: int | None) -> None: ...
    def position(self) -> int | None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RestoreConfig:
    bootstrap: str
    security: Mapping[str, str]
    group: str
    owner: str
    inputs: tuple[str, ...]
    changelogs: Mapping[str, str]  # table -> topic
    stores: Mapping[str, str]  # table -> memory | rocksdb
    journal: str
    timers: str
    parked: str
    start: Any  # earliest | latest
    state_dir: Path
    facts: ClusterFacts


@dataclass(slots=True)
class _Building:
    """One partition number while it is read back."""

    number: int
    stores: dict[str, Store] = field(default_factory=dict)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    entities: dict[str, EntityState] = field(default_factory=dict)
    timers: dict[bytes, TimerRow] = field(default_factory=dict)
    parked: dict[bytes, ParkedRow] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)  # topics not read to their end
    rows: int = 0


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """A partition that is ready, or why it is not."""

    number: int
    ticket: int
    restored: Restored | None
    stores: Mapping[str, Store]
    error: ChoreoError | None
    rows_read: int = 0


class Restorer:
    """Restores partitions one request at a time; results arrive on ``results``."""

    def __init__(
        self,
        config: RestoreConfig,
        records: InternalRecords,
        ready: Callable[[float], bool],
        now_ms: Callable[[], int],
        commit: Commit,
    ) -> None:
        self._config = config
        self._commit = commit
        self._records = records
        self._references_ready = ready
        self._now_ms = now_ms
        self._groups: Asked = GroupLook(config.bootstrap, config.security)
        self._requests: queue.SimpleQueue[tuple[int, tuple[int, ...]] | None] = queue.SimpleQueue()
        self._wanted: dict[int, int] = {}  # partition -> the ticket it is restored for
        self._handing_over = threading.Lock()  # around what `_wanted` says and what stands in `results`
        self._stopping = threading.Event()
        self.results: queue.SimpleQueue[RestoreResult | BaseException] = queue.SimpleQueue()
        self.progress: dict[int, tuple[int, int]] = {}  # partition -> (rows read, topics left)
        self._thread = threading.Thread(target=self._run, name="choreo-restore", daemon=True)
        self._thread.start()

    def request(self, ticket: int, numbers: tuple[int, ...]) -> None:
        with self._handing_over:
            self._wanted.update(dict.fromkeys(numbers, ticket))
        self._requests.put((ticket, numbers))

    def forget(self, numbers: Iterable[int]) -> None:
        """Partitions were lost. Their stores are closed before another restore may open the files: those of results
        that wait are closed here, those of the restore under way by its thread.
        """
        with self._handing_over:
            for number in numbers:
                self._wanted.pop(number, None)
            for _ in range(self.results.qsize()):
                result = self.results.get_nowait()
                if isinstance(result, RestoreResult) and self._wanted.get(result.number) != result.ticket:
                    _close(result.stores)
                else:
                    self.results.put(result)

    def _hand_over(self, result: RestoreResult) -> None:
        with self._handing_over:
            if self._wanted.get(result.number) == result.ticket:
                self.results.put(result)
            else:
                _close(result.stores)

    def _is_wanted(self, ticket: int) -> bool:
        with self._handing_over:
            return not self._stopping.is_set() and ticket in self._wanted.values()

    def stop(self) -> None:
        """Ends the thread; a restore under way is given up and its stores are closed."""
        self._stopping.set()
        self._requests.put(None)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        with Carried(self.results.put):  # raised again in the engine thread
            while not self._stopping.is_set():
                request = self._requests.get()
                if request is None:
                    return
                self._restore(*request)

    def _restore(self, ticket: int, numbers: tuple[int, ...]) -> None:
        if not self._is_wanted(ticket):
            return
        is_wanted = partial(self._is_wanted, ticket)
        known = self._committed(ticket, numbers)
        if known is None:
            return
        committed, owners = known
        buildings = {number: _Building(number) for number in numbers}
        state_ends = self._state_ends(numbers, is_wanted)
        if state_ends is None:
            return
        ends = {**state_ends, **self._input_ends(numbers, committed)}
        log_starts = self._log_starts(numbers)
        while not self._references_ready(0.2):
            if not is_wanted():
                return
        left = dict(buildings)  # not handed over yet

        def finish(building: _Building) -> None:
            """Hands a partition over as soon as it is ready: it does not wait for one that is held up."""
            del left[building.number]
            try:
                restored = self._assembled(building, committed, ends, log_starts)
            except EngineError as error:
                _close(building.stores)
                self._hand_over(RestoreResult(building.number, ticket, None, {}, error, building.rows))
            else:
                _log.info("restored partition %d of %s: %d rows", building.number, self._config.group, building.rows)
                self._hand_over(RestoreResult(building.number, ticket, restored, building.stores, None, building.rows))
            self.progress.pop(building.number, None)

        try:
            self._read(buildings, ends, owners, finish, is_wanted)
        finally:
            for building in left.values():  # stopped, or an error on the way
                _close(building.stores)
                self.progress.pop(building.number, None)

    # -- (a) the group's offsets ---------------------------------------------------------------------------------------

    def _committed(
        self, ticket: int, numbers: tuple[int, ...]
    ) -> tuple[dict[tuple[str, int], Snapshot | EngineError | None], dict[int, set[str]]] | None:
        """Where the group is, and who was there last; None: the restore is given up."""
        wanted = [TopicPartition(topic, number) for topic in self._config.inputs for number in numbers]
        places = [TopicPartition(self._config.journal, number) for number in numbers]
        mark = Mark(places, f"{self._config.owner} {ticket} {self._now_ms()}")
        found = self._stable_offsets(wanted, mark, partial(self._is_wanted, ticket))
        if found is None:
            return None
        committed: dict[tuple[str, int], Snapshot | EngineError | None] = {}
        owners: dict[int, set[str]] = {}
        for tp in found:
            if tp.offset < 0:
                committed[tp.topic, tp.partition] = None
                continue
            try:
                snapshot, owner = decode_metadata(tp.offset, tp.metadata or "")
            except EngineError as unreadable:  # stops this partition alone
                committed[tp.topic, tp.partition] = unreadable
            else:
                committed[tp.topic, tp.partition] = snapshot
                owners.setdefault(tp.partition, set()).add(owner)
        return committed, owners

    def _stable_offsets(
        self, wanted: list[TopicPartition], mark: Mark, is_wanted: Callable[[], bool]
    ) -> list[Any] | None:
        """The group's offsets once no transaction may change them; None: the restore is given up.

        An answer that lacks the mark comes from a broker that is behind, or the group did not take the mark yet, or
        another worker that does not know yet that it lost these partitions left its own there: the mark is left again.

        Offsets that are not stable get no answer within ``BLOCKED_S``. So does a broker that is slow; only if it did
        answer what the offsets are without that transaction, its owner is taken for dead.
        """
        started = time.monotonic()
        owners: set[str] | None = None
        fenced = False
        client = self._group_client(stable=True)
        try:
            mark.leave(self._commit)
            while is_wanted():
                found = client.ask([*wanted, *mark.places], BLOCKED_S)
                if found is not None and mark.stands_in(found[len(wanted) :]):
                    return found[: len(wanted)]
                if found is not None:
                    _log.info("an answer about group %s lacks what was just written; asking again", self._config.group)
                    self._stopping.wait(AGAIN_S)
                    mark.leave(self._commit)
                elif owners is None:
                    owners = self._owners_while_unstable(wanted)
                elif not fenced:
                    fenced = self._end_transactions(owners)
                if time.monotonic() - started > RESTORE_TIMEOUT_S:
                    raise HostError("the group's offsets do not become stable", code="CH0801")
            return None
        finally:
            client.close()

    def _owners_while_unstable(self, wanted: list[TopicPartition]) -> set[str]:
        client = self._group_client(stable=False)
        try:
            found = client.ask(wanted, REQUEST_TIMEOUT_S)
        finally:
            client.close()
        if found is None:
            raise unreachable("no answer in time", self._config.bootstrap)
        return self._owners_of(found)

    def _group_client(self, *, stable: bool) -> GroupOffsets:
        config = self._config
        return GroupOffsets(config.bootstrap, config.security, config.group, stable=stable, wait=self._stopping.wait)

    def _owners_of(self, found: list[Any]) -> set[str]:
        owners: set[str] = set()
        for tp in found:
            if tp.offset >= 0:
                try:
                    owners.add(decode_metadata(tp.offset, tp.metadata or "")[1])
                except EngineError as unreadable:
                    _log.warning("cannot tell who owned %s/%d: %s", tp.topic, tp.partition, unreadable)
        return owners - {""}

    def _end_transactions(self, owners: set[str]) -> bool:
        """Ends what dead owners left open. A live member of the group is none of them: it ended its transactions before
        it gave a partition up, so that what is open there is somebody else's, and fencing it would cost a worker.

        Returns:
            False: the group did not say who lives; to be tried again.
        """
        try:
            members = self._groups.look(self._config.group, REQUEST_TIMEOUT_S).members
        except KafkaException as error:
            _log.warning("the group %s does not say who is in it: %s", self._config.group, error.args[0].str())
            return False
        live = {names.owner(self._config.group, member.instance) for member in members}
        if self._config.owner not in live:  # this worker is a member: whoever answers does not know the group
            _log.warning("the group %s is said to be without this worker", self._config.group)
            return False
        for owner in owners - {"", self._config.owner} - live:
            producer = Producer(
                transactional_producer(self._config.bootstrap, self._config.security, transactional_id=owner)
            )
            try:
                producer.init_transactions(REQUEST_TIMEOUT_S)
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise  # a retriable one is only slower: the transaction ends at its timeout
        return True

    # -- (b) the ends --------------------------------------------------------------------------------------------------

    def _state_topics(self) -> list[str]:
        config = self._config
        return [*config.changelogs.values(), config.journal, config.timers, config.parked]

    def _state_ends(self, numbers: tuple[int, ...], is_wanted: Callable[[], bool]) -> dict[tuple[str, int], int] | None:
        """Where state topics end; None: the restore is given up."""
        config = self._config
        settings = transactional_producer(config.bootstrap, config.security, transactional_id=f"{config.owner}:restore")
        # A worker that dies in these milliseconds holds up whoever is next until the coordinator notices.
        settings.update(dict.fromkeys(_BARRIER_TIMEOUTS, BARRIER_TIMEOUT_MS))
        places = [(topic, number) for topic in self._state_topics() for number in numbers]
        deadline = time.monotonic() + BARRIER_S
        while is_wanted():
            try:
                return written_ends(settings, config.bootstrap, places, Producer)
            except HostError as away:
                if time.monotonic() > deadline:
                    raise
                _log.warning("cannot write to the state topics of %s yet, trying again: %s", config.group, away)
            self._stopping.wait(AGAIN_S)
        return None

    def _input_ends(
        self, numbers: tuple[int, ...], committed: Mapping[tuple[str, int], Snapshot | EngineError | None]
    ) -> dict[tuple[str, int], int]:
        """Where inputs end. An end before what was finished may be an old answer: it is asked for again for a while."""
        tops = {place: known.top for place, known in committed.items() if isinstance(known, Snapshot)}
        deadline = time.monotonic() + BEHIND_S
        while True:
            ends = self._offsets(self._config.inputs, numbers, OffsetSpec.latest())
            behind = any(ends[place] < top for place, top in tops.items())
            if not behind or time.monotonic() > deadline or self._stopping.wait(AGAIN_S):
                return ends

    def _log_starts(self, numbers: tuple[int, ...]) -> dict[tuple[str, int], int]:
        return self._offsets(self._config.inputs, numbers, OffsetSpec.earliest())

    def _offsets(
        self, topics: Iterable[str], numbers: tuple[int, ...], which: OffsetSpec
    ) -> dict[tuple[str, int], int]:
        places = [(topic, number) for topic in topics for number in numbers]
        return log_ends(self._config.bootstrap, self._config.security, places, which)

    # -- (c) the state -------------------------------------------------------------------------------------------------

    def _read(
        self,
        buildings: Mapping[int, _Building],
        ends: Mapping[tuple[str, int], int],
        owners: Mapping[int, set[str]],
        finish: Callable[[_Building], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        assignment = [tp for building in buildings.values() for tp in self._prepare(building, ends)]
        for building in buildings.values():
            if not building.pending:
                finish(building)
        if not assignment:
            return
        table_of = {topic: table for table, topic in self._config.changelogs.items()}
        consumer = Consumer(reader(self._config.bootstrap, self._config.security))
        try:
            consumer.assign(assignment)
            left = len(assignment)
            moved = time.monotonic()
            fenced = False
            while left and is_wanted():
                first = consumer.poll(0.1)
                if first is None:
                    quiet_s = time.monotonic() - moved
                    if quiet_s > BLOCKED_S and not fenced:
                        blocked = [number for number, building in buildings.items() if building.pending]
                        fenced = self._end_transactions(
                            {owner for number in blocked for owner in owners.get(number, ())}
                        )
                    if quiet_s > RESTORE_TIMEOUT_S:
                        raise HostError("a restore makes no progress", code="CH0801")
                    continue
                batches: dict[tuple[str, int], list[Any]] = {}
                for message in (first, *consumer.consume(READ_BATCH, 0)):
                    error = message.error()
                    key = (message.topic(), message.partition())
                    if error is None:
                        batches.setdefault(key, []).append(message)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        building = buildings[key[1]]
                        if message.offset() >= ends[key] and key[0] in building.pending:
                            self._take(building, table_of, key[0], batches.pop(key, []))
                            if key[0] in table_of:
                                store = building.stores[table_of[key[0]]]
                                store.apply((), message.offset(), self._now_ms())
                            building.pending.discard(key[0])
                            # what a partition writes that runs already must not hide that another is held up
                            consumer.pause([TopicPartition(*key)])
                            left -= 1
                            self.progress[key[1]] = (building.rows, len(building.pending))
                            if not building.pending:
                                finish(building)
                    elif error.fatal() or not error.retriable():
                        raise KafkaException(error)
                for (topic, number), messages in batches.items():
                    moved = time.monotonic()
                    building = buildings[number]
                    if topic not in building.pending:
                        continue  # beyond the end that was asked for, and the partition may run already
                    self._take(building, table_of, topic, messages)
                    self.progress[number] = (building.rows, len(building.pending))
        finally:
            consumer.close()

    def _prepare(self, building: _Building, ends: Mapping[tuple[str, int], int]) -> list[TopicPartition]:
        """Opens the stores and says what has to be read."""
        number, config = building.number, self._config
        assignment: list[TopicPartition] = []
        for table, topic in config.changelogs.items():
            store = self._open_store(table, topic, number, ends[topic, number])
            building.stores[table] = store
            start = store.position() or 0
            if start < ends[topic, number]:
                assignment.append(TopicPartition(topic, number, start))
        for topic in (config.journal, config.timers, config.parked):
            if ends[topic, number]:
                assignment.append(TopicPartition(topic, number, 0))
        building.pending = {tp.topic for tp in assignment}
        self.progress[number] = (0, len(building.pending))
        return assignment

    def _open_store(self, table: str, topic: str, number: int, log_end: int) -> Store:
        if self._config.stores[table] == "memory":
            return MemoryStore()
        return RocksStore(
            self._config.state_dir / table / str(number),
            topic_id=self._config.facts.topic_ids[topic],
            log_end=log_end,
            tombstones_kept_ms=self._config.facts.tombstones_kept_ms[topic],
            now_ms=self._now_ms(),
        )

    def _take(self, building: _Building, table_of: Mapping[str, str], topic: str, messages: list[Any]) -> None:
        if not messages:
            return
        building.rows += len(messages)
        table = table_of.get(topic)
        records = self._records
        if table is not None:
            building.stores[table].apply(records.packed_rows(messages), messages[-1].offset() + 1, None)
        elif topic == self._config.journal:
            for message in messages:
                entry = records.journal_entry(message.key(), message.value())
                if isinstance(entry, Checkpoint):
                    building.checkpoints[entry.topic] = entry
                else:
                    entity, state = entry
                    building.entities[entity] = state
        else:
            self._take_rows(building.timers if topic == self._config.timers else building.parked, topic, messages)

    def _take_rows(self, rows: dict[bytes, Any], topic: str, messages: list[Any]) -> None:
        decode = self._records.timer if topic == self._config.timers else self._records.parked
        for message in messages:
            if message.value() is None:
                rows.pop(message.key(), None)
            else:
                rows[message.key()] = decode(message.value())

    def _assembled(
        self,
        building: _Building,
        committed: Mapping[tuple[str, int], Snapshot | EngineError | None],
        ends: Mapping[tuple[str, int], int],
        log_starts: Mapping[tuple[str, int], int],
    ) -> Restored:
        progress: dict[str, Snapshot] = {}
        event_time_ms, seen_at_ms = -1, 0
        for topic in self._config.inputs:
            key = (topic, building.number)
            place = committed[key]
            if isinstance(place, EngineError):
                raise place
            checkpoint = building.checkpoints.get(topic)
            if checkpoint is not None and checkpoint.event_time_ms > event_time_ms:
                event_time_ms, seen_at_ms = checkpoint.event_time_ms, checkpoint.seen_at_ms
            progress[topic] = starting_point(
                f"{topic}/{building.number}",
                place,
                checkpoint,
                Ends(log_starts[key], ends[key]),
                self._config.start,
                self._config.facts.topic_ids[topic],
            )
        return Restored(
            progress,
            event_time_ms,
            seen_at_ms,
            building.entities,
            list(building.timers.values()),
            list(building.parked.values()),
            building.stores,
        )


def _close(stores: Mapping[str, Store]) -> None:
    for store in stores.values():
        store.close()
