"""Watches a round as it goes: what was asked for, what was decided, what is still on its way."""

from __future__ import annotations

import threading
from collections import Counter

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.chaos import reader
from tests.chaos.bank.collect import DECISIONS_TOPIC, Wires, changelog, decision
from tests.chaos.bank.evidence import CREDIT, CREDITS, DEBIT, OUTCOMES, READS, REFUNDS, TRANSFERS, Place, Snapshot

FOLLOWED = (TRANSFERS, CREDITS, REFUNDS, OUTCOMES)
SNAPSHOT_EVERY_S = 0.7
SNAPSHOT_TIMEOUT_S = 2.0


class Watch:
    """A concurrent reader at ``read_committed``. ``poll`` takes in what came; everything else answers from memory."""

    def __init__(self, bootstrap: str, wires: Wires) -> None:
        self.seen: list[tuple[Place, str]] = []  # decisions: place, event id
        self.decided_by: Counter[str] = Counter()
        self._wires = wires
        self._follower = reader.Follower(bootstrap, DECISIONS_TOPIC, *FOLLOWED)
        self._taken = 0
        self._inputs: set[tuple[str, Place]] = set()
        self._decided: set[tuple[str, Place]] = set()
        self._emitted: set[str] = set()
        self._arrived: set[str] = set()
        self._transfers = 0

    def poll(self) -> int:
        """Takes in what came since the last time; how many decisions were among it."""
        self._follower.require_alive()
        found = self._follower.found
        end, before = len(found), len(self.seen)
        for record in found[self._taken : end]:
            place = Place(record.topic, record.partition, record.offset)
            if record.topic == DECISIONS_TOPIC:
                one = decision(record, self._wires)
                self.seen.append((place, one.event_id))
                self.decided_by[one.agent] += 1
                self._decided.add((one.agent, one.input))
                self._emitted |= {event_id for topic, event_id in one.emits if topic in FOLLOWED}
                continue
            self._transfers += record.topic == TRANSFERS
            self._arrived.add(record.header("ce_id"))
            self._inputs |= {(agent, place) for agent, topics in READS.items() if record.topic in topics}
        self._taken = end
        return len(self.seen) - before

    def settled(self, transfers: int) -> bool:
        """Whether so many transfers came and everything that follows from them was decided."""
        return self._transfers >= transfers and not self.undecided() and self._emitted <= self._arrived

    def undecided(self) -> list[tuple[str, Place]]:
        """Events that wait for an agent."""
        return sorted(self._inputs - self._decided)

    def told(self) -> str:
        """How far the reader came and what errors it met, for the report of a stall."""
        ends = dict(sorted(self._follower.places().items()))
        return f"the watching reader read up to {ends}; its latest errors: {list(self._follower.errors)}"

    def stop(self) -> None:
        self._follower.stop()


class Snapshots:
    """Notes, again and again, how far the two account tables can be read at ``read_committed``.

    The receiving side is read first: what it holds by then was paid before, and so lies within what is read second.
    """

    def __init__(self, bootstrap: str, partitions: int) -> None:
        self.taken: list[Snapshot] = []
        self._client = reader.admin(bootstrap)
        self._partitions = partitions
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10 * SNAPSHOT_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.wait(SNAPSHOT_EVERY_S):
            try:
                receiving = _ends(self._client, changelog(CREDIT), self._partitions)
                paying = _ends(self._client, changelog(DEBIT), self._partitions)
            except (KafkaException, TimeoutError):  # the broker is away: that is one of the faults
                continue
            if self._is_later(receiving, paying):
                self.taken.append(Snapshot(receiving, paying))

    def _is_later(self, receiving: dict[int, int], paying: dict[int, int]) -> bool:
        """Whether nothing lies before the last snapshot: a broker that has just come back tells of old ends first."""
        if not self.taken:
            return True
        last = self.taken[-1]
        return all(receiving[number] >= end for number, end in last.receiving.items()) and all(
            paying[number] >= end for number, end in last.paying.items()
        )


def _ends(client: AdminClient, topic: str, partitions: int) -> dict[int, int]:
    """Partition → last stable offset."""
    answers = client.list_offsets(
        {TopicPartition(topic, number): OffsetSpec.latest() for number in range(partitions)},
        isolation_level=IsolationLevel.READ_COMMITTED,
        request_timeout=SNAPSHOT_TIMEOUT_S,
    )
    return {place.partition: future.result(2 * SNAPSHOT_TIMEOUT_S).offset for place, future in answers.items()}
