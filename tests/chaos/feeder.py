"""Writes the input with a transactional producer: commits and aborts interleaved, so that offsets have gaps.

What it says it committed is checked against what a reader finds (`reader.inputs`): neither is believed alone.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from choreo.testing.checkers import Input
from tests.chaos.wire import Wire

# A feeder outlives broker restarts, which take up to ten seconds on a busy machine.
TRANSACTION_TIMEOUT_S = 60.0


# In ids of events that only ask for a row; they are no input that counts.
SHOW = "-show-"


@dataclass(frozen=True)
class Feed:
    """What is to be written.

    Args:
        topics: topic → record type; each event goes to one of them at random.
        keys: number of entities.
        rate_per_s: events a second, about.
        abort_share: share of the transactions that are aborted.
        burst_max: events in the largest transaction.
    """

    topics: dict[str, Wire]
    keys: int = 200
    rate_per_s: float = 300.0
    abort_share: float = 0.15
    burst_max: int = 40


class _Draft(NamedTuple):
    topic: str
    key: str
    id: str
    n: int


@dataclass
class Fed:
    """What was written so far."""

    committed: list[Input] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    transactions_aborted: int = 0


class Feeder:
    """Feeds until told to stop. ``pump`` feeds at once in this thread, ``start`` and ``stop`` feed in another."""

    def __init__(self, bootstrap: str, feed: Feed, *, seed: int, name: str) -> None:
        self.feed = feed
        self.fed = Fed()
        self._chance = random.Random(f"feeder {seed}")
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._made = 0
        self._name = name
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._producer = Producer(
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
        self._producer.init_transactions(TRANSACTION_TIMEOUT_S)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._thread.start()

    def stop(self) -> Fed:
        """Ends the thread and returns all that it wrote; raises what made it fail."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2 * TRANSACTION_TIMEOUT_S)
        if self._failure is not None:
            raise self._failure
        return self.fed

    def pump(self, events: int) -> Fed:
        """Commits at least so many events now."""
        target = len(self.fed.committed) + events
        while len(self.fed.committed) < target:
            self._transaction()
        return self.fed

    def touch_every_key(self) -> None:
        """One more committed event for each entity and topic: every partition has something to do.

        An aborted transaction goes before it, so that even a short run has one.
        """
        keys = [self._key(number) for number in range(self.feed.keys)]
        self._write([(topic, key) for topic in self.feed.topics for key in keys[:5]], abort=True)
        self._write([(topic, key) for topic in self.feed.topics for key in keys], abort=False)

    def ask_for_rows(self) -> frozenset[str]:
        """One event for each entity that makes the counter emit its row as it is; their ids."""
        (topic,) = self.feed.topics
        wire = self.feed.topics[topic]
        self._producer.begin_transaction()
        ids = [f"{self._name}{SHOW}{number}" for number in range(self.feed.keys)]
        for number, event_id in enumerate(ids):
            key = self._key(number)
            value = wire.encode({"entity": key, "n": 0, "order": "show"})
            self._producer.produce(topic, key=key.encode(), value=value, headers=headers(event_id, key))
        self._producer.commit_transaction(TRANSACTION_TIMEOUT_S)
        return frozenset(ids)

    def _run(self) -> None:
        started = time.monotonic()
        try:
            while not self._stop.is_set():
                self._transaction()
                ahead_s = self._made / self.feed.rate_per_s - (time.monotonic() - started)
                self._stop.wait(max(0.0, ahead_s))
        except BaseException as failure:  # noqa: BLE001 - handed to whoever calls stop()
            self._failure = failure

    def _key(self, number: int) -> str:
        return f"entity-{number:04d}"

    def _transaction(self) -> None:
        size = self._chance.randint(1, self.feed.burst_max)
        topics = sorted(self.feed.topics)
        places = [(self._chance.choice(topics), self._key(self._chance.randrange(self.feed.keys))) for _ in range(size)]
        self._write(places, abort=self._chance.random() < self.feed.abort_share)

    def _write(self, places: list[tuple[str, str]], *, abort: bool) -> None:
        numbers = self._numbers.copy()
        landed: list[Input] = []
        errors: list[KafkaError] = []
        drafts: list[_Draft] = []
        self._producer.begin_transaction()
        for topic, key in places:
            numbers[topic, key] += 1
            self._made += 1
            draft = _Draft(topic, key, f"{self._name}-{self._made}", numbers[topic, key])
            drafts.append(draft)
            self._produce(draft, landed, errors)
        if abort:
            self._producer.flush(TRANSACTION_TIMEOUT_S)  # the records lie in the log; only the marker tells
        committed = not abort and self._commit()
        if not committed:
            self._producer.abort_transaction(TRANSACTION_TIMEOUT_S)
            self.fed.aborted += [draft.id for draft in drafts]
            self.fed.transactions_aborted += 1
            return
        if errors or len(landed) != len(drafts):
            raise AssertionError(f"the feeder committed {len(landed)} of {len(drafts)} records: {errors[:3]}")
        self._numbers = numbers
        self.fed.committed += landed

    def _produce(self, draft: _Draft, landed: list[Input], errors: list[KafkaError]) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                errors.append(error)
                return
            landed.append(Input(draft.topic, message.partition(), message.offset(), draft.key, draft.id, draft.n))

        wire = self.feed.topics[draft.topic]
        self._producer.produce(
            draft.topic,
            key=draft.key.encode(),
            value=wire.encode({"entity": draft.key, "n": draft.n, **_defaults(wire)}),
            headers=headers(draft.id, draft.key),
            on_delivery=delivered,
        )

    def _commit(self) -> bool:
        """False if the transaction has to be aborted (a broker restart may leave no other way)."""
        deadline = time.monotonic() + TRANSACTION_TIMEOUT_S
        while True:
            try:
                self._producer.commit_transaction(TRANSACTION_TIMEOUT_S)
                return True
            except KafkaException as failure:
                error: KafkaError = failure.args[0]
                if error.txn_requires_abort():
                    return False
                if not error.retriable() or time.monotonic() > deadline:
                    raise


def headers(event_id: str, key: str) -> list[tuple[str, bytes]]:
    """What an outside producer that knows CloudEvents sends along."""
    return [
        ("ce_id", event_id.encode()),
        ("ce_source", b"/tests/feeder"),
        ("ce_type", b"choreo.chaos.Arrived"),
        ("ce_specversion", b"1.0"),
        ("ce_subject", key.encode()),
        ("content-type", b"application/avro"),
    ]


def _defaults(wire: Wire) -> dict[str, Any]:
    """Values of fields with defaults; fastavro fills them in itself, other writers do not."""
    return {field["name"]: field["default"] for field in wire.schema["fields"] if "default" in field}
