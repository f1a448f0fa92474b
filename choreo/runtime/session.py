"""One life of the engine's Kafka clients: join, restore, poll, commit; ended by a stop, a fence, or an unknown error.

Everything here runs in the engine thread: the consumer, its rebalance callbacks, the steps; only the end of a
transaction is waited for elsewhere (``committer``), while the next steps run. That one thread serves the callbacks, and
that they wait for the burst under way, is what makes the group metadata trustworthy: librdkafka rejoins a group only
after the application has served the revocation, so between making a burst of owned partitions, reading the metadata and
the burst's end nothing can have moved. A session that meets an error of unknown result is thrown away with all its
memory (crash-only).
"""

from __future__ import annotations

import logging
import queue
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from choreo.errors import ChoreoError, EngineError, FencedSignal, HostError
from choreo.kernel.burst import Burst
from choreo.kernel.engine import Engine, EngineConfig, Refusals
from choreo.kernel.envelope import parse_headers
from choreo.kernel.partitioner import murmur2_partition
from choreo.kernel.restore import Restored
from choreo.kernel.values import Delivery, Headers, InputTopic, Runner
from choreo.runtime.calls import Calls
from choreo.runtime.committer import Committer
from choreo.runtime.facts import ClusterFacts, gone_topics, read_facts, unreachable
from choreo.runtime.group_look import GroupLook
from choreo.runtime.kafka_config import REQUEST_TIMEOUT_S, admin, group_consumer, transactional_producer
from choreo.runtime.records import InternalRecords
from choreo.runtime.references import References
from choreo.runtime.restore import RestoreConfig, Restorer, RestoreResult, Store
from choreo.runtime.topic_watch import TopicWatch
from choreo.runtime.transaction import Ended, Result, Transaction
from choreo.runtime.unowned import Unowned
from choreo.topology import names
from choreo.topology.model import Agent, Topology

POLL_IDLE_S: Final = 0.25
"""Longest wait for input while nothing else is due."""
POLL_BUSY_S: Final = 0.002
"""Wait for input while calls are in flight: their answers do not wake the consumer."""
BATCH: Final = 500
"""Records taken from the consumer at once. They become objects of several kB each: more of them than fit the second
cache of a processor cost more than the calls that they save (46 us an event with 500, 48 with 250, 59 with 2,000)."""
COMMIT_WAIT_S: Final = 0.001
"""Wait for the burst under way when nothing can run; records that arrive are seen this much later."""
COMMIT_LOOK_S: Final = 0.5
"""While a callback waits for the burst under way: how often it is seen whether that still can end."""
REBALANCE_PAUSE_MS: Final = 20
"""Between two attempts to commit while the group rebalances."""
ABORTS_IN_A_ROW_MAX: Final = 5
GROUP_PATIENCE_MS: Final = 30_000
"""Beyond the session timeout: how long the group may take to let this worker in or to take its commits again. A request
to join is answered when all others have joined, so librdkafka waits for it as long as MAX_POLL_INTERVAL_MS. If it is
lost on a connection that stays open and silent, nothing else tells: no heartbeat is sent meanwhile (measured)."""

_TOPIC_GONE: Final = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}

_VALUE: Final = itemgetter(1)
_delivery: Final[Callable[[tuple[Any, ...]], Delivery]] = partial(tuple.__new__, Delivery)
"""As Delivery(*fields), without a call in Python for each record."""

_log = logging.getLogger("choreo.engine")


class UnknownOutcome(Exception):
    """Ends the session: nothing it remembers can be trusted. The next session restores from Kafka."""


class RefusedBurst(UnknownOutcome):
    """Ends the session to find the step whose record the broker refuses; nothing is wrong with the cluster."""


class RunnerFactory(Protocol):
    """Makes the agent's runner once the cluster's facts are known."""

    def __call__(self, facts: ClusterFacts, /) -> Runner: ...


