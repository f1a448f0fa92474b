"""What Kafka knows about a topology's agents: who works, how far they are, what lies aside."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from choreo.runtime.facts import unreachable
from choreo.runtime.group_look import NO_GROUP, Asked, GroupLook
from choreo.runtime.group_offsets import GroupOffsets
from choreo.runtime.kafka_config import REQUEST_TIMEOUT_S
from choreo.runtime.log_ends import log_ends
from choreo.runtime.preflight import cluster_topics
from choreo.topology import names
from choreo.topology.model import Agent, Topology

AGAIN_S: Final = 0.2
"""Where the group's coordinator is moving; also the case while a new cluster makes the topic for offsets."""


@dataclass(frozen=True, slots=True)
class AgentView:
    """One agent at one moment.

    Args:
        members: instance names of its workers, as the group knows them.
        lag: records not yet finished, by input topic; None where nothing is committed yet and records wait.
        missing: topics that do not exist.
    """

    agent: str
    kind: str
    state: str
    members: tuple[str, ...]
    lag: Mapping[str, int | None]
    dead_letters: int
    missing: tuple[str, ...]

    @property
    def lag_total(self) -> int | None:
        """Sum over the topics; None if any is unknown."""
        values = [value for value in self.lag.values() if value is not None]
        return sum(values) if len(values) == len(self.lag) else None


def view_agents(topology: Topology, admin: AdminClient, bootstrap: str) -> list[AgentView]:
    """All agents of a topology.

    Raises:
        HostError: CH0801, the cluster does not answer.
    """
    existing = cluster_topics(admin, bootstrap)
    agents = list(topology.agents.values())
    groups = [names.group(topology.name, agent.name) for agent in agents]
    wanted: set[tuple[str, int]] = set()
    for agent in agents:
        topics = [*agent.reads, *([] if agent.kind == "faust" else [names.dead_letters(topology.name, agent.name)])]
        wanted |= {(topic, number) for topic in topics for number in range(existing.get(topic, 0))}
    security = topology.cluster.security
    ends = log_ends(bootstrap, security, wanted, OffsetSpec.latest())
    starts = log_ends(bootstrap, security, wanted, OffsetSpec.earliest())
    asked = GroupLook(bootstrap, security)
    views = []
    for agent, group in zip(agents, groups, strict=True):
        state, members = group_members(asked, bootstrap, group)
        places = [(topic, number) for topic in agent.reads for number in range(existing.get(topic, 0))]
        committed = {} if state == NO_GROUP else committed_offsets(bootstrap, security, group, places)
        views.append(_view(topology, agent, existing, state, members, committed, starts, ends))
    return views


def _view(
    topology: Topology,
    agent: Agent,
    existing: Mapping[str, int],
    state: str,
    members: tuple[str, ...],
    committed: Mapping[tuple[str, int], int],
    starts: Mapping[tuple[str, int], int],
    ends: Mapping[tuple[str, int], int],
) -> AgentView:
    lag: dict[str, int | None] = {}
    for topic in agent.reads:
        lag[topic] = 0
        for place in ((topic, number) for number in range(existing.get(topic, 0))):
            waiting = ends.get(place, 0) - committed.get(place, starts.get(place, 0))
            known = place in committed or waiting == 0 or agent.start == "earliest"
            so_far = lag[topic]
            lag[topic] = so_far + max(waiting, 0) if known and so_far is not None else None
    letters = names.dead_letters(topology.name, agent.name)
    places = [(letters, number) for number in range(existing.get(letters, 0))]
    missing = tuple(topic for topic in [*agent.reads, *agent.writes] if topic not in existing)
    dead = sum(ends.get(place, 0) - starts.get(place, 0) for place in places)
    return AgentView(agent.name, agent.kind, state, members, lag, dead, missing)


def group_members(groups: Asked, bootstrap: str, group: str) -> tuple[str, tuple[str, ...]]:
    """State of a group and the names of its members.

    Raises:
        HostError: CH0801, no answer in time.
    """
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while True:
        try:
            state, members = groups.look(group, REQUEST_TIMEOUT_S)
            return state, tuple(sorted(member.instance for member in members))
        except KafkaException as error:
            if time.monotonic() > deadline:
                raise unreachable(error.args[0].str(), bootstrap) from error
        time.sleep(AGAIN_S)


def committed_offsets(
    bootstrap: str, security: Mapping[str, str], group: str, places: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """Committed offsets of a group, without waiting for transactions that are under way.

    Raises:
        HostError: CH0801, no answer.
    """
    client = GroupOffsets(bootstrap, security, group, stable=False)
    try:
        found = client.ask([TopicPartition(topic, number) for topic, number in places], REQUEST_TIMEOUT_S)
    finally:
        client.close()
    if found is None:
        raise unreachable("no answer in time", bootstrap)
    return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}
