"""How a transaction ends when the group, another producer or the broker is against it. Real Kafka, real errors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from choreo.errors import EngineError
from choreo.kernel.burst import OffsetCommit
from choreo.kernel.values import OutRecord
from choreo.runtime import kafka_config
from choreo.runtime.transaction import Result, Transaction, is_member
from choreo.testing.broker import RunningBroker

kafka = pytest.mark.kafka


@pytest.mark.parametrize(
    ("generation", "member_id", "member"),
    [(1, b"w0-1", True), (0, b"w0-1", True), (-1, b"w0-1", False), (3, b"", False)],
)
def test_group_metadata_without_generation_or_member_id_is_refused(
    generation: int, member_id: bytes, member: bool
) -> None:
    number = generation.to_bytes(4, "little", signed=True)
    assert is_member(b"CGMDv2:" + number + b"group\0" + member_id + b"\0w0\0") is member


def test_group_metadata_of_another_form_is_an_error() -> None:
    with pytest.raises(EngineError):
        is_member(b"CGMDv3:\x00")


class Cluster:
    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.bootstrap = bootstrap
        self.input, self.output, self.identity = prefix + "in", prefix + "out", prefix + "id"
        admin = AdminClient(kafka_config.admin(bootstrap, {}))
        for created in admin.create_topics([NewTopic(name, 1, 1) for name in (self.input, self.output)]).values():
            created.result(30)
        self.consumer = Consumer(
            kafka_config.group_consumer(
                bootstrap, {}, group=prefix + "g", instance=prefix + "w", session_timeout_ms=10_000
            )
        )

    def join(self) -> None:
        assigned: list[Any] = []

        def on_assign(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            consumer.incremental_assign([TopicPartition(tp.topic, tp.partition, 0) for tp in partitions])
            assigned.extend(partitions)

        self.consumer.subscribe([self.input], on_assign=on_assign)
        deadline = time.monotonic() + 20
        while not assigned and time.monotonic() < deadline:
            self.consumer.poll(0.1)
        assert assigned

    def producer(self, **changes: Any) -> Producer:
        settings = kafka_config.transactional_producer(
            self.bootstrap, {}, transactional_id=self.identity, batch_bytes=10_000, message_bytes_max=1_048_588
        )
        producer = Producer({**settings, **changes})
        producer.init_transactions(30)
        return producer

    def run(self, transaction: Transaction, count: int = 1) -> Result:
        records = [OutRecord(self.output, 0, b"k", b"v" * 2_000, ())] * count
        ended = transaction.begin(records, records, self.consumer)
        return (ended or transaction.finish([OffsetCommit(self.input, 0, 1, "")])).result

    def values(self, expected: int) -> int:
        """Committed records of the output, read until the end; the end counts once as many were there as expected,
        because a commit is answered before its markers are written."""
        reader = Consumer(kafka_config.reader(self.bootstrap, {}))
        reader.assign([TopicPartition(self.output, 0, 0)])
        count, deadline = 0, time.monotonic() + 20
        while time.monotonic() < deadline:
            message = reader.poll(0.2)
            if message is None:
                continue
            if message.error() is None:
                count += 1
            elif count >= expected:  # the end; it comes again after more records
                break
        reader.close()
        return count


@pytest.fixture
def cluster(kafka_broker: RunningBroker, kafka_topic_prefix: str) -> Iterator[Cluster]:
    cluster = Cluster(kafka_broker.bootstrap, kafka_topic_prefix)
    yield cluster
    cluster.consumer.close()


@kafka
def test_commit_of_a_worker_outside_the_group_does_not_reach_an_empty_group(cluster: Cluster) -> None:
    transaction = Transaction(cluster.producer())
    assert cluster.run(transaction) is Result.REBALANCING
    assert cluster.values(0) == 0
    cluster.join()
    assert cluster.run(transaction) is Result.COMMITTED
    assert cluster.values(2) == 2


@kafka
@pytest.mark.parametrize("count", [1, 3_000])
def test_fenced_worker_learns_that_it_is_fenced(cluster: Cluster, count: int) -> None:
    cluster.join()
    transaction = Transaction(cluster.producer())
    assert cluster.run(transaction) is Result.COMMITTED
    newer = Transaction(cluster.producer())
    assert cluster.run(transaction, count) is Result.FENCED
    assert cluster.run(transaction) is Result.FENCED
    assert cluster.run(newer) is Result.COMMITTED
    assert cluster.values(4) == 4


@kafka
@pytest.mark.parametrize("moment", ["produced", "offsets sent"])
def test_worker_fenced_within_a_burst_learns_it_and_commits_nothing(cluster: Cluster, moment: str) -> None:
    cluster.join()
    inner = cluster.producer()

    class Overtaken:
        """The producer, with a newer one made in the middle of its transaction."""

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

        def flush(self, timeout_s: float) -> int:
            left: int = inner.flush(timeout_s)
            if moment == "produced":
                cluster.producer()
            return left

        def commit_transaction(self, timeout_s: float) -> None:
            if moment == "offsets sent":
                cluster.producer()
            inner.commit_transaction(timeout_s)

    transaction = Transaction(Overtaken())
    assert cluster.run(transaction, 50) is Result.FENCED
    assert cluster.values(0) == 0


@kafka
def test_transaction_that_took_too_long_is_not_taken_for_a_newer_worker(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("choreo.runtime.transaction.TRANSACTION_TIMEOUT_MS", 1_000)
    cluster.join()
    short = {"transaction.timeout.ms": 1_000, "message.timeout.ms": 1_000, "socket.timeout.ms": 1_000}
    inner = cluster.producer(**short)

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

        def commit_transaction(self, timeout_s: float) -> None:
            time.sleep(4)  # the embedded broker looks for such transactions every second
            inner.commit_transaction(timeout_s)

    assert cluster.run(Transaction(Slow())) is Result.UNKNOWN
    assert cluster.values(0) == 0