@dataclass(frozen=True, slots=True)
class SessionConfig:
    topology: Topology
    agent: Agent
    bootstrap: str
    instance: str
    state_dir: Path
    session_timeout_ms: int
    make_runner: RunnerFactory

    @property
    def group(self) -> str:
        return names.group(self.topology.name, self.agent.name)

    @property
    def owner(self) -> str:
        return names.transactional_id(self.topology.name, self.agent.name, self.instance)

    @property
    def own_tables(self) -> tuple[str, ...]:
        return tuple(table for table in self.agent.tables if not self.topology.tables[table].reference)

    def internal(self, kind: Callable[[str, str], str]) -> str:
        return kind(self.topology.name, self.agent.name)


class Session:
    """Clients and engine of one life. Use from the engine thread only, except ``status`` reads by ``shell``."""

    def __init__(
        self, config: SessionConfig, calls: Calls, now_ms: Callable[[], int], refusals: Refusals | None = None
    ) -> None:
        self._config = config
        self._calls = calls
        self._now_ms = now_ms
        self._refusals = refusals
        topology, agent = config.topology, config.agent
        self._security = topology.cluster.security
        self._records = InternalRecords()
        self._changelogs = {table: names.changelog(topology.name, agent.name, table) for table in config.own_tables}
        self._journal = config.internal(names.journal)
        self._timers = config.internal(names.timers)
        self._parked = config.internal(names.parked)
        self._inbox = config.internal(names.settled)
        self._facts = self._read_facts()
        self._inputs = self._input_topics()
        self._references = References(
            config.bootstrap,
            self._security,
            {
                table: (name := names.reference(topology.name, table), self._facts.topics[name].partitions)
                for table in agent.tables
                if topology.tables[table].reference
            },
        )
        self.engine = self._make_engine()
        self._stores: dict[int, Mapping[str, Store]] = {}
        self._tickets: dict[int, int] = {}  # partition number -> restore ticket
        self._last_ticket = 0
        self._fetched: set[tuple[str, int]] = set()  # assigned to the consumer: restored, at an explicit offset
        self._paused: set[tuple[str, int]] = set()  # of those
        self._commit_after_ms = 0
        self._aborts_in_a_row = 0
        self._held_back = False  # the last attempt found nothing that could be committed
        self._under_way: Burst | None = None  # produced, its transaction not ended yet
        self._hung = False  # the committer's thread may never come back; it keeps its producer, which is fenced soon
        self._draining = False
        self.stopped: dict[int, ChoreoError] = {}  # partitions that may not start, and why
        self.joined = False
        self._producer, self._transaction = self._make_producer()
        settings = group_consumer(
            config.bootstrap,
            self._security,
            group=config.group,
            instance=config.instance,
            session_timeout_ms=config.session_timeout_ms,
        )
        self._consumer = Consumer({**settings, "on_commit": self._mark_left})
        self._marks: deque[list[TopicPartition]] = deque(maxlen=1)  # to be committed here; a newer one is enough
        self._marking = False  # one is on its way
        self._restorer = self._make_restorer()
        self._committer: Committer[Ended] = Committer("choreo-committer")
        self._references.start()
        watcher = self._admin()
        self._unowned = Unowned(
            GroupLook(config.bootstrap, self._security),
            watcher,
            group=config.group,
            topic=self._inputs[0].name,
            partitions=self._facts.topics[self._inputs[0].name].partitions,
            member_id=self._consumer.memberid,
        )
        self._topic_watch = TopicWatch(
            watcher, {topic.name: self._facts.topic_ids[topic.name] for topic in self._inputs}
        )
        self._outside_since_ms: int | None = None  # while the group has not let this worker in, or refuses its commits
        self._subscribe()

    # -- making --------------------------------------------------------------------------------------------------------

    def _admin(self) -> AdminClient:
        return AdminClient(admin(self._config.bootstrap, self._security))

    def _read_facts(self) -> ClusterFacts:
        topology, agent = self._config.topology, self._config.agent
        wanted = [*agent.reads, *agent.writes, *self._changelogs.values()]
        wanted += [self._journal, self._timers, self._parked, self._inbox]
        wanted.append(self._config.internal(names.dead_letters))
        wanted += [names.reference(topology.name, t) for t in agent.tables if topology.tables[t].reference]
        if agent.audit != "off":
            wanted.append(names.decisions(topology.name))
        facts = read_facts(self._admin(), self._config.bootstrap, wanted)
        count = facts.topics[agent.reads[0]].partitions
        aligned = [*agent.reads, *self._changelogs.values(), self._journal, self._timers, self._parked, self._inbox]
        for name in aligned:
            if facts.topics[name].partitions != count:
                raise EngineError(
                    f"topic {name} has {facts.topics[name].partitions} partitions, "
                    f"but {agent.reads[0]} has {count}; they must be equal",
                    code="CH0805",
                    fault="environment",
                    hint="`choreo plan` shows what differs from the topology",
                )
        return facts

    def _input_topics(self) -> tuple[InputTopic, ...]:
        facts, topology = self._facts, self._config.topology
        inputs = [
            InputTopic(name, topology.topics[name].dedupe_ms, facts.cluster_id, facts.topic_ids[name])
            for name in self._config.agent.reads
        ]
        inputs.append(InputTopic(self._inbox, None, facts.cluster_id, facts.topic_ids[self._inbox], inbox=True))
        return tuple(inputs)

    def _make_engine(self) -> Engine:
        agent, limits = self._config.agent, self._config.agent.limits
        config = EngineConfig(
            inputs=self._inputs,
            partitions=self._facts.topics[agent.reads[0]].partitions,
            owner=self._config.owner,
            facts=self._facts.topics,
            changelogs=self._changelogs,
            parse=parse_headers,
            partition_of=murmur2_partition,
            settlement=self._records.settlement,
            references=self._references.lookup,
            in_flight=limits.in_flight,
            retries=limits.retries,
            retry_backoff_ms=limits.retry_backoff_ms,
            merge_wait_ms=limits.merge_wait_ms,
            sequences=agent.audit != "off",
        )
        return Engine(config, self._config.make_runner(self._facts), self._refusals)

    def _make_producer(self) -> tuple[Producer, Transaction]:
        limits = [fact.message_bytes_max for fact in self._facts.topics.values()]
        settings = transactional_producer(
            self._config.bootstrap,
            self._security,
            transactional_id=self._config.owner,
            batch_bytes=max(min(limits) - 1_000, 1_000),
            message_bytes_max=max(limits),
        )
        producer = Producer(settings, logger=_log)
        try:
            producer.init_transactions(REQUEST_TIMEOUT_S * 3)
        except KafkaException as error:
            if error.args[0].code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED):
                raise FencedSignal from error
            raise unreachable(error.args[0], self._config.bootstrap) from error
        return producer, Transaction(producer)

    def _make_restorer(self) -> Restorer:
        config, tables = self._config, self._config.topology.tables
        return Restorer(
            RestoreConfig(
                config.bootstrap,
                self._security,
                config.group,
                config.owner,
                tuple(topic.name for topic in self._inputs),
                self._changelogs,
                {table: tables[table].store for table in self._changelogs},
                self._journal,
                self._timers,
                self._parked,
                config.agent.start,
                config.state_dir / "tables" / config.group / config.instance,
                self._facts,
            ),
            self._records,
            self._references.wait_ready,
            self._now_ms,
            self._marks.append,
        )

    def _subscribe(self) -> None:
        self._outside_since_ms = self._now_ms()
        self._consumer.subscribe(
            [self._inputs[0].name], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _look_around(self) -> None:
        """What the group and the topics are like, which the consumer is not told (see ``unowned``, ``topic_watch``)."""
        if self._draining:
            return
        for topic in self._topic_watch.gone(self._now_ms()):
            self._stop_partitions_of(topic)
        missing = self._unowned.found(self._now_ms())
        if missing:  # leaving and joining makes the group share them out
            _log.warning("partitions %s of %s belong to nobody: joining again", sorted(missing), self._config.group)
            self._consumer.unsubscribe()
            self._subscribe()

    # -- rebalance callbacks (served by poll and consume, in this thread) ----------------------------------------------

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        self.joined = True
        self._outside_since_ms = None
        self._settle()
        numbers = tuple(tp.partition for tp in assigned if not self.engine.owns(tp.partition))
        consumer.incremental_assign([])  # each is fetched once it is restored, see `_fetch`
        if not numbers:
            return
        self._last_ticket += 1
        for number in numbers:
            self.engine.assign(number)
            self._tickets[number] = self._last_ticket
            self.stopped.pop(number, None)
        _log.info("assigned partitions %s of %s", list(numbers), self._config.group)
        self._restorer.request(self._last_ticket, numbers)

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        self._commit_finished()
        self._give_up(consumer, revoked)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        _log.warning("lost partitions %s of %s", [tp.partition for tp in lost], self._config.group)
        self._settle()
        self._outside_since_ms = self._now_ms()
        self._give_up(consumer, lost)

    def _give_up(self, consumer: Consumer, gone: list[TopicPartition]) -> None:
        numbers = {tp.partition for tp in gone}
        fetched = {(topic, number) for topic, number in self._fetched if number in numbers}
        consumer.incremental_unassign([TopicPartition(topic, number) for topic, number in fetched])
        self._fetched -= fetched
        self._paused -= fetched
        for number in numbers:
            self.stopped.pop(number, None)
        self._forget(numbers)

    def _forget(self, numbers: set[int]) -> None:
        """Drops partitions' memory and closes their stores; the group may still name this worker as their owner."""
        self._settle()
        self.engine.revoke([number for number in numbers if self.engine.owns(number)])
        self._calls.cancel(self.engine.calls_to_cancel())
        self._restorer.forget(numbers)
        for number in numbers:
            self._tickets.pop(number, None)
            for store in self._stores.pop(number, {}).values():
                store.close()

    # -- the loop ------------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """One round: take input, run what can run, commit what is complete.

        Raises:
            FencedSignal: a newer worker has this identity.
            UnknownOutcome: make a new session.
        """
        engine = self.engine
        if self._references.failure is not None:
            raise UnknownOutcome(f"reference tables: {self._references.failure}") from self._references.failure
        self._settle(self._patience_s())
        self._poll()
        self._look_around()
        self._require_group()
        self._take_answers()
        self._leave_mark()
        self._take_restored()
        self._settle(0)
        now_ms = self._now_ms()
        engine.pump(now_ms)
        if not now_ms < self._commit_after_ms <= now_ms + REBALANCE_PAUSE_MS:  # beyond: the clock was set back
            self._commit_soon()
        self._start_calls()
        self._throttle()

    def _leave_mark(self) -> None:
        """Commits what a restore wants to read back. Its thread cannot: a poll under way keeps other threads out."""
        if self._marks and not self._marking:
            self._marking = True  # one at a time: a rebalance waits for all commits that have no answer yet
            self._consumer.commit(offsets=self._marks.popleft(), asynchronous=True)

    def _mark_left(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """The answer. A mark that was refused is missing where the restore looks for it."""
        self._marking = False
        if error is not None:
            _log.info("the group %s took no mark: %s", self._config.group, error.str())

    def _require_group(self) -> None:
        """Starts over when the group does not answer: the request may be lost."""
        since_ms = self._outside_since_ms
        waited_ms = 0 if since_ms is None else self._now_ms() - since_ms
        if waited_ms > self._config.session_timeout_ms + GROUP_PATIENCE_MS:
            raise UnknownOutcome(f"the group {self._config.group} has not let this worker in for {waited_ms} ms")

    def _start_calls(self) -> None:
        """Calls start once the rows they rest on are committed.

        Where finished steps wait for room in the offset map, only the calls can make room: then all of them start.
        """
        self._calls.cancel(self.engine.calls_to_cancel())
        self._calls.start(self.engine.calls_to_start(regardless=self._held_back))

    def _poll(self) -> None:
        message = self._consumer.poll(self._wait_s())
        if message is None:
            return
        deliveries: list[Delivery] = []
        for one in (message, *self._consumer.consume(BATCH, 0)):
            error = one.error()
            if error is None:
                deliveries.append(
                    _delivery(
                        (
                            one.topic(),
                            one.partition(),
                            one.offset(),
                            one.timestamp()[1],
                            one.key(),
                            one.value(),
                            _headers(one.headers()),
                        )
                    )
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                if deliveries:
                    self.engine.deliver(deliveries)
                    deliveries = []
                self.engine.reach_end(one.topic(), one.partition(), one.offset())
            else:
                self._consumer_error(error, one.topic(), one.partition())
        if deliveries:
            self.engine.deliver(deliveries)

    def _consumer_error(self, error: KafkaError, topic: str | None, partition: int | None) -> None:
        code = error.code()
        if error.fatal() or code in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED):
            if "fenced" in error.str().lower():
                self._displaced(error.str())
            raise UnknownOutcome(error.str())
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            number = -1 if partition is None else partition
            self.stopped[number] = EngineError(
                f"the position is outside the log: {error.str()}",
                code="CH0308",
                where=f"{topic}/{number}",
                fault="environment",
                hint="input was deleted before it was read; `choreo agent reset` starts the agent over, with what "
                "the log still holds (`start: earliest`) or with what comes (`start: latest`)",
            )
            _log.error("%s", self.stopped[number])
            self._forget({number})
            return
        if code in _TOPIC_GONE and topic is not None and self._is_gone(topic):
            self._stop_partitions_of(topic)
            return
        if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise EngineError(error.str(), code="CH0805", fault="environment", hint="check the agent's ACLs")
        _log.warning("consumer: %s", error.str())

    def _is_gone(self, topic: str) -> bool:
        """Whether the topic was deleted or made again; the error alone may also mean that its leader is moving."""
        try:
            return bool(gone_topics(self._admin(), {topic: self._facts.topic_ids[topic]}))
        except (KafkaException, TimeoutError) as error:
            raise UnknownOutcome(f"what became of topic {topic}: {error}") from error

    def _stop_partitions_of(self, topic: str) -> None:
        """An input is gone: its partitions stop where they are, and say what is lost."""
        positions = {one.number: one.positions for one in self.engine.statistics().partitions}
        for number in sorted(positions):
            self.stopped[number] = EngineError(
                f"the topic was deleted while it was read, from offset {positions[number].get(topic, 0)} on",
                code="CH0308",
                where=f"{topic}/{number}",
                fault="environment",
                hint="what it still held is lost; make it again with `choreo apply`, then `choreo agent reset`",
            )
            _log.error("%s", self.stopped[number])
        self._forget(set(positions))

    def _displaced(self, why: str) -> NoReturn:
        """The group says that another member has this instance name. Is there one?

        librdkafka says so of itself too, when a session ended while the broker was away and its heartbeat overtakes its
        new join. A newer worker makes its producer before it joins: as long as ours is the newest, there is none.
        """
        self._settle()  # a burst under way has the producer
        if self._transaction.probe(self._journal) is Result.FENCED:
            raise FencedSignal
        raise UnknownOutcome(f"nobody else has this worker's name, joining again after: {why}")

    def _wait_s(self) -> float:
        now_ms = self._now_ms()
        engine = self.engine
        if not self._calls.answers.empty() or not self._restorer.results.empty():
            return 0.0
        if self._under_way is not None:
            return 0.0  # where there is nothing to do, `_settle` has waited
        at_ms = engine.wakes_at_ms(now_ms)
        wait_s = POLL_IDLE_S if at_ms is None else min(max(at_ms - now_ms, 0) / 1000, POLL_IDLE_S)
        if self._commit_after_ms > now_ms:
            wait_s = max(wait_s, 0.002)
        if engine.waiting or self._tickets:
            wait_s = min(wait_s, POLL_BUSY_S)
        return wait_s

    def _take_answers(self) -> None:
        answers = self._calls.answers
        now_ms = self._now_ms()
        for _ in range(answers.qsize()):
            call_id, answer = answers.get()
            self.engine.answer(call_id, answer, now_ms)

    def _take_restored(self) -> None:
        while True:
            try:
                result = self._restorer.results.get_nowait()
            except queue.Empty:
                break
            if isinstance(result, RestoreResult):
                self._take_result(result)
            elif isinstance(result, KafkaException) or (isinstance(result, ChoreoError) and result.code == "CH0801"):
                raise UnknownOutcome(str(result)) from result
            else:
                raise result  # starting over would meet the same again

    def _take_result(self, result: RestoreResult) -> None:
        if self._tickets.get(result.number) != result.ticket:
            for store in result.stores.values():
                store.close()  # lost meanwhile
            return
        del self._tickets[result.number]
        if result.restored is None:
            assert result.error is not None
            self.stopped[result.number] = result.error
            _log.error("partition %d stays stopped: %s", result.number, result.error)
            return
        self._stores[result.number] = result.stores
        self._fetch(result.number, result.restored)

    def _fetch(self, number: int, restored: Restored) -> None:
        """Starts reading a partition where it goes on, always at an explicit offset.

        Never at the end or the beginning with a seek afterwards: librdkafka asks the broker for such a place, and an
        answer that comes after the seek makes it ask again 500 ms later and go there: all records in between are
        skipped without a word (measured on 2.16.1).
        """
        places = [TopicPartition(topic, number, snapshot.low) for topic, snapshot in restored.progress.items()]
        try:
            self._consumer.incremental_assign(places)
            self._consumer.resume(places)  # a pause outlives an assignment
        except KafkaException as error:
            raise UnknownOutcome(f"assignment of partition {number}: {error}") from error
        self._fetched.update((place.topic, number) for place in places)
        self.engine.restored(number, restored)

    def _throttle(self) -> None:
        if self._draining:
            wanted = set(self._fetched)
        else:
            wanted = self.engine.paused()
            wanted.update((topic.name, number) for number in self.stopped for topic in self._inputs)
            wanted &= self._fetched
        if wanted == self._paused:
            return
        pause, resume = wanted - self._paused, self._paused - wanted
        if pause:
            self._consumer.pause([TopicPartition(topic, number) for topic, number in pause])
        if resume:
            self._consumer.resume([TopicPartition(topic, number) for topic, number in resume])
        self._paused = wanted

    # -- commits -------------------------------------------------------------------------------------------------------

    def _commit_soon(self) -> bool:
        """Begins to commit what is finished, unless a burst is under way. True: one is now."""
        if self._under_way is not None:
            return True
        burst = self.engine.take_burst(self._now_ms())
        self._held_back = burst is None
        if burst is None:
            return False
        plain, reported = self._records.produced(
            burst, changelogs=self._changelogs, journal=self._journal, timers=self._timers, parked=self._parked
        )
        ended = self._transaction.begin(plain, reported, self._consumer)
        if ended is not None:
            self._not_committed(burst, ended)
            return False
        self._under_way = burst
        transaction = self._transaction
        self._committer.start(lambda: transaction.finish(burst.offsets))
        return True

    def _settle(self, wait_s: float | None = None) -> bool:
        """Takes the end of the burst under way, waiting for it (None: until it is there). True: it was committed."""
        burst = self._under_way
        if burst is None:
            return False
        self._under_way = None  # whatever is raised here: nobody waits for this burst again
        while (ended := self._committer.result(COMMIT_LOOK_S if wait_s is None else wait_s)) is None:
            if self._transaction.overdue:
                self._hung = True
                raise UnknownOutcome("commit: a call to Kafka's client does not return")
            if wait_s is not None:
                self._under_way = burst
                return False
        if ended.result is not Result.COMMITTED:
            self._not_committed(burst, ended)
            return False
        self._aborts_in_a_row = 0
        self._outside_since_ms = None
        self._apply(burst)
        self.engine.committed(burst, self._now_ms())
        if self._transaction.worn:
            self._renew_producer()
        return True

    def _patience_s(self) -> float:
        """How long to wait for the burst under way before looking for input: not at all while there is work."""
        idle = self._calls.answers.empty() and self._restorer.results.empty() and not self.engine.cut_short
        return COMMIT_WAIT_S if idle else 0

    def _commit_finished(self) -> None:
        """Before partitions are given up: what is finished of them still goes out, if the group lets it."""
        self._settle()
        while self._commit_soon() and self._settle():
            pass

    def _apply(self, burst: Burst) -> None:
        by_store: dict[tuple[int, str], list[tuple[str, bytes | None]]] = {}
        for (number, table, entity), (_, packed) in burst.rows.items():
            by_store.setdefault((number, table), []).append((entity, packed))
        for (number, table), writes in by_store.items():
            end = self._transaction.ends.get((self._changelogs[table], number))
            self._stores[number][table].apply(writes, end, self._now_ms())

    def _not_committed(self, burst: Burst, ended: Ended) -> None:
        """What becomes of a burst that did not commit: one rule for each way."""
        if ended.result is Result.FENCED:
            raise FencedSignal
        if ended.result is Result.REFUSED:
            self.engine.refuse_burst(burst)
            raise RefusedBurst(f"a record was refused: {ended.error}")
        if ended.result in (Result.UNKNOWN, Result.DISPLACED):
            raise UnknownOutcome(f"commit: {ended.error}")
        self.engine.put_back(burst)
        if ended.result is Result.REBALANCING:
            if self._transaction.worn:
                self._renew_producer()
            self._outside_since_ms = self._outside_since_ms or self._now_ms()
            self._commit_after_ms = self._now_ms() + REBALANCE_PAUSE_MS
            return
        if ended.error is not None and ended.error.code() in _TOPIC_GONE:
            for topic in self._inputs:
                if self._is_gone(topic.name):
                    self._stop_partitions_of(topic.name)
        self._aborts_in_a_row += 1
        if self._aborts_in_a_row > ABORTS_IN_A_ROW_MAX:
            raise UnknownOutcome(f"{ABORTS_IN_A_ROW_MAX} aborts in a row: {ended.error}")
        _log.warning("transaction aborted, going again: %s", ended.error)
        self._renew_producer()

    def _renew_producer(self) -> None:
        """A producer with a newer epoch: whatever the one before it still has under way is refused."""
        try:
            self._producer, self._transaction = self._make_producer()
        except HostError as away:
            raise UnknownOutcome(str(away)) from away

    # -- end -----------------------------------------------------------------------------------------------------------

    def drain_turn(self) -> bool:
        """A turn of an orderly stop: takes no new input. True when nothing is left to finish."""
        if not self._draining:
            self._draining = True
            self.engine.drain()
            self._throttle()
        self.turn()
        return self.engine.settled and self._under_way is None

    def close(self, *, orderly: bool) -> None:
        """Ends the clients. Not orderly: whatever is uncommitted is dropped and left to the next session."""
        if not orderly:
            self.engine.reset()
            self._calls.cancel(self.engine.calls_to_cancel())
        self._restorer.stop()
        self._references.stop()
        self._unowned.stop()
        self._topic_watch.stop()
        try:
            self._consumer.close()
        finally:
            if self._hung:
                self._committer.abandon()
            else:
                self._committer.close()  # after the consumer: its last revocation may still commit
            self._discard_late_results()
            for stores in self._stores.values():
                for store in stores.values():
                    store.close()
            self._stores.clear()

    def _discard_late_results(self) -> None:
        while True:
            try:
                result = self._restorer.results.get_nowait()
            except queue.Empty:
                return
            if isinstance(result, RestoreResult):
                for store in result.stores.values():
                    store.close()

    # -- for status ----------------------------------------------------------------------------------------------------

    def restoring(self) -> Mapping[int, tuple[int, int]]:
        """Partition number to (rows read, topics left)."""
        return dict(self._restorer.progress)

    @property
    def ready(self) -> bool:
        return self.joined and not self._tickets and not self.stopped


def _headers(headers: list[tuple[str, Any]] | None) -> Headers:
    if not headers:
        return ()
    if all(map(_VALUE, headers)):  # nearly always; the loop below costs three times as much
        return headers
    return [(name, b"" if value is None else value) for name, value in headers]
