"""Settings of the embedded broker: one node that starts quickly, stays small and forgives abrupt ends quickly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from choreo.runtime.broker.ports import LOOPBACK

# Everything that is not an address or a path. A caller may override each one (EmbeddedBroker(settings=…)).
DEFAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # One node: every internal topic has one replica, and few partitions so that they load quickly.
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "8",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        # A topic exists because the topology declares it, never because somebody mistyped its name.
        "auto.create.topics.enable": "false",
        # A worker that died must not hold up its readers: look for expired transactions every second instead of every
        # ten, let members ask for short sessions, start the first rebalance at once.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "group.min.session.timeout.ms": "1000",
        "group.initial.rebalance.delay.ms": "0",
        # After kill -9 the controller takes the broker back when its earlier life has timed out: 9 s by default.
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
        # Compaction is looked at while a person watches, not once in 15 s. Its map is on the heap: 128 MiB by default.
        "log.cleaner.backoff.ms": "1000",
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        # Indexes are created at their full size, 10 MiB each by default and two per partition.
        "log.index.size.max.bytes": str(1024 * 1024),
        "log.segment.bytes": str(128 * 1024 * 1024),
        # Threads for a laptop rather than for a server.
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "4",
        "num.recovery.threads.per.data.dir": "2",
    }
)


def server_properties(*, port: int, controller_port: int, logs: Path, settings: Mapping[str, str]) -> str:
    """Text of ``server.properties`` for a broker that is its own controller (KRaft combined mode).

    Args:
        port: where clients connect.
        controller_port: where the broker talks to itself as the controller.
        logs: directory of the partitions.
        settings: overrides of ``DEFAULTS``, and anything else Kafka knows.
    """
    addresses = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "log.dirs": str(logs),
    }
    merged = {**addresses, **DEFAULTS, **settings}
    return "".join(f"{name}={_escaped(value)}\n" for name, value in merged.items())


def _escaped(value: str) -> str:
    """A value as java.util.Properties reads it back: backslashes double, line ends escaped, non-ASCII as \\uXXXX."""
    plain = value.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
    units = plain.encode("utf-16-be")
    codes = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    return "".join(chr(code) if code < 0x80 else f"\\u{code:04x}" for code in codes)
