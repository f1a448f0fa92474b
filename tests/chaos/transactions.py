"""Writes input in transactions, some of them aborted, and goes on for as long as a run lasts."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

# A feeder outlives broker restarts, which take up to ten seconds on a busy machine.
TRANSACTION_TIMEOUT_S = 60.0
# librdkafka's producer sometimes stops sending when leaders move (2.16.1): then another one begins anew.
FLUSH_TIMEOUT_S = 20.0


class Draft(NamedTuple):
    """One record to be written. ``partition`` -1: where the key belongs."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int = -1


class Landed(NamedTuple):
    """Where the broker put a record."""

    partition: int
    offset: int


class Transactions:
    """A transactional producer that places keys as Java's client does."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self._bootstrap, self._name = bootstrap, name
        self._producer = self._begin()

    def _begin(self) -> Producer:
        """A new producer; what one before it left open is aborted."""
        bootstrap, name = self._bootstrap, self._name
        producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": f"feeder-{name}",
                "transaction.timeout.ms": int(TRANSACTION_TIMEOUT_S * 1_000),
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 2,
                "metadata.recovery.strategy": "none",  # the default can block for ever when the only broker restarts
                "log_level": 0,
            }
        )
        producer.init_transactions(TRANSACTION_TIMEOUT_S)
        return producer

    def write(self, drafts: Sequence[Draft], *, abort: bool = False) -> list[Landed] | None:
        """One transaction.

        Returns:
            Where each draft landed; None if the transaction was aborted, as wished or because the broker went away.
        """
        landed: list[Landed | None] = [None] * len(drafts)
        errors: list[KafkaError] = []
        self._producer.begin_transaction()
        for place, draft in enumerate(drafts):
            self._produce(draft, place, landed, errors)
        if self._producer.flush(FLUSH_TIMEOUT_S):  # before an abort too: the records lie in the log, the marker tells
            self._producer = self._begin()
            return None
        found = [one for one in landed if one is not None]
        if abort:
            self._abort()
            return None
        if not self._commit(drafts[0].topic, landed[0]):
            return None
        if errors or len(found) != len(drafts):
            raise AssertionError(f"the feeder committed {len(found)} of {len(drafts)} records: {errors[:3]}")
        return found

    def _produce(self, draft: Draft, place: int, landed: list[Landed | None], errors: list[KafkaError]) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                errors.append(error)
                return
            partition, offset = message.partition(), message.offset()
            assert partition is not None and offset is not None
            landed[place] = Landed(partition, offset)

        where = {} if draft.partition < 0 else {"partition": draft.partition}
        self._producer.produce(
            draft.topic, key=draft.key, value=draft.value, headers=draft.headers, on_delivery=delivered, **where
        )

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction(TRANSACTION_TIMEOUT_S)
        except KafkaException:  # no answer: the next producer aborts it
            self._producer = self._begin()

    def _commit(self, topic: str, first: Landed | None) -> bool:
        """False if it ended in an abort (a broker restart may leave no other way).

        Where there is no answer, what became of it is read from the log, where its first record landed.
        """
        deadline = time.monotonic() + TRANSACTION_TIMEOUT_S
        while True:
            try:
                self._producer.commit_transaction(TRANSACTION_TIMEOUT_S)
                return True
            except KafkaException as failure:
                error: KafkaError = failure.args[0]
                if error.txn_requires_abort():
                    self._abort()
                    return False
                if not error.retriable() or time.monotonic() > deadline:
                    self._producer = self._begin()  # ends it, one way or the other
                    return first is not None and is_committed(self._bootstrap, topic, first)


def is_committed(bootstrap: str, topic: str, place: Landed) -> bool:
    """Whether readers of committed records see the one that landed there, once its transaction has ended."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "never-joined",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "metadata.recovery.strategy": "none",
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, place.partition, place.offset)])
        deadline = time.monotonic() + TRANSACTION_TIMEOUT_S
        while time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is None:
                continue
            error, offset = message.error(), message.offset()
            assert offset is not None
            if error is None:
                return offset == place.offset
            if error.code() == KafkaError._PARTITION_EOF and offset > place.offset:
                return False
    finally:
        consumer.close()
    raise AssertionError(f"{topic}/{place.partition}: what became of the record at {place.offset} was not to be read")


class Pump(ABC):
    """Writes transactions in a thread of its own, at about a given rate, from ``start`` to ``halt``."""

    def __init__(self, rate_per_s: float) -> None:
        self.rate_per_s = rate_per_s
        self.made = 0  # records, aborted ones included
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    @abstractmethod
    def transaction(self) -> None:
        """Writes one transaction and counts its records in ``made``."""

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._thread.start()

    def halt(self) -> None:
        """Ends the thread; raises what made it fail."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2 * TRANSACTION_TIMEOUT_S)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        started, before = time.monotonic(), self.made
        try:
            while not self._stop.is_set():
                self.transaction()
                ahead_s = (self.made - before) / self.rate_per_s - (time.monotonic() - started)
                self._stop.wait(max(0.0, ahead_s))
        except BaseException as failure:  # noqa: BLE001 - handed to whoever calls halt()
            self._failure = failure
