"""Reads a topic from its beginning to where it ends now, as readers at ``read_committed`` see it.

For the command line: rows, dead letters and parked events are in Kafka, not in a worker's memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from choreo.errors import HostError
from choreo.kernel.values import Delivery
from choreo.runtime import kafka_config
from choreo.runtime.facts import unreachable
from choreo.runtime.preflight import require_listener

BATCH: Final = 1_000
# A broker that answers at all answers within this; a topic without news ends at once with its end-of-partition mark.
SILENCE_S_MAX: Final = 15.0
POLL_S: Final = 0.05


def read_topic(
    bootstrap: str, security: Mapping[str, str], topic: str, *, partitions: Iterable[int] | None = None
) -> Iterator[Delivery]:
    """All records of a topic, partition by partition in order, tombstones included.

    Args:
        bootstrap: addresses of the cluster.
        security: librdkafka settings to log in.
        topic: its name.
        partitions: only these; all if absent.

    Raises:
        HostError: CH0801, the cluster does not answer; CH0805, there is no such topic.
    """
    require_listener(bootstrap)
    consumer = Consumer({**kafka_config.reader(bootstrap, security), "log_level": 0})
    try:
        wanted = list(_partitions(consumer, bootstrap, topic) if partitions is None else partitions)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in wanted])
        left = set(wanted)
        heard_at = time.monotonic()
        while left:
            # returns early only with a full batch, so that the wait is short and silence is measured here
            messages = consumer.consume(BATCH, POLL_S)
            if messages:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENCE_S_MAX:
                raise unreachable(f"no answer for {SILENCE_S_MAX:.0f} s", bootstrap)
            for message in messages:
                error = message.error()
                if error is None:
                    yield _delivery(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
                elif error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                    raise missing(topic)
                elif not error.retriable() and error.code() != KafkaError._TRANSPORT:
                    raise unreachable(error.str(), bootstrap)
    finally:
        consumer.close()


def _partitions(consumer: Consumer, bootstrap: str, topic: str) -> list[int]:
    try:
        metadata = consumer.list_topics(topic, timeout=kafka_config.REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise unreachable(error.args[0].str().lower(), bootstrap) from error
    found = metadata.topics.get(topic)
    if found is None or found.error is not None:
        raise missing(topic)
    return sorted(found.partitions)


def missing(topic: str) -> HostError:
    """The error for a topic that does not exist."""
    return HostError(f"topic {topic} does not exist", code="CH0805", hint="`choreo apply` creates it", fault="user")


def _delivery(message: Any) -> Delivery:
    return Delivery(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
    )
