"""A cluster and a registry as the value that ``topology.plan`` compares with. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from choreo.ports import Registry
from choreo.runtime.facts import unreachable, wait_result
from choreo.runtime.kafka_config import REQUEST_TIMEOUT_S
from choreo.topology import names
from choreo.topology.desired import WantedTopic, wanted_topics
from choreo.topology.model import Topology
from choreo.topology.plan import FROZEN_WITH_DATA, ClusterState, LiveTopic, subjects_of

# Answers about more than this many topics or partitions at a time get large enough to time out.
BATCH: Final = 500


def inspect(
    topology: Topology, admin: AdminClient, bootstrap: str, registry: Registry, *, registry_is_ours: bool
) -> ClusterState:
    """What exists of a topology.

    Args:
        topology: without lint errors.
        admin: client of the cluster.
        bootstrap: its address, for messages.
        registry: where schemas are registered.
        registry_is_ours: it is the project's own file.

    Raises:
        HostError: CH0801, the cluster does not answer within 10 s.
        SchemaError: CH0207, the registry does not.
    """
    wanted = wanted_topics(topology)
    topics = _topics(topology, wanted, admin, bootstrap)
    known = set(registry.subjects())
    subjects = {
        subject: tuple(schema for _, _, schema in registry.versions(subject))
        for subject in subjects_of(topology)
        if subject in known
    }
    return ClusterState(topics, subjects, registry_is_ours)


def _topics(
    topology: Topology, wanted: dict[str, WantedTopic], admin: AdminClient, bootstrap: str
) -> dict[str, LiveTopic]:
    try:
        metadata = admin.list_topics(timeout=REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise unreachable(error.args[0].str(), bootstrap) from error
    prefix = names.group(topology.name, "")
    existing = {
        name: topic
        for name, topic in metadata.topics.items()
        if (name in wanted or name.startswith(prefix)) and topic.error is None
    }
    ours = [name for name in existing if name in wanted and not wanted[name].external]
    configs = _configs(ours, admin, bootstrap)
    found = {
        name: LiveTopic(len(topic.partitions), _replicas(topic), configs.get(name, {}), written=True)
        for name, topic in existing.items()
    }
    if any(_differs(wanted[name], found[name]) for name in ours):
        written = _written({name: found[name].partitions for name in ours}, admin, bootstrap)
        for name in ours:
            one = found[name]
            found[name] = LiveTopic(one.partitions, one.replication, one.config, name in written)
    return found


def _replicas(topic: Any) -> int:
    return min((len(partition.replicas) for partition in topic.partitions.values()), default=0)


def _differs(wanted: WantedTopic, live: LiveTopic) -> bool:
    """Whether the plan will ask if there is data."""
    return live.partitions != wanted.partitions or any(
        live.config.get(name) != wanted.config.get(name) for name in FROZEN_WITH_DATA
    )


def _configs(topics: Sequence[str], admin: AdminClient, bootstrap: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for part in _parts(topics):
        try:
            futures = admin.describe_configs(
                [ConfigResource(ResourceType.TOPIC, name) for name in part], request_timeout=REQUEST_TIMEOUT_S
            )
        except KafkaException as error:
            raise unreachable(error.args[0].str(), bootstrap) from error
        for resource, future in futures.items():
            entries = wait_result(future, bootstrap)
            found[resource.name] = {name: entry.value for name, entry in entries.items() if entry.value is not None}
    return found


def _written(partitions: dict[str, int], admin: AdminClient, bootstrap: str) -> set[str]:
    """Topics that ever got a record: their logs end above 0, whatever retention has deleted since."""
    wanted = [TopicPartition(name, number) for name, count in partitions.items() for number in range(count)]
    found = set()
    for part in _parts(wanted):
        try:
            futures = admin.list_offsets(
                {one: OffsetSpec.latest() for one in part},
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
                request_timeout=REQUEST_TIMEOUT_S,
            )
        except KafkaException as error:
            raise unreachable(error.args[0].str(), bootstrap) from error
        for partition, future in futures.items():
            if wait_result(future, bootstrap).offset > 0:
                found.add(partition.topic)
    return found


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
