"""Reads topics at ``read_committed`` with confluent-kafka alone, while a run goes on or after it."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from choreo.testing.checkers import Change, Input, Output
from tests.chaos.feeder import SHOW
from tests.chaos.wire import Wire, builtin

# Brokers that restart, transactions that hang until their timeout: a reader is patient, a test has its own limit.
READ_TIMEOUT_S = 60.0
ERRORS_KEPT = 20
SILENT_S = 15.0
"""After so long without a word a follower reads on with a new client. One was seen to stand still for ever."""


class Found(NamedTuple):
    """One record as a consumer got it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]

    @property
    def text_key(self) -> str:
        assert self.key is not None
        return self.key.decode()

    def header(self, name: str) -> str:
        """Text of a header, "" if there is none."""
        return self.headers.get(name, b"").decode()


def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "metadata.recovery.strategy": "none", "log_level": 0})


def partitions_of(client: AdminClient, topic: str) -> list[int]:
    found = client.list_topics(topic, timeout=READ_TIMEOUT_S).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    return sorted(found.partitions)


def ends(bootstrap: str, topic: str, isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED) -> dict[int, int]:
    """Partition → log end, records of open transactions included. Asks again while a broker comes back.

    Each time with another client: one that knew a leader which has gone goes on asking it.
    """
    deadline = time.monotonic() + READ_TIMEOUT_S
    while True:
        client = admin(bootstrap)
        try:
            request = {TopicPartition(topic, number): OffsetSpec.latest() for number in partitions_of(client, topic)}
            answers = client.list_offsets(request, isolation_level=isolation, request_timeout=READ_TIMEOUT_S)
            return {place.partition: future.result(READ_TIMEOUT_S).offset for place, future in answers.items()}
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def committed_offsets(client: AdminClient, group: str) -> dict[tuple[str, int], int]:
    """(topic, partition) → committed offset of a group."""
    (future,) = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
    return {
        (place.topic, place.partition): place.offset
        for place in future.result(READ_TIMEOUT_S).topic_partitions or []
        if place.offset >= 0
    }


def _consumer(bootstrap: str, isolation: str, **more: object) -> Consumer:
    return Consumer(
        {
            **more,
            "bootstrap.servers": bootstrap,
            "group.id": "never-joined",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "metadata.recovery.strategy": "none",  # the default can block for ever when the only broker restarts
            "log_level": 0,
        }
    )


def _found(message: Message) -> Found:
    headers = {name: value or b"" for name, value in message.headers() or []}
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None
    return Found(topic, partition, offset, message.key(), message.value(), headers)


