"""Reference tables: read-only, whole, in every worker. Read from their topics and followed from then on."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from choreo.runtime.carry import Carried
from choreo.runtime.kafka_config import reader

POLL_S: Final = 0.2
BATCH: Final = 5_000
_HOPELESS: Final = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
}
# Waiting does not mend these; everything else the client tries again by itself.


class References:
    """Rows of the agent's reference tables with the offset each was read at.

    Args:
        topics: table name to (topic, partition count).
    """

    def __init__(self, bootstrap: str, security: Mapping[str, str], topics: Mapping[str, tuple[str, int]]) -> None:
        self._bootstrap = bootstrap
        self._security = security
        self._table_of = {topic: table for table, (topic, _) in topics.items()}
        self._pending = {(topic, number) for topic, count in topics.values() for number in range(count)}
        self._rows: dict[str, dict[str, tuple[bytes, int]]] = {table: {} for table in topics}
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self.failure: BaseException | None = None
        if not topics:
            self._ready.set()
        self._thread = threading.Thread(target=self._run, name="choreo-references", daemon=True)

    def start(self) -> None:
        if self._table_of:
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def wait_ready(self, timeout_s: float) -> bool:
        return self._ready.wait(timeout_s)

    def lookup(self, table: str, key: str) -> tuple[bytes, int] | None:
        """Encoded row and its offset; safe to call from the engine thread while rows arrive."""
        return self._rows[table].get(key)

    def _run(self) -> None:
        with Carried(self._note_failure):
            self._follow()

    def _note_failure(self, failure: BaseException) -> None:
        """The session ends with it: without its reference tables an agent must not decide anything."""
        self.failure = failure

    def _follow(self) -> None:
        consumer = Consumer(reader(self._bootstrap, self._security))
        try:
            consumer.assign([TopicPartition(topic, number, 0) for topic, number in self._pending])
            while not self._stopping.is_set():
                for message in consumer.consume(BATCH, POLL_S):
                    error = message.error()
                    if error is None:
                        self._take(message.topic(), message.key(), message.value(), message.offset())
                    elif error.code() == KafkaError._PARTITION_EOF:
                        self._pending.discard((message.topic(), message.partition()))
                        if not self._pending:
                            self._ready.set()
                    elif error.fatal() or error.code() in _HOPELESS:
                        raise KafkaException(error)
        finally:
            consumer.close()

    def _take(self, topic: str, key: bytes | None, value: bytes | None, offset: int) -> None:
        if key is None:
            return
        rows = self._rows[self._table_of[topic]]
        if value is None:
            rows.pop(key.decode(), None)
        else:
            rows[key.decode()] = (value, offset)
