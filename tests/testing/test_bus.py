"""What the engine relies on, shown on the bus in memory and on a real Kafka by the same tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from choreo.errors import FencedSignal, HostError
from choreo.kernel.values import Delivery, OutRecord
from choreo.testing.bus import Committed, MemoryBus, MemoryProducer

TIMEOUT_S = 30.0
PARTITIONS = 3
Place = tuple[str, int]


class Transactional(Protocol):
    """One transactional producer."""

    def begin(self) -> None: ...

    def send(self, record: OutRecord) -> None: ...

    def send_offsets(self, group: str, offsets: Mapping[Place, Committed]) -> None: ...

    def commit(self) -> None: ...

    def abort(self) -> None: ...


class Log(Protocol):
    """A cluster with one topic of three partitions."""

    topic: str
    name: str

    def producer(self, transactional_id: str) -> Transactional: ...

    def send(self, record: OutRecord) -> None: ...

    def read(self, *, committed_only: bool = True) -> list[Delivery]: ...

    def committed(self, group: str, partition: int) -> Committed | None: ...


class MemoryLog:
    def __init__(self) -> None:
        self.topic = self.name = "events"
        self.bus = MemoryBus()
        self.bus.create_topic(self.topic, PARTITIONS)

    def producer(self, transactional_id: str) -> Transactional:
        return _InMemory(self.bus.producer(transactional_id))

    def send(self, record: OutRecord) -> None:
        self.bus.send(record, 0)

    def read(self, *, committed_only: bool = True) -> list[Delivery]:
        return [
            one
            for number in range(PARTITIONS)
            for one in self.bus.read(self.topic, number, 0, committed_only=committed_only)[0]
        ]

    def committed(self, group: str, partition: int) -> Committed | None:
        return self.bus.committed(group, self.topic, partition)


class _InMemory:
    def __init__(self, producer: MemoryProducer) -> None:
        self._producer = producer
        self.begin, self.commit, self.abort = producer.begin, producer.commit, producer.abort
        self.send_offsets = producer.send_offsets

    def send(self, record: OutRecord) -> None:
        self._producer.send(record, 0)


class KafkaLog:
    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.name = prefix
        self.topic = f"{prefix}events"
        self._bootstrap = bootstrap
        admin = AdminClient({"bootstrap.servers": bootstrap})
        for future in admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)]).values():
            future.result(TIMEOUT_S)
        self._opened: list[Producer] = []

    def _settings(self, **more: Any) -> dict[str, Any]:
        settings = {"bootstrap.servers": self._bootstrap, "partitioner": "murmur2_random", "linger.ms": 0}
        return settings | {name.replace("_", "."): value for name, value in more.items()}

    def producer(self, transactional_id: str) -> Transactional:
        producer = Producer(self._settings(transactional_id=f"{self.name}{transactional_id}"))
        producer.init_transactions(TIMEOUT_S)
        self._opened.append(producer)
        return _OnKafka(producer, self._settings())

    def send(self, record: OutRecord) -> None:
        producer = Producer(self._settings())
        _produce(producer, record)
        assert producer.flush(TIMEOUT_S) == 0

    def read(self, *, committed_only: bool = True) -> list[Delivery]:
        isolation = "read_committed" if committed_only else "read_uncommitted"
        consumer = Consumer(
            self._settings(group_id=f"{self.name}reader", isolation_level=isolation, enable_partition_eof=True)
        )
        found: list[Delivery] = []
        consumer.assign([TopicPartition(self.topic, number, 0) for number in range(PARTITIONS)])
        ended: set[int] = set()
        while len(ended) < PARTITIONS:
            message = consumer.poll(TIMEOUT_S)
            assert message is not None, "Kafka does not answer"
            if message.error() is not None:
                ended.add(message.partition())
                continue
            headers = tuple(message.headers() or ())
            place = (message.topic(), message.partition(), message.offset(), 0)
            found.append(Delivery(*place, message.key(), message.value(), headers))
        consumer.close()
        return sorted(found, key=lambda one: (one.partition, one.offset))

    def committed(self, group: str, partition: int) -> Committed | None:
        consumer = Consumer(self._settings(group_id=f"{self.name}{group}"))
        (found,) = consumer.committed([TopicPartition(self.topic, partition)], timeout=TIMEOUT_S)
        consumer.close()
        return None if found.offset < 0 else Committed(found.offset, found.metadata or "")


class _OnKafka:
    def __init__(self, producer: Producer, settings: dict[str, Any]) -> None:
        self._producer = producer
        self._settings = settings

    def begin(self) -> None:
        self._producer.begin_transaction()

    def send(self, record: OutRecord) -> None:
        _produce(self._producer, record)
        if self._producer.flush(TIMEOUT_S):
            raise AssertionError("not delivered")

    def send_offsets(self, group: str, offsets: Mapping[Place, Committed]) -> None:
        topic = next(iter(offsets))[0]
        consumer = Consumer(self._settings | {"group.id": f"{topic.removesuffix('events')}{group}"})
        positions = [TopicPartition(name, number, one.offset, one.metadata) for (name, number), one in offsets.items()]
        self._producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), TIMEOUT_S)
        consumer.close()

    def commit(self) -> None:
        try:
            self._producer.commit_transaction(TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].name() in ("_FENCED", "INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED"):
                raise FencedSignal from error
            raise

    def abort(self) -> None:
        self._producer.abort_transaction(TIMEOUT_S)


def _produce(producer: Producer, record: OutRecord) -> None:
    place = {} if record.partition is None else {"partition": record.partition}
    producer.produce(record.topic, record.value, record.key, headers=list(record.headers), **place)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    if request.param == "memory":
        yield MemoryLog()
    else:
        broker = request.getfixturevalue("kafka_broker")
        yield KafkaLog(broker.bootstrap, request.getfixturevalue("kafka_topic_prefix"))


def values(deliveries: list[Delivery]) -> list[bytes | None]:
    return [one.value for one in deliveries]


def test_order_is_kept_per_key_and_keys_lie_where_java_puts_them(log: Log) -> None:
    sent = [OutRecord(log.topic, None, b"key %d" % (n % 7), b"%d" % n, ()) for n in range(70)]
    producer = log.producer("order")
    producer.begin()
    for record in sent:
        producer.send(record)
    producer.commit()
    seen = log.read()
    for key in {record.key for record in sent}:
        mine = [one for one in seen if one.key == key]
        assert values(mine) == [record.value for record in sent if record.key == key]
        assert len({one.partition for one in mine}) == 1
    memory = MemoryLog()
    for record in sent:
        memory.send(record._replace(topic=memory.topic))
    assert {(one.key, one.partition) for one in seen} == {(one.key, one.partition) for one in memory.read()}


def test_a_record_keeps_its_bytes_and_headers(log: Log) -> None:
    headers = (("a", b"1"), ("a", b"2"), ("b", b"\xff"))
    log.send(OutRecord(log.topic, 1, None, None, headers))
    log.send(OutRecord(log.topic, 1, b"", b"", ()))
    first, second = log.read()
    assert (first.key, first.value, tuple(first.headers)) == (None, None, headers)
    assert (second.key, second.value, tuple(second.headers)) == (b"", b"", ())
    assert [one.offset for one in (first, second)] == [0, 1]


def test_a_transaction_is_visible_only_when_it_is_committed_and_at_once(log: Log) -> None:
    producer = log.producer("visible")
    producer.begin()
    producer.send(OutRecord(log.topic, 0, b"k", b"one", ()))
    producer.send(OutRecord(log.topic, 1, b"k", b"two", ()))
    assert log.read() == []
    assert sorted(filter(None, values(log.read(committed_only=False)))) == [b"one", b"two"]
    producer.commit()
    assert values(log.read()) == [b"one", b"two"]


def test_an_aborted_transaction_is_never_seen_but_takes_its_offsets(log: Log) -> None:
    producer = log.producer("aborted")
    producer.begin()
    producer.send(OutRecord(log.topic, 0, b"k", b"never", ()))
    producer.abort()
    producer.begin()
    producer.send(OutRecord(log.topic, 0, b"k", b"seen", ()))
    producer.commit()
    log.send(OutRecord(log.topic, 0, b"k", b"last", ()))
    assert [(one.offset, one.value) for one in log.read()] == [(2, b"seen"), (4, b"last")]


def test_a_reader_stops_before_the_first_open_transaction(log: Log) -> None:
    producer = log.producer("open")
    log.send(OutRecord(log.topic, 0, b"k", b"before", ()))
    producer.begin()
    producer.send(OutRecord(log.topic, 0, b"k", b"open", ()))
    log.send(OutRecord(log.topic, 0, b"k", b"behind", ()))
    log.send(OutRecord(log.topic, 1, b"k", b"elsewhere", ()))
    assert values(log.read()) == [b"before", b"elsewhere"]
    producer.abort()
    assert values(log.read()) == [b"before", b"behind", b"elsewhere"]


def test_offsets_are_committed_with_the_transaction_or_not_at_all(log: Log) -> None:
    producer = log.producer("offsets")
    producer.begin()
    producer.send(OutRecord(log.topic, 0, b"k", b"one", ()))
    producer.send_offsets("group", {(log.topic, 0): Committed(7, "note")})
    producer.commit()
    assert log.committed("group", 0) == Committed(7, "note")
    producer.begin()
    producer.send(OutRecord(log.topic, 0, b"k", b"two", ()))
    producer.send_offsets("group", {(log.topic, 0): Committed(9, ""), (log.topic, 1): Committed(1, "")})
    producer.abort()
    assert log.committed("group", 0) == Committed(7, "note")
    assert log.committed("group", 1) is None


def test_a_newer_producer_of_the_same_id_ends_and_fences_the_older(log: Log) -> None:
    older = log.producer("same")
    older.begin()
    older.send(OutRecord(log.topic, 0, b"k", b"older", ()))
    newer = log.producer("same")
    newer.begin()
    newer.send(OutRecord(log.topic, 0, b"k", b"newer", ()))
    newer.commit()
    with pytest.raises(FencedSignal):
        older.commit()
    assert values(log.read()) == [b"newer"]


def test_the_bus_refuses_what_a_cluster_refuses() -> None:
    bus = MemoryBus()
    bus.create_topic("events", 2)
    bus.create_topic("events", 2)
    for refused in (
        lambda: bus.create_topic("events", 3),
        lambda: bus.send(OutRecord("events", 2, b"k", b"", ()), 0),
        lambda: bus.send(OutRecord("other", None, b"k", b"", ()), 0),
        lambda: bus.read("other", 0, 0),
    ):
        with pytest.raises(HostError) as caught:
            refused()
        assert caught.value.code == "CH0805"
    producer = bus.producer("one")
    with pytest.raises(RuntimeError):
        producer.commit()
    producer.begin()
    with pytest.raises(RuntimeError):
        producer.begin()
