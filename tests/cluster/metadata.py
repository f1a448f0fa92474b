"""Who leads what: asked of the cluster, with patience while it elects."""

from __future__ import annotations

import time

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from choreo.runtime.broker import EmbeddedCluster, Node

OFFSETS_TOPIC = "__consumer_offsets"
TRANSACTIONS_TOPIC = "__transaction_state"
PATIENCE_S = 60.0
AGAIN_S = 0.1
ANSWER_S = 3.0
"""One attempt: an admin client waits for a leader that has just died as long as it may, instead of asking anew."""


def admin(cluster: EmbeddedCluster) -> AdminClient:
    """A client of its own for each question: a long-lived one remembers leaders that are gone."""
    return AdminClient(
        {"bootstrap.servers": cluster.bootstrap, "log_level": 0, "metadata.recovery.strategy": "none"},
    )


def coordinator_partition(name: str, partitions: int) -> int:
    """The partition of an internal topic that keeps a group or a transactional id.

    Source: Kafka's ``GroupCoordinatorService.partitionFor`` and ``TransactionStateManager.partitionFor``: Java's string
    hash without its sign, modulo the number of partitions.
    """
    code = 0
    for unit in name.encode("utf-16-be")[1::2]:  # names are ASCII: the low bytes are the characters
        code = (31 * code + unit) & 0xFFFF_FFFF
    return (code & 0x7FFF_FFFF) % partitions


def leader(cluster: EmbeddedCluster, topic: str, partition: int) -> Node:
    """The node that leads a partition.

    Raises:
        AssertionError: it has no leader for too long.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = admin(cluster).list_topics(topic, timeout=5).topics[topic].partitions[partition].leader
        except (KafkaException, KeyError):  # nodes are away, or the topic is not known to this one yet
            found = -1
        if found > 0:
            return cluster.node(found)
        assert time.monotonic() < deadline, f"{topic}/{partition} has no leader"
        time.sleep(AGAIN_S)


def partitions_of(cluster: EmbeddedCluster, topic: str) -> int:
    return len(admin(cluster).list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions)


def coordinator(cluster: EmbeddedCluster, topic: str, name: str) -> Node:
    """The node that coordinates a group (``OFFSETS_TOPIC``) or a transactional id (``TRANSACTIONS_TOPIC``)."""
    return leader(cluster, topic, coordinator_partition(name, partitions_of(cluster, topic)))


def log_ends(cluster: EmbeddedCluster, topic: str) -> dict[int, int]:
    """Partition → log end, records of open transactions included. Asks again while leaders change.

    Raises:
        AssertionError: some leader does not answer for too long.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        client = admin(cluster)
        try:
            partitions = client.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions
            answers = client.list_offsets(
                {TopicPartition(topic, number): OffsetSpec.latest() for number in partitions},
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
                request_timeout=ANSWER_S,
            )
            found = {place.partition: future.result(2 * ANSWER_S).offset for place, future in answers.items()}
        except (KafkaException, TimeoutError):  # a leader is away or new
            found = {}
        if found and min(found.values()) >= 0:
            return found
        assert time.monotonic() < deadline, f"the leaders of {topic} do not answer"
        time.sleep(AGAIN_S)


def out_of_sync(cluster: EmbeddedCluster, node: Node, topic: str) -> bool:
    """Whether a node is missing among the in-sync replicas of some partition."""
    partitions = admin(cluster).list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions.values()
    return any(node.id in partition.replicas and node.id not in partition.isrs for partition in partitions)
