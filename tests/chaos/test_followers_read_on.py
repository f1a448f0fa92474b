"""A follower whose client stands still must not look like workers that stand still."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from choreo.testing.broker import RunningBroker
from tests.chaos import reader
from tests.engine.live import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]


def test_a_silent_follower_reads_on_with_a_new_client(
    kafka_broker: RunningBroker, kafka_topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = f"{kafka_topic_prefix}followed"
    client = reader.admin(kafka_broker.bootstrap)
    client.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": kafka_broker.bootstrap})
    monkeypatch.setattr(reader, "SILENT_S", 0.5)
    follower = reader.Follower(kafka_broker.bootstrap, topic)
    for number in range(3):
        producer.produce(topic, str(number), partition=number % 2)
        producer.flush(30)
        follower.wait_more(1)
        told = len(follower.errors)
        wait_until(lambda told=told: len(follower.errors) > told, "it was silent")  # type: ignore[misc]
    assert [record.value for record in follower.stop()] == [b"0", b"1", b"2"]
