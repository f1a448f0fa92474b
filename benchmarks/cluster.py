"""What the benchmarks ask of Kafka: topics, and how far a log is committed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from choreo.runtime import kafka_config

ANSWER_S: Final = 20.0
AGAIN_S: Final = 0.1
_NO_LEADER_YET: Final = {
    KafkaError._NOENT,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
"""A topic that was made a moment ago."""


class Cluster:
    """A view from outside, through the official client, never through choreo's engine."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._admin = AdminClient({**kafka_config.admin(bootstrap, {}), "log_level": 0})

    def create(self, topics: Iterable[str], *, partitions: int, settings: Mapping[str, str] | None = None) -> None:
        """Topics with one replica; those that exist stay."""
        wanted = [NewTopic(name, partitions, 1, config=dict(settings or {})) for name in topics]
        for future in self._admin.create_topics(wanted).values():
            try:
                future.result(ANSWER_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise

    def partitions(self, topic: str) -> list[int]:
        return sorted(self._admin.list_topics(topic, ANSWER_S).topics[topic].partitions)

    def committed_ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition → last stable offset: everything before it is visible to read_committed readers."""
        request = {TopicPartition(topic, number): OffsetSpec.latest() for number in partitions}
        ends_s = time.monotonic() + ANSWER_S
        while True:
            answers = self._admin.list_offsets(
                request, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_S
            )
            try:
                return {place.partition: future.result(ANSWER_S).offset for place, future in answers.items()}
            except KafkaException as error:
                if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > ends_s:
                    raise
            time.sleep(AGAIN_S)

    def committed_offsets(self, group: str) -> dict[tuple[str, int], int]:
        """(topic, partition) → committed offset of a group."""
        (future,) = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
        return {
            (place.topic, place.partition): place.offset
            for place in future.result(ANSWER_S).topic_partitions or []
            if place.offset >= 0
        }

    def read(self, topic: str, start: Mapping[int, int]) -> Iterable[Any]:
        """Committed messages from ``start`` (partition → offset) up to the ends that hold now."""
        ends = self.committed_ends(topic, start)
        consumer = Consumer(kafka_config.reader(self.bootstrap, {}))
        left = {number for number, end in ends.items() if end > start[number]}
        consumer.assign([TopicPartition(topic, number, start[number]) for number in left])
        try:
            while left:
                batch = consumer.consume(10_000, ANSWER_S)
                if not batch:
                    raise TimeoutError(f"{topic}: partitions {sorted(left)} were not read to their ends")
                for message in batch:
                    error = message.error()
                    if error is None:
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF:
                        left.discard(message.partition())
                    else:
                        raise KafkaException(error)
        finally:
            consumer.close()
