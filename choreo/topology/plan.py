"""What has to change on a cluster so that a topology can run there: a list of stages, described before they are done.

``plan`` is pure: the cluster comes in as a value (``apply.inspect`` makes it). ``choreo plan`` prints the stages,
``choreo apply`` walks the same list, and ``--check`` asks whether it is empty.

What cannot be done without tearing an entity's state from its events, or without deleting data, is a ``Refused`` stage:
then nothing at all is done. What nobody has to do anything about is a ``Notice``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from choreo.codec.schema import Schema, SchemaSet
from choreo.topology import names
from choreo.topology.desired import (
    FOR_EVER,
    Config,
    Purpose,
    WantedSchema,
    WantedTopic,
    wanted_schemas,
    wanted_topics,
)
from choreo.topology.evolution import EVOLUTION_HINT, objection_to
from choreo.topology.model import Topology

# Settings that choreo never changes once there is data: the meaning of what is already there depends on them.
FROZEN_WITH_DATA: Final = ("cleanup.policy",)


@dataclass(frozen=True, slots=True)
class LiveTopic:
    """A topic as it is.

    Args:
        partitions: how many.
        replication: replicas of its first partition.
        config: settings in effect, the cluster's defaults included.
        written: whether a record was ever written to it; True where nobody looked.
    """

    partitions: int
    replication: int
    config: Mapping[str, str]
    written: bool = True


@dataclass(frozen=True, slots=True)
class ClusterState:
    """A cluster and a registry as they are, as far as a topology is concerned.

    Args:
        topics: the topology's topics that exist, and all others that begin with its name.
        subjects: registered schemas, oldest first, of the topology's subjects.
        registry_is_ours: the file registry. In a shared one, schemas of external topics are their owners' business.
    """

    topics: Mapping[str, LiveTopic] = field(default_factory=dict)
    subjects: Mapping[str, tuple[Schema, ...]] = field(default_factory=dict)
    registry_is_ours: bool = True


@dataclass(frozen=True, slots=True)
class RegisterSchema:
    """Make a schema the newest version of a subject."""

    subject: str
    schema: Schema
    version: int

    @property
    def target(self) -> str:
        return self.subject


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """Create a topic."""

    topic: str
    partitions: int
    replication: int | None
    config: Config
    purpose: Purpose

    @property
    def target(self) -> str:
        return self.topic


@dataclass(frozen=True, slots=True)
class AddPartitions:
    """Add partitions to a topic without state."""

    topic: str
    before: int
    after: int

    @property
    def target(self) -> str:
        return self.topic


@dataclass(frozen=True, slots=True)
class AlterTopicConfig:
    """Change settings of a topic: name → (before, after). ``warning``: what is lost by it."""

    topic: str
    changes: Mapping[str, tuple[str | None, str]]
    warning: str | None = None

    @property
    def target(self) -> str:
        return self.topic


@dataclass(frozen=True, slots=True)
class Refused:
    """A difference that choreo does not remove. Nothing is applied while there is one."""

    target: str
    code: str
    where: str
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know; neither a change nor drift."""

    target: str
    message: str
    hint: str


