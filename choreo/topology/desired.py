"""Which Kafka topics and registered schemas a topology wants: declared ones and choreo's own.

Settings that decide about a promise are always spelled out, never left to the cluster's defaults. Two are the same for
all topics: ``LogAppendTime``, because retention would delete records dated in the past at once, and the size limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from choreo.topology import names
from choreo.topology.model import Agent, Compatibility, Topic, Topology

# A dead letter, a parked event and a re-driven one hold the original record and what went wrong with it.
DEAD_LETTER_EXTRA_BYTES: Final = 64 * 1024
# Kafka's usual limit; rows, timers and journal records are made by us and checked against it.
INTERNAL_BYTES_MAX: Final = 1_048_576
DAY_MS: Final = 86_400_000
# Decision records are folded into the lineage store; a week bridges its absence.
DECISIONS_RETENTION_MS: Final = 7 * DAY_MS
# What people settled for an agent waits here for its worker. A month bridges a worker that is down for long.
SETTLED_RETENTION_MS: Final = 30 * DAY_MS
# Stores on disk are trusted for half of this; a shorter time would wipe them after a weekend.
TOMBSTONES_KEPT_MS: Final = DAY_MS
# Only closed segments are compacted, and a restart reads what is not: small ones keep restarts short.
COMPACT_SEGMENT_BYTES: Final = 16 * 1024 * 1024
COMPACT_SEGMENT_MS: Final = 3_600_000
# The journal is deleted step by step; without a bound its tombstones would wait for the ratio.
JOURNAL_LAG_MS_MAX: Final = 600_000
FOR_EVER: Final = -1

Config = Mapping[str, str]
Purpose = Literal["events", "table", "journal", "timers", "parked", "dead letters", "inbox", "decisions", "reference"]


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """A topic as it should be on the cluster.

    Args:
        name: in Kafka.
        partitions: how many.
        config: topic settings that matter; others are the cluster's business.
        purpose: what it is for.
        owner: agent, table or topic of the file that it exists for.
        external: somebody else's: only looked at.
        stateful: state is aligned with its partitions, so that their number cannot change once there is data.
        at_least: more partitions than wanted do no harm.
        replication: replicas when created; None leaves it to the cluster.
    """

    name: str
    partitions: int
    config: Config
    purpose: Purpose
    owner: str
    external: bool = False
    stateful: bool = False
    at_least: bool = False
    replication: int | None = None


@dataclass(frozen=True, slots=True)
class WantedSchema:
    """A schema that should be the newest of its subject."""

    subject: str
    record: str  # name in the SchemaSet
    compatibility: Compatibility
    owner: tuple[str, str]  # section and name in the file
    external: bool = False


def subject_of(topic: str) -> str:
    """Registry subject of a topic's values."""
    return f"{topic}-value"


def wanted_topics(topology: Topology) -> dict[str, WantedTopic]:
    """All topics of a topology, by name, declared ones first."""
    found = {}
    for one in (*_declared(topology), *_internal(topology)):
        found[one.name] = one
    return found


def wanted_schemas(topology: Topology) -> list[WantedSchema]:
    """Schemas of all topics whose values users define: events, changelogs, reference tables."""
    found = [
        WantedSchema(subject_of(topic.name), topic.schema, topic.compatibility, ("topics", topic.name), topic.external)
        for topic in topology.topics.values()
    ]
    for agent in topology.agents.values():
        for name in own_tables(topology, agent):
            subject = subject_of(names.changelog(topology.name, agent.name, name))
            found.append(WantedSchema(subject, topology.tables[name].schema, "BACKWARD", ("tables", name)))
    for table in topology.tables.values():
        if table.reference:
            subject = subject_of(names.reference(topology.name, table.name))
            found.append(WantedSchema(subject, table.schema, "BACKWARD", ("tables", table.name)))
    return found


def own_tables(topology: Topology, agent: Agent) -> list[str]:
    """Tables that an agent keeps itself."""
    return [name for name in agent.tables if name in topology.tables and not topology.tables[name].reference]


def largest_input(topology: Topology, agent: Agent) -> int:
    """Bytes of the largest record an agent may have to read."""
    sizes = [topology.topics[name].message_bytes_max for name in agent.reads if name in topology.topics]
    return max(sizes, default=INTERNAL_BYTES_MAX)


