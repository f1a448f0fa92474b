"""Notices partitions that a stable group has given to nobody.

In a cooperative rebalance a member first gives partitions up and then joins once more, so that they can be given to
somebody else. A static member that dies in between is answered from memory when it comes back under its name: no
rebalance, its remaining partitions as before, and what it gave up stays with nobody until the next rebalance, which may
never come (seen on Kafka 4.3.1; tests/engine/test_unowned_partitions.py). Nothing of the group protocol tells; so one
member of the group looks now and then and, if need be, leaves and joins to make everybody join.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from confluent_kafka import KafkaException

from choreo.runtime.group_look import STABLE, Asked
from choreo.runtime.lookout import Lookout

LOOK_EVERY_MS: Final = 2_000
"""One small request of each worker."""
LOOKS: Final = 3
"""In a row that find the same partitions without an owner: a member that gives partitions up may take its time."""
LOOK_TIMEOUT_S: Final = 5.0
"""Of the thread that asks; nobody waits for it."""


class ClusterMetadata(Protocol):
    """What ``list_topics`` says of the cluster."""

    @property
    def topics(self) -> Mapping[str, object]: ...


class TopicsClient(Protocol):
    """The part of ``AdminClient`` that is used here."""

    def list_topics(self, *, timeout: float) -> ClusterMetadata: ...


class Look(NamedTuple):
    """What one look at the group found. ``missing`` is empty unless the group is stable."""

    missing: frozenset[int]
    speaker: str  # id of the member that acts


_NOTHING: Final = Look(frozenset(), "")


class Unowned:
    """Looks at the group without making its caller wait. For one thread.

    Args:
        groups: for asking; used by nobody else meanwhile.
        client: for asking.
        group: name of the consumer group.
        topic: the topic that the group subscribes to.
        partitions: how many it has.
        member_id: tells this member's id in the group; "" or None while it has none.
    """

    def __init__(
        self,
        groups: Asked,
        client: TopicsClient,
        *,
        group: str,
        topic: str,
        partitions: int,
        member_id: Callable[[], str | None],
    ) -> None:
        self._groups = groups
        self._group = group
        self._client = client
        self._topic = topic
        self._all = frozenset(range(partitions))
        self._member_id = member_id
        self._lookout = Lookout("choreo-unowned", LOOK_EVERY_MS, LOOKS, self._look)

    def found(self, now_ms: int) -> frozenset[int]:
        """Partitions that have no owner, once that is sure and this member has to act; otherwise nothing."""
        look = self._lookout.seen(now_ms)
        if look is None or not look.missing or look.speaker != self._member_id():
            return frozenset()
        self._lookout.begin_anew()
        return look.missing

    def stop(self) -> None:
        """Asks no more."""
        self._lookout.stop()

    def _look(self) -> Look:
        try:
            state, members = self._groups.look(self._group, LOOK_TIMEOUT_S)
            if state != STABLE or not members:
                return _NOTHING
            owned = {number for member in members for number in assigned(member.assignment, self._topic)}
            if not owned and self._topic not in self._client.list_topics(timeout=LOOK_TIMEOUT_S).topics:
                return _NOTHING  # the topic is gone
        except KafkaException:  # nobody answers: then there is nothing to be sure of
            return _NOTHING
        return Look(self._all - owned, min(member.id for member in members))


def assigned(assignment: bytes, topic: str) -> list[int]:
    """Partitions of a topic in a member's assignment.

    Source: Kafka's ``ConsumerProtocolAssignment``, all versions: they begin the same way.
    """
    numbers: list[int] = []
    if not assignment:
        return numbers
    (topics,) = struct.unpack_from(">i", assignment, 2)
    at = 6
    for _ in range(topics):
        (length,) = struct.unpack_from(">h", assignment, at)
        name = assignment[at + 2 : at + 2 + length]
        at += 2 + length
        (count,) = struct.unpack_from(">i", assignment, at)
        found = struct.unpack_from(f">{count}i", assignment, at + 4)
        at += 4 + 4 * count
        if name == topic.encode():
            numbers.extend(found)
    return numbers
