"""Deletes what an agent remembers: its state topics and its group. `choreo apply` makes the topics anew.

Topics are deleted whole, not emptied: their new ids tell every RocksDB store that what it holds is of the past.
"""

from __future__ import annotations

import time
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from choreo.errors import HostError
from choreo.runtime.facts import unreachable
from choreo.runtime.kafka_config import REQUEST_TIMEOUT_S
from choreo.runtime.preflight import cluster_topics
from choreo.topology import names
from choreo.topology.model import Agent, Topology

# A deleted topic leaves the controller's metadata a moment later; creating it before that is refused.
GONE_S_MAX: Final = 30.0
GONE_POLL_S: Final = 0.1


def remembered_topics(topology: Topology, agent: Agent) -> list[str]:
    """Topics that hold an agent's memory. Dead letters and decisions are history, not memory."""
    own = [name for name in agent.tables if not topology.tables[name].reference]
    kinds = (names.journal, names.timers, names.parked, names.settled)
    return [names.changelog(topology.name, agent.name, table) for table in own] + [
        kind(topology.name, agent.name) for kind in kinds
    ]


def forget(topology: Topology, agent: Agent, admin: AdminClient, bootstrap: str) -> None:
    """Delete the group and the topics, and wait until they are gone.

    The group goes first: an agent with its memory but without its place is stopped by choreo's own check; the other
    way round a crash in between would leave a place without memory.

    Raises:
        HostError: CH0801, the cluster does not answer; CH0805, a topic stays.
    """
    group = names.group(topology.name, agent.name)
    try:
        admin.delete_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_S)[group].result(REQUEST_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].name() != "GROUP_ID_NOT_FOUND":
            raise _refused(f"group {group}", error, bootstrap) from error
    existing = cluster_topics(admin, bootstrap)
    doomed = [topic for topic in remembered_topics(topology, agent) if topic in existing]
    futures = admin.delete_topics(doomed, request_timeout=REQUEST_TIMEOUT_S) if doomed else {}
    for topic, future in futures.items():
        try:
            future.result(REQUEST_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].name() != "UNKNOWN_TOPIC_OR_PART":
                raise _refused(f"topic {topic}", error, bootstrap) from error
    deadline = time.monotonic() + GONE_S_MAX
    while left := [topic for topic in doomed if topic in cluster_topics(admin, bootstrap)]:
        if time.monotonic() > deadline:
            raise HostError(f"topics are still there: {', '.join(left)}", code="CH0805", where=bootstrap)
        time.sleep(GONE_POLL_S)


def _refused(what: str, error: KafkaException, bootstrap: str) -> HostError:
    cause = error.args[0]
    if cause.retriable() or cause.name() == "_TRANSPORT":
        return unreachable(cause.str().lower(), bootstrap)
    return HostError(f"{what} could not be deleted: {cause.str()}", code="CH0805", where=bootstrap)