def _declared(topology: Topology) -> Iterator[WantedTopic]:
    engines = [agent for agent in topology.agents.values() if agent.kind != "faust"]
    stateful = {name for agent in engines for name in agent.reads}
    stateful |= {name for agent in topology.agents.values() if agent.tables for name in agent.reads}
    for topic in topology.topics.values():
        yield WantedTopic(
            topic.name,
            topic.partitions,
            {} if topic.external else _event_config(topology, topic),
            "events",
            topic.name,
            external=topic.external,
            stateful=topic.name in stateful,
            replication=topology.cluster.replication,
        )


def _internal(topology: Topology) -> Iterator[WantedTopic]:
    replication = topology.cluster.replication

    def topic(name: str, partitions: int, config: Config, purpose: Purpose, owner: str) -> WantedTopic:
        stateful = purpose not in ("dead letters", "decisions", "reference")
        at_least = purpose in ("dead letters", "decisions")
        return WantedTopic(
            name,
            partitions,
            {**config, **_common(topology)},
            purpose,
            owner,
            stateful=stateful,
            at_least=at_least,
            replication=replication,
        )

    root = topology.name
    for agent in topology.agents.values():
        count = topology.partitions_of(agent.name)
        for table in own_tables(topology, agent):
            yield topic(names.changelog(root, agent.name, table), count, _compact(), "table", table)
        if agent.kind == "faust":
            continue
        held = largest_input(topology, agent) + DEAD_LETTER_EXTRA_BYTES
        yield topic(names.journal(root, agent.name), count, _journal(), "journal", agent.name)
        yield topic(names.timers(root, agent.name), count, _compact(), "timers", agent.name)
        yield topic(names.parked(root, agent.name), count, _compact(held), "parked", agent.name)
        yield topic(names.dead_letters(root, agent.name), count, _log(FOR_EVER, held), "dead letters", agent.name)
        yield topic(names.settled(root, agent.name), count, _log(SETTLED_RETENTION_MS, held), "inbox", agent.name)
    audited = [agent.name for agent in topology.agents.values() if agent.kind != "faust" and agent.audit != "off"]
    if audited:
        count = max(topology.partitions_of(name) for name in audited)
        largest = max(largest_input(topology, topology.agents[name]) for name in audited) + DEAD_LETTER_EXTRA_BYTES
        yield topic(names.decisions(root), count, _log(DECISIONS_RETENTION_MS, largest), "decisions", root)
    for one in topology.tables.values():
        if one.reference:
            yield topic(names.reference(root, one.name), one.partitions, _compact(), "reference", one.name)


def _event_config(topology: Topology, topic: Topic) -> Config:
    policies = ["compact"] if topic.compact else []
    if not topic.compact or topic.retention_ms is not None:
        policies.append("delete")
    retention = FOR_EVER if topic.retention_ms is None else topic.retention_ms
    return {
        "cleanup.policy": ",".join(policies),
        "retention.ms": str(retention),
        "max.message.bytes": str(topic.message_bytes_max),
        **_common(topology),
    }


def _common(topology: Topology) -> Config:
    found = {"message.timestamp.type": "LogAppendTime"}
    if topology.cluster.replication is not None:
        # A commit that one broker alone has seen is lost with that broker.
        found["min.insync.replicas"] = "2" if topology.cluster.replication >= 3 else "1"
    return found


def _compact(bytes_max: int = INTERNAL_BYTES_MAX) -> dict[str, str]:
    return {
        "cleanup.policy": "compact",
        "max.message.bytes": str(bytes_max),
        "min.cleanable.dirty.ratio": "0.1",
        "segment.bytes": str(COMPACT_SEGMENT_BYTES),
        "segment.ms": str(COMPACT_SEGMENT_MS),
        "delete.retention.ms": str(TOMBSTONES_KEPT_MS),
    }


def _journal() -> dict[str, str]:
    return {**_compact(), "max.compaction.lag.ms": str(JOURNAL_LAG_MS_MAX)}


def _log(retention_ms: int, bytes_max: int) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "max.message.bytes": str(bytes_max),
    }
