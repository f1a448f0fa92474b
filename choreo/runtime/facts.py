"""What the cluster says about the agent's topics: once at the start of a session, their ids ever after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType, TopicDescription

from choreo.errors import HostError
from choreo.kernel.values import TopicFacts
from choreo.runtime.kafka_config import REQUEST_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    cluster_id: str
    topics: Mapping[str, TopicFacts]
    topic_ids: Mapping[str, str]
    tombstones_kept_ms: Mapping[str, int]  # delete.retention.ms


def unreachable(error: object, bootstrap: str) -> HostError:
    return HostError(
        f"Kafka at {bootstrap} does not answer: {error}",
        code="CH0801",
        hint="check the address in --brokers or CHOREO_BROKERS, or start one with `choreo broker`",
    )


def wait_result(future: Future[Any], bootstrap: str) -> Any:
    """The result of an admin request; CH0801 if the cluster does not answer."""
    try:
        return future.result(timeout=REQUEST_TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        raise unreachable(error.args[0] if error.args else error, bootstrap) from error


def describe_topics(admin: AdminClient, names: Iterable[str]) -> dict[str, TopicDescription | None]:
    """Each topic's description; None: it does not exist.

    Raises:
        KafkaException, TimeoutError: no answer.
    """
    found: dict[str, TopicDescription | None] = {}
    described = admin.describe_topics(TopicCollection(list(names)), request_timeout=REQUEST_TIMEOUT_S)
    for name, future in described.items():
        try:
            found[name] = future.result(timeout=REQUEST_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            found[name] = None
    return found


def gone_topics(admin: AdminClient, ids: Mapping[str, str]) -> frozenset[str]:
    """Topics that were deleted, or made again since they had these ids.

    Raises:
        KafkaException, TimeoutError: no answer.
    """
    described = describe_topics(admin, ids)
    return frozenset(name for name, one in described.items() if one is None or str(one.topic_id) != ids[name])


def read_facts(admin: AdminClient, bootstrap: str, names: Iterable[str]) -> ClusterFacts:
    """Partition counts, ids and size limits of the named topics.

    Raises:
        HostError: CH0801, no answer; CH0805, a topic does not exist.
    """
    wanted = sorted(set(names))
    try:
        cluster = wait_result(admin.describe_cluster(request_timeout=REQUEST_TIMEOUT_S), bootstrap)
        described = describe_topics(admin, wanted)
    except (KafkaException, TimeoutError) as error:
        raise unreachable(error.args[0] if error.args else error, bootstrap) from error
    present = {name: one for name, one in described.items() if one is not None}
    partitions = {name: len(one.partitions) for name, one in present.items()}
    topic_ids = {name: str(one.topic_id) for name, one in present.items()}
    missing = [name for name, one in described.items() if one is None]
    if missing:
        raise HostError(
            f"topic{'s' if len(missing) > 1 else ''} {', '.join(missing)} not found on the cluster at {bootstrap}",
            code="CH0805",
            hint="run `choreo apply` for this topology first",
        )
    configs = admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, name) for name in wanted], request_timeout=REQUEST_TIMEOUT_S
    )
    topics: dict[str, TopicFacts] = {}
    tombstones: dict[str, int] = {}
    for resource, future in configs.items():
        entries = wait_result(future, bootstrap)
        topics[resource.name] = TopicFacts(partitions[resource.name], int(entries["max.message.bytes"].value))
        tombstones[resource.name] = int(entries["delete.retention.ms"].value)
    return ClusterFacts(cluster.cluster_id, topics, topic_ids, tombstones)
