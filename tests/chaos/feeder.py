"""Writes the input of the counting agents: commits and aborts interleaved, so that offsets have gaps.

What it says it committed is checked against what a reader finds (`reader.inputs`): neither is believed alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from choreo.testing.checkers import Input
from tests.chaos.transactions import Draft, Pump, Transactions
from tests.chaos.wire import Wire

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

    topics: Mapping[str, Wire]
    keys: int = 200
    rate_per_s: float = 300.0
    abort_share: float = 0.15
    burst_max: int = 40


@dataclass
class Fed:
    """What was written so far."""

    committed: list[Input] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    transactions_aborted: int = 0


class Feeder(Pump):
    """Feeds until told to stop. ``pump`` feeds at once in this thread, ``start`` and ``stop`` feed in another."""

    def __init__(self, bootstrap: str, feed: Feed, *, seed: int, name: str) -> None:
        super().__init__(feed.rate_per_s)
        self.feed = feed
        self.fed = Fed()
        self._chance = random.Random(f"feeder {seed}")
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._name = name
        self._writer = Transactions(bootstrap, name)

    def stop(self) -> Fed:
        """Ends the thread and returns all that it wrote; raises what made it fail."""
        self.halt()
        return self.fed

    def pump(self, events: int) -> Fed:
        """Commits at least so many events now."""
        target = len(self.fed.committed) + events
        while len(self.fed.committed) < target:
            self.transaction()
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
        ids = [f"{self._name}{SHOW}{number}" for number in range(self.feed.keys)]
        keys = [self._key(number) for number in range(self.feed.keys)]
        drafts = [
            Draft(topic, key.encode(), wire.encode({"entity": key, "n": 0, "order": "show"}), headers(event_id, key))
            for key, event_id in zip(keys, ids, strict=True)
        ]
        assert self._writer.write(drafts) is not None, "the questions for rows were aborted"
        return frozenset(ids)

    def _key(self, number: int) -> str:
        return f"entity-{number:04d}"

    def transaction(self) -> None:
        size = self._chance.randint(1, self.feed.burst_max)
        topics = sorted(self.feed.topics)
        places = [(self._chance.choice(topics), self._key(self._chance.randrange(self.feed.keys))) for _ in range(size)]
        self._write(places, abort=self._chance.random() < self.feed.abort_share)

    def _write(self, places: list[tuple[str, str]], *, abort: bool) -> None:
        numbers = self._numbers.copy()
        drafts: list[Draft] = []
        planned: list[tuple[str, str, str, int]] = []
        for topic, key in places:
            numbers[topic, key] += 1
            self.made += 1
            event_id, n = f"{self._name}-{self.made}", numbers[topic, key]
            wire = self.feed.topics[topic]
            value = wire.encode({"entity": key, "n": n, **_defaults(wire)})
            drafts.append(Draft(topic, key.encode(), value, headers(event_id, key)))
            planned.append((topic, key, event_id, n))
        landed = self._writer.write(drafts, abort=abort)
        if landed is None:
            self.fed.aborted += [event_id for _, _, event_id, _ in planned]
            self.fed.transactions_aborted += 1
            return
        self._numbers = numbers
        self.fed.committed += [
            Input(topic, place.partition, place.offset, key, event_id, n)
            for (topic, key, event_id, n), place in zip(planned, landed, strict=True)
        ]


def headers(event_id: str, key: str, type_name: str = "choreo.chaos.Arrived") -> list[tuple[str, bytes]]:
    """What an outside producer that knows CloudEvents sends along."""
    return [
        ("ce_id", event_id.encode()),
        ("ce_source", b"/tests/feeder"),
        ("ce_type", type_name.encode()),
        ("ce_specversion", b"1.0"),
        ("ce_subject", key.encode()),
        ("content-type", b"application/avro"),
    ]


def _defaults(wire: Wire) -> dict[str, Any]:
    """Values of fields with defaults; fastavro fills them in itself, other writers do not."""
    return {field["name"]: field["default"] for field in wire.schema["fields"] if "default" in field}
