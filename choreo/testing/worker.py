"""One agent in process: the same engine and the same runner as live, on a bus in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from choreo.agent.bindings import Bindings
from choreo.agent.runner import AgentRunner
from choreo.kernel.burst import Burst
from choreo.kernel.engine import Engine, EngineConfig, EngineStatistics
from choreo.kernel.envelope import parse_headers
from choreo.kernel.packed import unpack
from choreo.kernel.partitioner import murmur2_partition
from choreo.kernel.progress import Snapshot
from choreo.kernel.restore import Restored
from choreo.kernel.values import Answer, Call, InputTopic, TopicFacts
from choreo.runtime.classify import classify, guard
from choreo.runtime.records import InternalRecords
from choreo.runtime.stores.memory import MemoryStore
from choreo.testing.bus import Committed, MemoryBus
from choreo.topology import names

MESSAGE_BYTES_MAX: Final = 1_048_576
DEAD_LETTER_ROOM_BYTES: Final = 64 * 1024
INTERNAL: Final = (names.journal, names.timers, names.parked, names.dead_letters, names.settled)

References = Callable[[str, str], tuple[bytes, int] | None]


class MemoryWorker:
    """Engine, stores and positions of one agent that owns all its partitions.

    Args:
        bindings: the agent.
        bus: where its topics are; internal ones are made.
        references: rows of reference tables.
        answer: carries out a tool call.
    """

    def __init__(
        self, bindings: Bindings, bus: MemoryBus, references: References, answer: Callable[[Call], Answer]
    ) -> None:
        topology, agent = bindings.topology, bindings.agent
        self.bindings = bindings
        self.name = agent.name
        self._bus = bus
        self._answer = answer
        self._count = topology.partitions_of(agent.name)
        own = [name for name in agent.tables if not topology.tables[name].reference]
        self._changelogs = {name: names.changelog(topology.name, agent.name, name) for name in own}
        self._group = names.group(topology.name, agent.name)
        self._records = InternalRecords()
        inbox = names.settled(topology.name, agent.name)
        for topic in (*self._changelogs.values(), *(kind(topology.name, agent.name) for kind in INTERNAL)):
            bus.create_topic(topic, self._count)
        self._inputs = [
            InputTopic(name, topology.topics[name].dedupe_ms, bus.cluster_id, bus.topic_id(name))
            for name in agent.reads
        ]
        self._inputs.append(InputTopic(inbox, None, bus.cluster_id, bus.topic_id(inbox), inbox=True))
        facts = self._facts()
        owner = names.transactional_id(topology.name, agent.name, "test")
        limits = agent.limits
        self.engine = Engine(
            EngineConfig(
                inputs=tuple(self._inputs),
                partitions=self._count,
                owner=owner,
                facts=facts,
                changelogs=self._changelogs,
                parse=parse_headers,
                partition_of=murmur2_partition,
                settlement=self._records.settlement,
                references=references,
                in_flight=limits.in_flight,
                retries=limits.retries,
                retry_backoff_ms=limits.retry_backoff_ms,
                merge_wait_ms=limits.merge_wait_ms,
                sequences=agent.audit != "off",
            ),
            AgentRunner(bindings, guard=guard, classify=classify, facts=facts),
        )
        self._producer = bus.producer(owner)
        self._stores: dict[tuple[int, str], MemoryStore] = {}
        self._positions: dict[tuple[str, int], int] = {}
        for number in range(self._count):
            self._assign(number)

    def _facts(self) -> dict[str, TopicFacts]:
        topology, agent = self.bindings.topology, self.bindings.agent
        sizes = [topology.topics[name].message_bytes_max for name in agent.reads]
        facts = {name: TopicFacts(count, MESSAGE_BYTES_MAX) for name, count in self._bus.topics.items()}
        for name in agent.writes:
            facts[name] = TopicFacts(facts[name].partitions, topology.topics[name].message_bytes_max)
        dead_letters = names.dead_letters(topology.name, agent.name)
        largest = max(sizes, default=MESSAGE_BYTES_MAX)
        facts[dead_letters] = TopicFacts(self._count, largest + DEAD_LETTER_ROOM_BYTES)
        return facts

    def _assign(self, number: int) -> None:
        stores: dict[str, MemoryStore] = {}
        for table in self._changelogs:
            stores[table] = self._stores[number, table] = MemoryStore()
        progress = {topic.name: Snapshot(0, ()) for topic in self._inputs}
        self.engine.assign(number)
        self.engine.restored(number, Restored(progress, -1, 0, {}, [], [], stores))

    def turn(self, now_ms: int) -> bool:
        """Takes what is there, runs what can run, commits what is finished. False: there was nothing to do."""
        busy = self._fetch()
        busy = self.engine.pump(now_ms) > 0 or busy
        while calls := self.engine.calls_to_start():
            for call_id, call in calls:
                self.engine.answer(call_id, self._answer(call), now_ms)
            self.engine.pump(now_ms)
        while (burst := self.engine.take_burst(now_ms)) is not None:
            self._commit(burst, now_ms)
            busy = busy or bool(burst.steps)
        return busy

    def wakes_at_ms(self, now_ms: int) -> int | None:
        """When something becomes due without new input: a timer, or another attempt of a failing step."""
        return self.engine.wakes_at_ms(now_ms)

    def row(self, table: str, entity: str) -> bytes | None:
        """A committed row."""
        number = murmur2_partition(entity.encode(), self._count)
        packed = self._stores[number, table].get(entity)
        return None if packed is None else unpack(packed)[1]

    def rows(self, table: str) -> Mapping[str, bytes]:
        """All committed rows of a table, by entity."""
        found: dict[str, bytes] = {}
        for number in range(self._count):
            for entity, packed in self._stores[number, table].items():
                found[entity] = unpack(packed)[1]
        return dict(sorted(found.items()))

    @property
    def statistics(self) -> EngineStatistics:
        """The engine's counts."""
        return self.engine.statistics()

    def _fetch(self) -> bool:
        busy = False
        paused = self.engine.paused()
        for topic in self._inputs:
            for number in range(self._count):
                at = (topic.name, number)
                if at in paused:
                    continue
                deliveries, position = self._bus.read(topic.name, number, self._positions.get(at, 0))
                self._positions[at] = position
                if deliveries:
                    self.engine.deliver(deliveries)
                    busy = True
                self.engine.reach_end(topic.name, number, position)
        return busy

    def _commit(self, burst: Burst, now_ms: int) -> None:
        topology, agent = self.bindings.topology.name, self.name
        plain, rows = self._records.produced(
            burst,
            changelogs=self._changelogs,
            journal=names.journal(topology, agent),
            timers=names.timers(topology, agent),
            parked=names.parked(topology, agent),
        )
        producer = self._producer
        producer.begin()
        for record in (*plain, *rows):
            producer.send(record, now_ms)
        producer.send_offsets(
            self._group,
            {(one.topic, one.partition): Committed(one.offset, one.metadata) for one in burst.offsets},
        )
        producer.commit()
        for (number, table, entity), (_, packed) in burst.rows.items():
            self._stores[number, table].apply([(entity, packed)], None, now_ms)
        self.engine.committed(burst, now_ms)