Change = RegisterSchema | CreateTopic | AddPartitions | AlterTopicConfig
Stage = Change | Refused | Notice


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from a cluster as it is to the topology.

    Args:
        topology: its name.
        file: where it is declared.
        stages: in the order in which they are done.
        unchanged: how many topics and schemas are already right.
    """

    topology: str
    file: str
    stages: tuple[Stage, ...]
    unchanged: int

    @property
    def changes(self) -> tuple[Change, ...]:
        """What ``apply`` does."""
        return tuple(one for one in self.stages if not isinstance(one, Refused | Notice))

    @property
    def refused(self) -> tuple[Refused, ...]:
        return tuple(one for one in self.stages if isinstance(one, Refused))

    @property
    def drift(self) -> bool:
        """Whether the cluster is anything else than what the file says."""
        return bool(self.changes or self.refused)


def plan(topology: Topology, schemas: SchemaSet, state: ClusterState) -> Plan:
    """Compare a topology with a cluster.

    Args:
        topology: without lint errors.
        schemas: the project's records.
        state: the cluster as it is.

    Returns:
        Stages in the order: refusals, schemas, new topics, partitions, settings, notices.
    """
    wanted = wanted_topics(topology)
    registrations = wanted_schemas(topology)
    stages: list[Stage] = []
    differing: set[str] = set()
    for schema in registrations:
        found = list(_schema_stages(topology, schemas.by_name(schema.record), schema, state))
        stages += found
        differing.update(schema.subject for one in found if not isinstance(one, Notice))
    grown = _Growth(topology, wanted, state)
    for topic in wanted.values():
        found = list(_topic_stages(topology, topic, state, grown))
        stages += found
        differing.update(topic.name for one in found if not isinstance(one, Notice))
    stages += _leftovers(topology, wanted, state)
    ordered = sorted(stages, key=lambda stage: _ORDER.index(type(stage)))
    return Plan(topology.name, topology.file, tuple(ordered), len(wanted) + len(registrations) - len(differing))


_ORDER: Final[tuple[type[Stage], ...]] = (
    Refused,
    RegisterSchema,
    CreateTopic,
    AddPartitions,
    AlterTopicConfig,
    Notice,
)


def _schema_stages(topology: Topology, schema: Schema, wanted: WantedSchema, state: ClusterState) -> Iterator[Stage]:
    versions = state.subjects.get(wanted.subject, ())
    foreign = wanted.external and not state.registry_is_ours
    if versions and versions[-1] == schema:
        return
    objection = objection_to(schema, versions, wanted, foreign=foreign)
    if objection is not None:
        where = str(topology.at(*wanted.owner, "schema"))
        yield Refused(wanted.subject, "CH0203", where, objection, EVOLUTION_HINT)
    elif not foreign:
        yield RegisterSchema(wanted.subject, schema, len(versions) + 1)
    elif not versions:
        message = "its owner has registered no schema"
        yield Notice(wanted.subject, message, "ask the owner of the topic; choreo does not register for others")


def _topic_stages(topology: Topology, wanted: WantedTopic, state: ClusterState, grown: _Growth) -> Iterator[Stage]:
    live = state.topics.get(wanted.name)
    where = str(_place(topology, wanted))
    if wanted.external:
        yield from _external_stages(wanted, live, where)
        return
    if live is None:
        yield CreateTopic(wanted.name, wanted.partitions, wanted.replication, dict(wanted.config), wanted.purpose)
        return
    yield from _partition_stages(wanted, live, where, grown)
    yield from _config_stages(wanted, live, where)
    if wanted.replication is not None and live.replication != wanted.replication:
        yield Notice(
            wanted.name,
            f"it has {live.replication} replicas, new topics get {wanted.replication}",
            "move it with kafka-reassign-partitions",
        )


def _external_stages(wanted: WantedTopic, live: LiveTopic | None, where: str) -> Iterator[Stage]:
    if live is None:
        reason = "the external topic does not exist"
        yield Refused(wanted.name, "CH0805", where, reason, "its owner creates it; choreo never does")
    elif live.partitions != wanted.partitions:
        reason = f"the external topic has {live.partitions} partitions, the file says {wanted.partitions}"
        yield Refused(wanted.name, "CH0805", where, reason, f"write `partitions: {live.partitions}`")


def _partition_stages(wanted: WantedTopic, live: LiveTopic, where: str, grown: _Growth) -> Iterator[Stage]:
    if live.partitions == wanted.partitions or (wanted.at_least and live.partitions > wanted.partitions):
        return
    numbers = f"{live.partitions} partitions to {wanted.partitions}"
    if live.partitions > wanted.partitions:
        hint = f"write `partitions: {live.partitions}`" if wanted.purpose == "events" else _RECREATE
        yield Refused(wanted.name, "CH0106", where, f"from {numbers}: Kafka cannot remove partitions", hint)
    elif wanted.stateful and grown.would_tear(wanted):
        reason = f"from {numbers}: keys would move to other partitions, away from the state of their entities"
        hint = "copy the events into a new topic with more partitions, and let the agents read that"
        yield Refused(wanted.name, "CH0106", where, reason, hint if wanted.purpose == "events" else _RECREATE)
    else:
        yield AddPartitions(wanted.name, live.partitions, wanted.partitions)


_RECREATE: Final = (
    "stop the agent, then `choreo agent reset` it if its state may go, or give it a new name and let it read all again"
)


def _config_stages(wanted: WantedTopic, live: LiveTopic, where: str) -> Iterator[Stage]:
    changes: dict[str, tuple[str | None, str]] = {}
    for name, value in sorted(wanted.config.items()):
        before = live.config.get(name)
        if before is not None and _same(name, before, value):
            continue
        if name in FROZEN_WITH_DATA and live.written:
            reason = f"{name} from {before} to {value}: what is in the topic already would be lost or never end"
            hint = "use a new topic, or set it by hand if you are sure"
            yield Refused(wanted.name, "CH0106", where, reason, hint)
        else:
            changes[name] = (before, value)
    if changes:
        yield AlterTopicConfig(wanted.name, changes, _loss(changes))


def _same(name: str, before: str, after: str) -> bool:
    if name == "cleanup.policy":
        return set(before.replace(" ", "").split(",")) == set(after.split(","))
    if before == after:
        return True
    try:
        return float(before) == float(after)
    except ValueError:
        return False


def _loss(changes: Mapping[str, tuple[str | None, str]]) -> str | None:
    """What a change of settings deletes."""
    before, after = changes.get("retention.ms", (None, ""))
    if before is None or not before.lstrip("-").isdigit() or int(after) == FOR_EVER:
        return None
    if int(before) == FOR_EVER or int(after) < int(before):
        return "records older than the new retention are deleted"
    return None


class _Growth:
    """Whether more partitions would move keys away from their state. While nothing was ever written they may grow."""

    def __init__(self, topology: Topology, wanted: Mapping[str, WantedTopic], state: ClusterState) -> None:
        self._state = state
        self._readers: dict[str, list[str]] = {}
        for agent in topology.agents.values():
            for topic in agent.reads:
                self._readers.setdefault(topic, []).append(agent.name)
        self._own: dict[str, list[str]] = {}  # aligned internal topics by agent
        self._agent_of: dict[str, str] = {}
        by_group: dict[str, list[str]] = {}
        for one in wanted.values():
            if one.stateful:
                by_group.setdefault(".".join(one.name.split(".", 2)[:2]), []).append(one.name)
        for agent in topology.agents.values():
            own = by_group.get(names.group(topology.name, agent.name), [])
            self._own[agent.name] = own
            self._agent_of.update(dict.fromkeys(own, agent.name))

    def would_tear(self, topic: WantedTopic) -> bool:
        """Whether this topic, or any state that belongs to its partitions, holds something."""
        agents = self._readers.get(topic.name, [])
        if topic.name in self._agent_of:
            agents = [self._agent_of[topic.name]]
        return self._written([topic.name, *(name for agent in agents for name in self._own[agent])])

    def _written(self, topics: Iterable[str]) -> bool:
        return any(self._state.topics[name].written for name in topics if name in self._state.topics)


def _leftovers(topology: Topology, wanted: Mapping[str, WantedTopic], state: ClusterState) -> Iterator[Notice]:
    """Internal topics of agents and tables that are no longer declared. choreo never deletes what may hold data."""
    prefix = names.group(topology.name, "")
    plain = tuple(
        f"{names.group(topology.name, agent.name)}-" for agent in topology.agents.values() if agent.kind == "faust"
    )
    for name in sorted(state.topics):
        if name.startswith(prefix) and name not in wanted and not (plain and name.startswith(plain)):
            yield Notice(name, "nothing in the file needs it any more", "delete it by hand when its content may go")


def _place(topology: Topology, wanted: WantedTopic) -> object:
    section = {"events": "topics", "table": "tables", "reference": "tables"}.get(wanted.purpose, "agents")
    if wanted.purpose == "events" and topology.declares("topics", wanted.owner, "partitions"):
        return topology.at("topics", wanted.owner, "partitions")
    return topology.at(section, wanted.owner)


def subjects_of(topology: Topology) -> list[str]:
    """Registry subjects that a plan asks about."""
    return [one.subject for one in wanted_schemas(topology)]
