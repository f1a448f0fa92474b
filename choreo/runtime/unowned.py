"""Notices partitions that a stable group has given to nobody.

In a cooperative rebalance a member first gives partitions up and then joins once more, so that they can be given to
somebody else. A static member that dies in between is answered from memory when it comes back under its name: no
rebalance, its remaining partitions as before, and what it gave up stays with nobody until the next rebalance, which may
never come (seen on Kafka 4.3.1; tests/engine/test_unowned_partitions.py). Nothing of the group protocol tells; so one
member of the group looks now and then and, if need be, leaves and joins to make everybody join.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Final, NamedTuple

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient, ConsumerGroupDescription

from choreo.runtime.kafka_config import REQUEST_TIMEOUT_S

LOOK_EVERY_MS: Final = 2_000
"""One small request of each worker."""
LOOKS: Final = 3
"""In a row that find the same partitions without an owner: a member that gives partitions up may take its time."""


class Look(NamedTuple):
    """What one look at the group found. ``missing`` is empty unless the group is stable."""

    missing: frozenset[int]
    speaker: str  # the member that acts: the first by instance name


class Unowned:
    """Looks at the group without ever waiting for an answer. For one thread.

    Args:
        client: for asking; used by nobody else meanwhile.
        group: name of the consumer group.
        topic: the topic that the group subscribes to.
        partitions: how many it has.
        instance: this member's ``group.instance.id``.
    """

    def __init__(self, client: AdminClient, *, group: str, topic: str, partitions: int, instance: str) -> None:
        self._client = client
        self._group = group
        self._topic = topic
        self._all = frozenset(range(partitions))
        self._instance = instance
        self._asked: Future[ConsumerGroupDescription] | None = None
        self._next_ms = 0
        self._looks: list[Look] = []

    def found(self, now_ms: int) -> frozenset[int]:
        """Partitions that have no owner, once that is sure and this member has to act; otherwise nothing."""
        if self._asked is None:
            if not self._next_ms - LOOK_EVERY_MS <= now_ms < self._next_ms:  # due, or the clock was set back
                self._next_ms = now_ms + LOOK_EVERY_MS
                answers = self._client.describe_consumer_groups([self._group], request_timeout=REQUEST_TIMEOUT_S)
                self._asked = answers[self._group]
            return frozenset()
        if not self._asked.done():
            return frozenset()
        answer, self._asked = self._asked, None
        try:
            look = self._look(answer.result())
        except KafkaException:  # nobody answers: then there is nothing to be sure of
            look = Look(frozenset(), "")
        self._looks = [*self._looks, look] if look.missing and look in self._looks[-1:] else [look]
        if len(self._looks) < LOOKS or look.speaker != self._instance:
            return frozenset()
        self._looks = []
        return look.missing

    def _look(self, group: ConsumerGroupDescription) -> Look:
        if group.state != ConsumerGroupState.STABLE or not group.members:
            return Look(frozenset(), "")
        owned = {
            place.partition
            for member in group.members
            for place in member.assignment.topic_partitions
            if place.topic == self._topic
        }
        return Look(self._all - owned, min(member.group_instance_id or "" for member in group.members))
