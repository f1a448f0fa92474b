"""Follows a run while it happens: what is in, what is decided, when the decision could be seen.

It reads what everybody else may read, at read_committed. What it notes is for progress, for knowing when to stop
waiting and for latencies; whether all is accounted for is decided afterwards from a second, complete reading.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from confluent_kafka import TopicPartition

from choreo.cli._demo.accounting import Place
from choreo.cli._demo.ledger import Client, Decoders, Entry, Sources, entry_of


class Watch:
    """Counts from the offsets at which it was made.

    Args:
        client: how to reach the cluster.
        topics: the topology's topics.
        decisions: its decisions topic.
        letters: its dead-letter topics.
        reads: agent → topics it reads.
        sources: who wrote a record.
    """

    def __init__(
        self,
        client: Client,
        topics: Iterable[str],
        *,
        decisions: str,
        letters: Iterable[str],
        reads: Mapping[str, Sequence[str]],
        sources: Sources,
    ) -> None:
        self._readers: dict[str, list[str]] = {topic: [] for topic in topics}
        for agent, inputs in reads.items():
            for topic in inputs:
                self._readers[topic].append(agent)
        self._decisions = decisions
        self._letters = frozenset(letters)
        self._decoders = Decoders()
        self._sources = sources
        partitions = client.partitions([*self._readers, decisions, *self._letters])
        self.starts = client.ends(partitions)
        self._consumer = client.consumer()
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in self.starts.items()])
        # (agent, place): +1 a record that the agent has to decide, -1 a decision whose record was not read yet
        self._open: dict[tuple[str, Place], int] = {}
        self._appended_ms: dict[Place, int] = {}
        self._seen_ms: dict[str, list[tuple[Place, float]]] = {agent: [] for agent in reads}
        self._undecided = 0
        self._last_decision_ms = 0.0
        self.outside = 0
        self.decided: Counter[str] = Counter()
        self.letters = 0
        self.last_news_s = time.monotonic()

    def poll(self, wait_s: float, batch: int) -> None:
        """Take up to ``batch`` records."""
        messages = self._consumer.consume(batch, wait_s)
        now_ms = time.time() * 1000
        for message in messages:
            entry = entry_of(message)
            if entry is not None:
                self.last_news_s = time.monotonic()
                self._take(entry, now_ms)

    def close(self) -> None:
        self._consumer.close()

    @property
    def undecided(self) -> int:
        """(agent, record) pairs that were read and not decided yet."""
        return max(0, self._undecided)

    def undecided_of(self, fed: int) -> int:
        """The same, with the events that were fed and not even read yet."""
        return self.undecided + max(0, fed - self.outside)

    @property
    def settled(self) -> bool:
        """Everything that was read is decided."""
        return not self._open

    def decided_up_to(self, ends: Mapping[tuple[str, int], int]) -> bool:
        """Everything below the ends was read and is decided."""
        positions = self._consumer.position([TopicPartition(*place) for place in ends])
        # -1001: nothing was read there yet; then the start is the position
        if any(
            max(place.offset, self.starts[(place.topic, place.partition)]) < ends[(place.topic, place.partition)]
            for place in positions
        ):
            return False
        return all(offset >= ends[(topic, number)] for _, (topic, number, offset) in self._open)

    @property
    def quiet_s(self) -> float:
        """How long nothing has come."""
        return time.monotonic() - self.last_news_s

    def latencies_ms(self) -> dict[str, list[float]]:
        """By agent: from Kafka's append of an input to the moment a reader at read_committed had its decision."""
        appended = self._appended_ms
        return {
            agent: [seen - appended[place] for place, seen in pairs if place in appended]
            for agent, pairs in self._seen_ms.items()
        }

    def span_s(self) -> float:
        """From the first input's append to the last decision seen."""
        if not self._appended_ms or not self._last_decision_ms:
            return 0.0
        return max(0.0, (self._last_decision_ms - min(self._appended_ms.values())) / 1000)

    def _take(self, entry: Entry, now_ms: float) -> None:
        if entry.topic == self._decisions:
            decided, _ = self._decoders.decision(entry)
            self.decided[decided.agent] += 1
            if decided.place is not None:
                self._last_decision_ms = now_ms
                self._seen_ms[decided.agent].append((decided.place, now_ms))
                self._balance((decided.agent, decided.place), -1)
        elif entry.topic in self._letters:
            self.letters += 1
        else:
            place = (entry.topic, entry.partition, entry.offset)
            self._appended_ms[place] = entry.timestamp_ms
            if self._sources.agent(entry) is None:
                self.outside += 1
            for agent in self._readers[entry.topic]:
                self._balance((agent, place), +1)

    def _balance(self, pair: tuple[str, Place], change: int) -> None:
        self._undecided += change
        balance = self._open.get(pair, 0) + change
        if balance:
            self._open[pair] = balance
        else:
            del self._open[pair]
