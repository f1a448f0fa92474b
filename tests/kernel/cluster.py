"""A group of consumers on a ``MemoryBus``: what Kafka's coordinator checks, no more and no less.

Classic protocol, cooperative assignment, static members. The coordinator compares a commit's member id and generation,
never who owns a partition; offsets of an open transaction are unstable; a restarted static member takes its place over
without a rebalance, even when it had given partitions up that nobody has since.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

from choreo.kernel.burst import OffsetCommit
from choreo.kernel.progress import Snapshot, decode_metadata
from choreo.testing.bus import Committed, MemoryBus, MemoryProducer, Transaction
from choreo.topology import names
from tests.kernel.fakes import AGENT, TOPOLOGY

GROUP: Final = names.group(TOPOLOGY, AGENT)

Verdict = Literal["accepted", "rebalancing", "unknown member", "displaced"]


class Metadata(NamedTuple):
    """What a consumer sends along with its offsets."""

    instance: str
    member_id: int
    generation: int


class Member:
    """One consumer, as it knows itself."""

    def __init__(self, instance: str, member_id: int) -> None:
        self.instance = instance
        self.member_id = member_id
        self.generation = -1  # what commits are sent with; the client's own thread may learn it before the callbacks
        self.served = -1  # generation whose assignment the callbacks have handled
        self.owned: set[int] = set()


class Known(NamedTuple):
    """What a coordinator knows about the group's offsets."""

    offsets: Mapping[tuple[str, str, int], Committed]
    unstable: frozenset[tuple[str, int]]  # places that an open transaction may change


class Group:
    """The coordinator's side."""

    def __init__(self, bus: MemoryBus, partitions: int, chance: random.Random) -> None:
        self.rebalances = 0
        self._bus = bus
        self._partitions = range(partitions)
        self._chance = chance
        self._generation = 0
        self._members: dict[str, Member] = {}
        self._joined: set[str] = set()
        self._rebalancing = False
        self._target: dict[int, str] = {}
        self._assignment: dict[str, set[int]] = {}
        self._last_member_id = 0
        self._with_offsets: list[Transaction] = []

    # -- membership ----------------------------------------------------------------------------------------------------

    def join(self, instance: str) -> Member:
        self._last_member_id += 1
        member = Member(instance, self._last_member_id)
        replaces = instance in self._members
        self._members[instance] = member
        self._joined.discard(instance)
        if not replaces:
            self.rebalance()
        elif not self._rebalancing:
            member.generation = self._generation  # answered from memory: no rebalance, whatever it had given up
        return member

    def knows(self, member: Member) -> bool:
        return self._members.get(member.instance) is member

    def displaced(self, member: Member) -> bool:
        """Another consumer has its instance name."""
        return self._members.get(member.instance, member) is not member

    def waits_for(self, instance: str) -> bool:
        return instance in self._members

    def expire(self, instance: str) -> None:
        """The session timed out."""
        if self._members.pop(instance, None) is not None:
            self._joined.discard(instance)
            self.rebalance()

    @property
    def stable(self) -> bool:
        return not self._rebalancing

    def assigned(self) -> dict[str, tuple[Member, set[int]]]:
        """What the coordinator remembers of each member."""
        return {instance: (member, self._assignment.get(instance, set())) for instance, member in self._members.items()}

    def rebalance(self) -> None:
        self._rebalancing = True
        self._complete_if_all_joined()

    def heartbeat(self, member: Member) -> None:
        """What a client does by itself, unless a callback of it is under way: joins again."""
        if self._rebalancing and self.knows(member):
            self._joined.add(member.instance)
            self._complete_if_all_joined()

    def assignment(self, member: Member) -> set[int] | None:
        """A new assignment that the member has not handled yet."""
        if not self.knows(member) or self._rebalancing or member.served == self._generation:
            return None
        member.generation = member.served = self._generation
        return set(self._assignment.get(member.instance, ()))

    def _complete_if_all_joined(self) -> None:
        if not self._members or self._joined != set(self._members):
            return
        self._rebalancing = False
        self._joined = set()
        self._generation += 1
        self.rebalances += 1
        owners = {number: member.instance for member in self._members.values() for number in member.owned}
        self._choose_targets(owners)
        self._assignment = {instance: set() for instance in self._members}
        for number in self._partitions:
            wanted = self._target[number]
            if owners.get(number, wanted) == wanted:  # else its owner gives it up first, and joins again
                self._assignment[wanted].add(number)
        for member in self._members.values():
            if self._chance.random() < 0.5:
                member.generation = self._generation

    def _choose_targets(self, owners: dict[int, str]) -> None:
        instances = sorted(self._members)
        most = -(-len(self._partitions) // len(instances))
        counts = dict.fromkeys(instances, 0)
        free: list[int] = []
        for number in self._partitions:
            owner = owners.get(number)
            if owner is not None and counts[owner] < most and self._chance.random() < 0.8:
                self._target[number] = owner
                counts[owner] += 1
            else:
                free.append(number)
        for number in free:
            least = min(instances, key=lambda instance: (counts[instance], self._chance.random()))
            self._target[number] = least
            counts[least] += 1

    # -- offsets -------------------------------------------------------------------------------------------------------

    def verdict(self, sent: Metadata) -> Verdict:
        """Whether a transaction may commit offsets."""
        member = self._members.get(sent.instance)
        if sent.generation < 0:  # as an administrator's: an empty group accepts it (measured), others do not
            return "unknown member" if self._members else "accepted"
        if member is None:
            return "unknown member"
        if member.member_id != sent.member_id:
            return "displaced"
        return "accepted" if sent.generation == self._generation else "rebalancing"

    def send_offsets(self, producer: MemoryProducer, offsets: Iterable[OffsetCommit]) -> None:
        producer.send_offsets(
            GROUP, {(one.topic, one.partition): Committed(one.offset, one.metadata) for one in offsets}
        )
        transaction = producer._transaction
        assert transaction is not None
        self._with_offsets = [one for one in self._with_offsets if one.state == "open"]
        self._with_offsets.append(transaction)

    def known(self) -> Known:
        """What its coordinator knows now."""
        unstable = frozenset(
            (topic, number) for one in self._with_offsets if one.state == "open" for _, topic, number in one.offsets
        )
        return Known(dict(self._bus._offsets), unstable)

    def committed(self, topic: str, partition: int) -> tuple[Snapshot | None, str]:
        """Progress that was committed last, and by whom."""
        found = self._bus.committed(GROUP, topic, partition)
        return (None, "") if found is None else decode_metadata(found.offset, found.metadata)
