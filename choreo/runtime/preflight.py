"""What must be true of the cluster before a worker starts: it answers, and the topics exist as the file says.

A worker that started anyway would join the group, take partitions and fail at its first commit. Here it refuses with
the one command that helps.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from choreo.errors import HostError
from choreo.runtime import kafka_config
from choreo.runtime.facts import unreachable
from choreo.topology import names
from choreo.topology.model import Agent, Topology

# A broker that is there accepts within this; one that is far away is left to librdkafka's own timeouts.
CONNECT_S_MAX: Final = 1.0
# A list longer than this hides what it says.
TOPICS_SHOWN_MAX: Final = 6


def needed_topics(topology: Topology, agent: Agent) -> dict[str, int | None]:
    """Topics an agent's worker reads or writes, with their partition counts where those matter."""
    count = topology.partitions_of(agent.name)
    needed: dict[str, int | None] = {name: topology.topics[name].partitions for name in (*agent.reads, *agent.writes)}
    for name in agent.tables:
        table = topology.tables[name]
        if table.reference:
            needed[names.reference(topology.name, name)] = table.partitions
        else:
            needed[names.changelog(topology.name, agent.name, name)] = count
    if agent.kind != "faust":
        for internal in (names.journal, names.timers, names.parked, names.dead_letters, names.settled):
            needed[internal(topology.name, agent.name)] = count
        if agent.audit != "off":
            # shared by all agents of the topology, with the partitions that the first of them gave it
            needed[names.decisions(topology.name)] = None
    return needed


def admin_client(bootstrap: str, security: Mapping[str, str]) -> AdminClient:
    """Administration client: connects when first used; librdkafka's own log is off because we report its errors."""
    return AdminClient({**kafka_config.admin(bootstrap, security), "client.id": "choreo-admin", "log_level": 0})


def cluster_topics(admin: AdminClient, bootstrap: str) -> dict[str, int]:
    """Names and partition counts of all topics.

    Raises:
        HostError: CH0801, no broker answered in time.
    """
    require_listener(bootstrap)
    try:
        metadata = admin.list_topics(timeout=kafka_config.REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise unreachable(error.args[0].str().lower(), bootstrap) from error
    return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}


def require_listener(bootstrap: str) -> None:
    """Notice at once that nobody listens at any of the addresses; librdkafka would try for as long as it may.

    Raises:
        HostError: CH0801, every address refuses connections or is unknown.
    """
    reasons = []
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S_MAX).close()
        except (ConnectionRefusedError, socket.gaierror) as error:
            reasons.append(error.strerror or str(error))
        except (OSError, ValueError):
            return  # slow or strange: let librdkafka find out
        else:
            return
    raise unreachable(reasons[0].lower(), bootstrap)


def check_topics(topology: Topology, agent: Agent, existing: Mapping[str, int]) -> None:
    """Compare what an agent needs with what exists.

    Raises:
        HostError: CH0805, topics are missing or have another number of partitions.
    """
    needed = needed_topics(topology, agent)
    missing = [name for name in needed if name not in existing]
    if missing:
        shown = ", ".join(missing[:TOPICS_SHOWN_MAX]) + (", …" if len(missing) > TOPICS_SHOWN_MAX else "")
        raise HostError(
            f"{len(missing)} of the {len(needed)} topics of agent {agent.name} do not exist: {shown}",
            code="CH0805",
            where=str(agent.position),
            hint=f"create them with `choreo apply {topology.file}`",
            fault="user",
        )
    external = {name for name in agent.reads if topology.topics[name].external}
    for name, partitions in needed.items():
        if partitions is not None and existing[name] != partitions and name not in external:
            raise HostError(
                f"topic {name} has {existing[name]} partitions, the topology says {partitions}",
                code="CH0805",
                where=str(agent.position),
                hint=f"`choreo plan {topology.file}` shows what differs",
                fault="user",
            )
