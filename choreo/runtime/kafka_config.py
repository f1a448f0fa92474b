"""librdkafka settings of every client the runtime makes, spelled out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

REQUEST_TIMEOUT_S: Final = 10.0
"""Longest wait for one answer of the cluster before the command or worker says that it is unreachable."""
TRANSACTION_TIMEOUT_MS: Final = 15_000
"""How long a dead worker's open transaction may hold readers up where nobody ends it earlier."""
SOCKET_TIMEOUT_MS: Final = 10_000
"""After so long without an answer librdkafka gives a connection up and makes the request again on another."""
MAX_POLL_INTERVAL_MS: Final = 600_000
"""Above every wait in the engine thread: a handler that computes, a commit that is retried."""
FETCH_WAIT_MS: Final = 50
QUEUED_KBYTES_MAX: Final = 32_768
"""What librdkafka fetches ahead in one worker; the engine's own buffers are bounded beside it."""
QUEUE_FULL_WAIT_MS: Final = 10
"""How long librdkafka fetches nothing once that much is fetched ahead. Its default, a second, is longer than a reader
takes to empty the queue: restores and listings stood still for half of their time."""

Settings = dict[str, Any]


def common(bootstrap: str, security: Mapping[str, str]) -> Settings:
    return {
        "bootstrap.servers": bootstrap,
        "socket.timeout.ms": SOCKET_TIMEOUT_MS,
        "socket.nagle.disable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2_000,
        "log.connection.close": False,
        # librdkafka's default, "rebootstrap", decommissions the coordinator when all brokers are away at once; a
        # send_offsets_to_transaction under way then never returns, not even at its timeout (measured on 2.16.1).
        "metadata.recovery.strategy": "none",
        **security,
    }


def group_consumer(
    bootstrap: str, security: Mapping[str, str], *, group: str, instance: str, session_timeout_ms: int
) -> Settings:
    """The engine's consumer. ``classic``: KIP-848 refuses a restarted static member until its session ends."""
    return {
        **common(bootstrap, security),
        "group.id": group,
        "group.instance.id": instance,
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_timeout_ms,
        "heartbeat.interval.ms": max(session_timeout_ms // 5, 500),
        "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "fetch.queue.backoff.ms": QUEUE_FULL_WAIT_MS,
        "fetch.min.bytes": 1,
        "queued.max.messages.kbytes": QUEUED_KBYTES_MAX,
        "check.crcs": True,
        "allow.auto.create.topics": False,
    }


def reader(bootstrap: str, security: Mapping[str, str], *, read_committed: bool = True) -> Settings:
    """A consumer that is assigned by hand and commits nothing: restore, reference tables, the command line."""
    return {
        **common(bootstrap, security),
        "group.id": "choreo-reader",  # librdkafka wants one; it is never joined
        "group.protocol": "classic",
        "isolation.level": "read_committed" if read_committed else "read_uncommitted",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "fetch.queue.backoff.ms": QUEUE_FULL_WAIT_MS,
        "queued.max.messages.kbytes": QUEUED_KBYTES_MAX,
        "check.crcs": True,
        "allow.auto.create.topics": False,
    }


def transactional_producer(
    bootstrap: str,
    security: Mapping[str, str],
    *,
    transactional_id: str,
    batch_bytes: int = 16_384,
    message_bytes_max: int = 1_000_000,
) -> Settings:
    """The engine's producer; what is not said is for one that writes next to nothing.

    ``batch.size`` stays at or below the smallest ``max.message.bytes`` of its topics: Kafka's limit is on the batch,
    and small records together would be refused where each alone passes.
    """
    return {
        **common(bootstrap, security),
        "transactional.id": transactional_id,
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        "enable.idempotence": True,
        "acks": "all",
        "max.in.flight.requests.per.connection": 5,
        "message.timeout.ms": TRANSACTION_TIMEOUT_MS,
        "linger.ms": 5,
        "batch.size": min(batch_bytes, 1_000_000),
        "message.max.bytes": message_bytes_max,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 262_144,
        "compression.type": "none",
        "partitioner": "murmur2_random",
    }


def admin(bootstrap: str, security: Mapping[str, str]) -> Settings:
    return common(bootstrap, security)
