"""Who is in a consumer group. The one place that asks, because the usual request endangers the process.

librdkafka 2.16.1 ends the process (assertion ``eonce->refcnt > 0``, its issue 4605) when ``describe_consumer_groups``
runs into its timeout, as it does while a broker is away. The older ``list_groups`` does not. But a client that has met
a broker that died goes on asking it, and fails (measured with one of three nodes killed); a new client does not.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from choreo.runtime.kafka_config import admin

NO_GROUP: Final = "no group"
STABLE: Final = "stable"
_STATES: Final = {
    "": NO_GROUP,
    "Dead": NO_GROUP,
    "Empty": "empty",
    "Stable": STABLE,
    "PreparingRebalance": "preparing rebalance",
    "CompletingRebalance": "completing rebalance",
}
_UUID_CHARS: Final = 36


class Member(NamedTuple):
    """One member of a group.

    Attributes:
        id: what the group calls it.
        instance: ``group.instance.id`` of a static member, ``client.id`` of any other.
        assignment: what it was given, as the wire has it.
    """

    id: str
    instance: str
    assignment: bytes


class Group(NamedTuple):
    """A group at one moment; ``state`` in Kafka's words, ``no group`` if there is none."""

    state: str
    members: tuple[Member, ...]


class Asked(Protocol):
    """Looks at groups."""

    def look(self, group: str, timeout_s: float) -> Group:
        """See :meth:`GroupLook.look`."""


class GroupLook:
    """Looks at groups, with a client that is kept as long as it gets answers. For one thread at a time."""

    def __init__(self, bootstrap: str, security: Mapping[str, str]) -> None:
        self._settings = {**admin(bootstrap, security), "log_level": 0}
        self._client: AdminClient | None = None

    def look(self, group: str, timeout_s: float) -> Group:
        """State and members.

        Raises:
            KafkaException: no answer, or the group's coordinator is moving.
        """
        # deprecated for the request that cannot be used; said here because whoever sets filters anew drops ours
        warnings.filterwarnings("ignore", r"list_groups\(\) is deprecated", DeprecationWarning)
        client = self._client or AdminClient(self._settings)
        self._client = None
        found = client.list_groups(group, timeout_s)
        self._client = client
        if not found:
            return Group(NO_GROUP, ())
        if found[0].error is not None:
            raise KafkaException(found[0].error)
        state = _STATES.get(found[0].state, found[0].state)
        return Group(state, tuple(Member(one.id, _instance(one.id), one.assignment) for one in found[0].members))


def _instance(member_id: str) -> str:
    """Kafka makes a member's id of its instance, or else of its client id, and a UUID."""
    return member_id[: -_UUID_CHARS - 1]
