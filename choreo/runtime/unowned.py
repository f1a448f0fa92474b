"""Notices partitions that a stable group has given to nobody.

In a cooperative rebalance a member first gives partitions up and then joins once more, so that they can be given to
somebody else. A static member that dies in between is answered from memory when it comes back under its name: no
rebalance, its remaining partitions as before, and what it gave up stays with nobody until the next rebalance, which may
never come (seen on Kafka 4.3.1; tests/engine/test_unowned_partitions.py). Nothing of the group protocol tells; so one
member of the group looks now and then and, if need be, leaves and joins to make everybody join.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple, Protocol

from confluent_kafka import KafkaException

LOOK_EVERY_MS: Final = 2_000
"""One small request of each worker."""
LOOKS: Final = 3
"""In a row that find the same partitions without an owner: a member that gives partitions up may take its time."""
LOOK_TIMEOUT_S: Final = 5.0
"""Of the thread that asks; nobody waits for it."""
_STABLE: Final = "Stable"


class GroupMember(Protocol):
    """What ``list_groups`` says of a member."""

    @property
    def id(self) -> str: ...
    @property
    def assignment(self) -> bytes: ...


class GroupMetadata(Protocol):
    """What ``list_groups`` says of a group."""

    @property
    def state(self) -> str: ...
    @property
    def members(self) -> list[GroupMember]: ...


class ClusterMetadata(Protocol):
    """What ``list_topics`` says of the cluster."""

    @property
    def topics(self) -> Mapping[str, object]: ...


class GroupClient(Protocol):
    """The part of ``AdminClient`` that is used here."""

    def list_groups(self, group: str, timeout: float) -> list[GroupMetadata]: ...
    def list_topics(self, *, timeout: float) -> ClusterMetadata: ...


class Look(NamedTuple):
    """What one look at the group found. ``missing`` is empty unless the group is stable."""

    missing: frozenset[int]
    speaker: str  # id of the member that acts


_NOTHING: Final = Look(frozenset(), "")


class Unowned:
    """Looks at the group without making its caller wait. For one thread.

    The request is the old ``list_groups``, in a thread: librdkafka 2.16.1 ends the process (assertion ``eonce->refcnt
    > 0``, its issue 4605) when ``describe_consumer_groups`` runs into its timeout, as it does while the broker is away.

    Args:
        client: for asking; used by nobody else meanwhile.
        group: name of the consumer group.
        topic: the topic that the group subscribes to.
        partitions: how many it has.
        member_id: tells this member's id in the group; "" or None while it has none.
    """

    def __init__(
        self, client: GroupClient, *, group: str, topic: str, partitions: int, member_id: Callable[[], str | None]
    ) -> None:
        self._client = client
        self._group = group
        self._topic = topic
        self._all = frozenset(range(partitions))
        self._member_id = member_id
        self._pool = ThreadPoolExecutor(1, "choreo-unowned")
        self._asked: Future[Look] | None = None
        self._next_ms = 0
        self._looks: list[Look] = []

    def found(self, now_ms: int) -> frozenset[int]:
        """Partitions that have no owner, once that is sure and this member has to act; otherwise nothing."""
        if self._asked is None:
            if not self._next_ms - LOOK_EVERY_MS <= now_ms < self._next_ms:  # due, or the clock was set back
                self._next_ms = now_ms + LOOK_EVERY_MS
                self._asked = self._pool.submit(self._look)
            return frozenset()
        if not self._asked.done():
            return frozenset()
        look, self._asked = self._asked.result(), None
        self._looks = [*self._looks, look] if look.missing and look in self._looks[-1:] else [look]
        if len(self._looks) < LOOKS or look.speaker != self._member_id():
            return frozenset()
        self._looks = []
        return look.missing

    def stop(self) -> None:
        """Asks no more; what is being asked ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> Look:
        # deprecated for the request that cannot be used; said here because whoever sets filters anew drops ours
        warnings.filterwarnings("ignore", r"list_groups\(\) is deprecated", DeprecationWarning)
        try:
            groups = self._client.list_groups(self._group, LOOK_TIMEOUT_S)
            if len(groups) != 1 or groups[0].state != _STABLE or not groups[0].members:
                return _NOTHING
            members = groups[0].members
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
