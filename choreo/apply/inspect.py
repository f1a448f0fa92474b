"""A cluster and a registry as the value that ``topology.plan`` compares with. Reads only."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from choreo.errors import HostError
from choreo.ports import Registry
from choreo.runtime.facts import unreachable
from choreo.runtime.kafka_config import REQUEST_TIMEOUT_S
from choreo.topology import names
from choreo.topology.desired import WantedTopic, wanted_topics
from choreo.topology.model import Topology
from choreo.topology.plan import FROZEN_WITH_DATA, ClusterState, LiveTopic, subjects_of

# Answers about more than this many topics or partitions at a time get large enough to time out.
BATCH: Final = 500
AGAIN_S: Final = 0.05
# What brokers say of a topic that was made a moment ago.
NOT_YET: Final = frozenset({"UNKNOWN_TOPIC_OR_PART", "NOT_LEADER_FOR_PARTITION", "LEADER_NOT_AVAILABLE"})
SILENT: Final = frozenset({"_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "REQUEST_TIMED_OUT"})

Key = TypeVar("Key", bound=Hashable)


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
    def ask(names: Sequence[str]) -> Mapping[str, Future[Any]]:
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        futures = admin.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_S)
        return {resource.name: future for resource, future in futures.items()}

    return {
        topic: {name: entry.value for name, entry in entries.items() if entry.value is not None}
        for topic, entries in _answers(ask, topics, bootstrap).items()
    }


def _written(partitions: dict[str, int], admin: AdminClient, bootstrap: str) -> set[str]:
    """Topics that ever got a record: their logs end above 0, whatever retention has deleted since."""

    def ask(wanted: Sequence[TopicPartition]) -> Mapping[TopicPartition, Future[Any]]:
        futures: Mapping[TopicPartition, Future[Any]] = admin.list_offsets(
            {one: OffsetSpec.latest() for one in wanted},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=REQUEST_TIMEOUT_S,
        )
        return futures

    wanted = [TopicPartition(name, number) for name, count in partitions.items() for number in range(count)]
    return {one.topic for one, answer in _answers(ask, wanted, bootstrap).items() if answer.offset > 0}


def _answers(
    ask: Callable[[Sequence[Key]], Mapping[Key, Future[Any]]], keys: Sequence[Key], bootstrap: str
) -> dict[Key, Any]:
    """Answers for all keys. Brokers learn of a new topic one after the other; until then they are asked again."""
    found: dict[Key, Any] = {}
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    open_keys = list(keys)
    while open_keys:
        again: list[Key] = []
        for start in range(0, len(open_keys), BATCH):
            for key, future in _asked(ask, open_keys[start : start + BATCH], bootstrap).items():
                try:
                    found[key] = future.result(timeout=REQUEST_TIMEOUT_S)
                except KafkaException as error:
                    if error.args[0].name() not in NOT_YET or time.monotonic() > deadline:
                        raise _refused(error.args[0], key, bootstrap) from error
                    again.append(key)
                except TimeoutError as error:
                    raise unreachable("no answer in time", bootstrap) from error
        open_keys = again
        if again:
            time.sleep(AGAIN_S)
    return found


def _asked(
    ask: Callable[[Sequence[Key]], Mapping[Key, Future[Any]]], keys: Sequence[Key], bootstrap: str
) -> Mapping[Key, Future[Any]]:
    try:
        return ask(keys)
    except KafkaException as error:
        raise unreachable(error.args[0].str(), bootstrap) from error


def _refused(cause: KafkaError, key: object, bootstrap: str) -> HostError:
    if cause.name() in SILENT:
        return unreachable(cause.str(), bootstrap)
    return HostError(
        f"the cluster does not tell about {getattr(key, 'topic', key)}: {cause.str()}",
        code="CH0805",
        where=bootstrap,
        hint="the principal needs DESCRIBE and DESCRIBE_CONFIGS on the topology's topics",
    )
