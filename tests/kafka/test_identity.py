"""Who owns a worker's name: the transactional id decides, what the group says of a member is only a hint."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, Producer

from choreo.runtime.kafka_config import transactional_producer
from choreo.runtime.transaction import Result, Transaction, judge
from choreo.testing.broker import RunningBroker
from tests.chaos import reader
from tests.chaos.target import create_topics


def test_a_member_that_the_group_displaced_is_not_yet_a_fenced_worker() -> None:
    """librdkafka reports its own static member as fenced when a broker was away for longer than the session (measured:
    4 of 6 broker restarts). Taking that for a newer worker would end every worker after a broker restart."""
    assert judge(KafkaError(KafkaError.FENCED_INSTANCE_ID)) is Result.DISPLACED
    assert judge(KafkaError(KafkaError._FENCED)) is Result.FENCED
    assert judge(KafkaError(KafkaError.PRODUCER_FENCED)) is Result.FENCED


@pytest.mark.kafka
def test_only_the_newest_producer_of_an_id_owns_it(kafka_broker: RunningBroker, kafka_topic_prefix: str) -> None:
    """Rule: the same instance id twice, the newer wins. Asking leaves nothing visible behind."""
    topic = f"{kafka_topic_prefix}journal"
    create_topics(kafka_broker.bootstrap, {topic: {}}, partitions=1)

    def worker() -> Transaction:
        producer = Producer(
            transactional_producer(
                kafka_broker.bootstrap,
                {},
                transactional_id=f"{kafka_topic_prefix}w0",
                batch_bytes=16_000,
                message_bytes_max=1_000_000,
            )
        )
        producer.init_transactions(30)
        return Transaction(producer)

    older = worker()
    assert older.probe(topic) is Result.ABORTED
    newer = worker()
    assert older.probe(topic) is Result.FENCED
    assert newer.probe(topic) is Result.ABORTED
    assert reader.read(kafka_broker.bootstrap, topic) == []
