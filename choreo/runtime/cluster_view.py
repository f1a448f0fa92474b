"""What Kafka knows about a topology's agents: who works, how far they are, what lies aside."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient, OffsetSpec

from choreo.runtime.facts import unreachable
from choreo.runtime.kafka_config import REQUEST_TIMEOUT_S
from choreo.runtime.log_ends import log_ends
from choreo.runtime.preflight import cluster_topics
from choreo.topology import names
from choreo.topology.model import Agent, Topology

NO_GROUP: Final = "no group"
# A cluster that has never seen a group makes the topic for their offsets first, and says meanwhile that nobody is in
# charge. (Asked for offsets in that moment, librdkafka 2.16 crashes the process; so the group is looked at first.)
COORDINATOR_MOVES: Final = frozenset({"NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"})
COORDINATOR_POLL_S: Final = 0.2


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
    views = []
    for agent, group in zip(agents, groups, strict=True):
        state, members = group_members(admin, bootstrap, group)
        committed = {} if state == NO_GROUP else committed_offsets(admin, bootstrap, group)
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


def group_members(admin: AdminClient, bootstrap: str, group: str) -> tuple[str, tuple[str, ...]]:
    """State of a group and the names of its members."""
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while True:
        try:
            request = admin.describe_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_S)
            description = request[group].result(REQUEST_TIMEOUT_S)
        except KafkaException as error:
            name = error.args[0].name()
            if name == "GROUP_ID_NOT_FOUND":
                return NO_GROUP, ()
            if name not in COORDINATOR_MOVES or time.monotonic() > deadline:
                raise unreachable(f"{name}: {error.args[0].str().lower()}", bootstrap) from error
            time.sleep(COORDINATOR_POLL_S)
            continue
        state = description.state.name.lower().replace("_", " ")
        members = tuple(sorted(one.group_instance_id or one.client_id for one in description.members))
        return (NO_GROUP if state == "dead" else state), members


def committed_offsets(admin: AdminClient, bootstrap: str, group: str) -> dict[tuple[str, int], int]:
    """Committed offsets of a group, without waiting for transactions that are under way; empty for an unknown group."""
    request = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group)], require_stable=False, request_timeout=REQUEST_TIMEOUT_S
    )
    try:
        answer = request[group].result(REQUEST_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].name() == "GROUP_ID_NOT_FOUND":
            return {}
        raise unreachable(error.args[0].str().lower(), bootstrap) from error
    return {(one.topic, one.partition): one.offset for one in answer.topic_partitions if one.offset >= 0}
