"""A feeder that gets no answer to a commit finds out what became of it: nothing is said to be written that is not."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import NewTopic

from choreo.testing.broker import RunningBroker
from tests.chaos import reader
from tests.chaos.transactions import Draft, Transactions

pytestmark = [pytest.mark.kafka]


class Unanswered:
    """A producer whose commit has no answer; whether the broker heard it is chosen."""

    def __init__(self, producer: Producer, *, heard: bool) -> None:
        self._producer, self._heard = producer, heard

    def __getattr__(self, name: str) -> object:
        return getattr(self._producer, name)

    def commit_transaction(self, timeout_s: float) -> None:
        if self._heard:
            self._producer.commit_transaction(timeout_s)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


@pytest.mark.parametrize("heard", [True, False], ids=["committed", "never heard of"])
def test_a_commit_without_an_answer_is_looked_up(kafka_broker: RunningBroker, heard: bool) -> None:
    topic = f"looked-up-{uuid.uuid4().hex[:8]}"
    client = reader.admin(kafka_broker.bootstrap)
    client.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)
    writer = Transactions(kafka_broker.bootstrap, topic)
    drafts = [Draft(topic, b"k", b"%d" % number, []) for number in range(3)]

    assert writer.write(drafts) is not None
    writer._producer = Unanswered(writer._producer, heard=heard)
    landed = writer.write(drafts)
    after = writer.write(drafts)

    found = {record.offset for record in reader.read(kafka_broker.bootstrap, topic)}
    assert after is not None
    assert len(found) == (9 if heard else 6)
    assert (landed is not None) == heard
    assert {place.offset for place in [*(landed or []), *after]} <= found