def read(bootstrap: str, topic: str, *, isolation: str = "read_committed") -> list[Found]:
    """Everything that a topic holds now, in the order of partition and offset.

    Raises:
        AssertionError: the end was not reached in time; a transaction hangs.
    """
    target = ends(bootstrap, topic)
    consumer = _consumer(bootstrap, isolation)
    found: list[Found] = []
    open_partitions = {partition for partition, end in target.items() if end > 0}
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in sorted(open_partitions)])
        deadline = time.monotonic() + READ_TIMEOUT_S
        while open_partitions:
            if time.monotonic() > deadline:
                stable = ends(bootstrap, topic, IsolationLevel.READ_COMMITTED)
                raise AssertionError(
                    f"{topic}: partitions {sorted(open_partitions)} not read to {target}; stable up to {stable}"
                )
            for message in consumer.consume(1_000, 0.5):
                error = message.error()
                if error is None:
                    found.append(_found(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    if message.offset() >= target[message.partition()]:
                        open_partitions.discard(message.partition())
                elif not error.retriable() and error.code() != KafkaError._TRANSPORT:
                    raise KafkaException(error)
    finally:
        consumer.close()
    return sorted(found, key=lambda record: (record.partition, record.offset))


class Follower:
    """Reads topics from their beginning in a thread of its own, for as long as a run lasts.

    The methods that speak of partitions are for followers of a single topic.
    """

    def __init__(self, bootstrap: str, *topics: str) -> None:
        self.found: list[Found] = []
        self._topic = ", ".join(topics)
        client = admin(bootstrap)
        self._assigned = [(topic, partition) for topic in topics for partition in partitions_of(client, topic)]
        self._bootstrap = bootstrap
        self._statistics = "{}"  # the client's own, as it wrote them last
        self._consumer = self._new_consumer()
        self._stop = threading.Event()
        self._failure: KafkaException | None = None
        self.errors: deque[str] = deque(maxlen=ERRORS_KEPT)  # the latest that it got over
        self._grew = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"follower {self._topic}", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self.found)

    def counts(self) -> Counter[int]:
        """Partition → records seen."""
        return Counter(record.partition for record in list(self.found))

    def count_from(self, partition: int, offset: int) -> int:
        """Records seen of a partition from an offset on."""
        return sum(record.partition == partition and record.offset >= offset for record in list(self.found))

    def ends(self) -> dict[int, int]:
        """Partition → offset after the last record seen."""
        ends: dict[int, int] = {}
        for record in list(self.found):
            ends[record.partition] = record.offset + 1
        return ends

    def places(self) -> dict[tuple[str, int], int]:
        """(topic, partition) → offset after the last record seen."""
        return {(record.topic, record.partition): record.offset + 1 for record in list(self.found)}

    def wait(self, condition: Callable[[], bool], *, stalled_s: float, why: str) -> None:
        """Waits until a condition on what was read holds.

        Gives up when nothing new came for ``stalled_s``, or when records come but the condition still does not hold
        after three times as long (one partition may be stuck while others go on).
        """
        with self._grew:
            begun = time.monotonic()
            seen, since = len(self.found), begun
            while not condition():
                if self._failure is not None:
                    raise self._failure
                if len(self.found) != seen:
                    seen, since = len(self.found), time.monotonic()
                elif time.monotonic() - since > stalled_s:
                    raise AssertionError(f"{self._topic}: nothing new for {stalled_s} s, {seen} read, wanted: {why}")
                if time.monotonic() - begun > 3 * stalled_s:
                    raise AssertionError(f"{self._topic}: {dict(self.counts())} read by partition, wanted: {why}")
                self._grew.wait(0.1)

    def wait_more(self, count: int, *, stalled_s: float = 60.0) -> None:
        target = len(self.found) + count
        self.wait(lambda: len(self.found) >= target, stalled_s=stalled_s, why=f"{count} more records")

    def stop(self) -> list[Found]:
        self._stop.set()
        self._thread.join(READ_TIMEOUT_S)
        self._consumer.close()
        if self._failure is not None:
            raise self._failure
        return self.found

    def require_alive(self) -> None:
        """Raises what ended the reading, if it ended."""
        if self._failure is not None:
            raise self._failure
        assert self._thread.is_alive() or self._stop.is_set(), f"the follower of {self._topic} ended"

    def _new_consumer(self) -> Consumer:
        def note(statistics: str) -> None:
            self._statistics = statistics

        consumer = _consumer(self._bootstrap, "read_committed", **{"statistics.interval.ms": 5_000, "stats_cb": note})
        read = self.places()
        consumer.assign([TopicPartition(*place, read.get(place, 0)) for place in self._assigned])
        return consumer

    def _states(self) -> str:
        """What the client says of its partitions: state of fetching, next offset, last stable offset."""
        topics = json.loads(self._statistics).get("topics", {})
        return ", ".join(
            f"{topic}/{number} {one['fetch_state']} {one['next_offset']} of {one['ls_offset']}"
            for topic, found in topics.items()
            for number, one in found["partitions"].items()
            if number != "-1"
        )

    def _run(self) -> None:
        heard = time.monotonic()
        while not self._stop.is_set():
            batch = []
            messages = self._consumer.consume(500, 0.1)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENT_S:
                self.errors.append(f"silent for {SILENT_S:.0f} s, on with a new client; the old one: {self._states()}")
                self._consumer.close()
                self._consumer, heard = self._new_consumer(), time.monotonic()
            for message in messages:
                error = message.error()
                if error is None:
                    batch.append(_found(message))
                elif error.fatal() or error.code() == KafkaError._AUTO_OFFSET_RESET:  # it would stop there in silence
                    self._failure = KafkaException(error)
                    return
                elif error.code() != KafkaError._PARTITION_EOF:
                    self.errors.append(f"{message.topic()}/{message.partition()}: {error}")
            if batch:
                with self._grew:
                    self.found += batch
                    self._grew.notify_all()


def inputs(bootstrap: str, topics: Mapping[str, Wire]) -> list[Input]:
    """Committed inputs as a reader finds them."""
    return [
        Input(
            topic,
            record.partition,
            record.offset,
            record.text_key,
            record.header("ce_id"),
            wire.decode(record.value or b"")["n"],
        )
        for topic, wire in topics.items()
        for record in read(bootstrap, topic)
        if SHOW not in record.header("ce_id")
    ]


def outputs(found: Iterable[Found], wire: Wire) -> list[Output]:
    """Output records of the counting agents."""
    decoded = []
    for record in found:
        value = wire.decode(record.value or b"")
        cause = record.header("ce_causationid")
        assert value["entity"] == record.text_key, f"{record.text_key} carries an event of {value['entity']}"
        decoded.append(Output(record.partition, record.offset, record.text_key, cause, value["n"], value["total"]))
    return decoded


def changes(found: Iterable[Found], wire: Wire) -> list[Change]:
    """Changelog records of the counting agents' tables."""
    return [
        Change(
            record.partition,
            record.offset,
            record.text_key,
            None if record.value is None else wire.decode(record.value)["total"],
        )
        for record in found
    ]


class DeadLetter(NamedTuple):
    """One dead letter: why, and what it keeps of the input."""

    code: str
    event_id: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


def dead_letters(bootstrap: str, topic: str) -> list[DeadLetter]:
    """All dead letters of an agent, in the order of their inputs."""
    wire = builtin("choreo.DeadLetter")
    letters = []
    for record in read(bootstrap, topic):
        value = wire.decode(record.value or b"")
        original = value["original"]
        letters.append(
            DeadLetter(
                value["code"],
                value["event_id"],
                original["topic"],
                original["partition"],
                original["offset"],
                original["key"],
                original["value"],
            )
        )
    return sorted(letters, key=lambda letter: (letter.topic, letter.partition, letter.offset))
