"""Settings of embedded nodes: they start quickly, stay small and forgive abrupt ends quickly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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

# What differs when several nodes make a cluster: three copies of everything, two of which a write waits for.
REPLICATED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "default.replication.factor": "3",
        "min.insync.replicas": "2",
        "offsets.topic.replication.factor": "3",
        "transaction.state.log.replication.factor": "3",
        "transaction.state.log.min.isr": "2",
        "share.coordinator.state.topic.replication.factor": "3",
        "share.coordinator.state.topic.min.isr": "2",
        # A node that came back leads its partitions again soon; else the last one to be restarted leads none.
        "leader.imbalance.check.interval.seconds": "10",
    }
)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Ports of one node, all on the loopback interface.

    Attributes:
        port: where clients connect.
        controller_port: where the nodes talk to each other as controllers.
        behind_port: where a proxy connects, if one stands before the node.
        proxy_port: where clients of that proxy are told to connect.
    """

    port: int
    controller_port: int
    behind_port: int | None = None
    proxy_port: int | None = None

    def all(self) -> tuple[int, ...]:
        """The ports that the node listens on."""
        own = (self.port, self.controller_port)
        return own if self.behind_port is None else (*own, self.behind_port)


def server_properties(node: int, addresses: Mapping[int, Addresses], *, logs: Path, settings: Mapping[str, str]) -> str:
    """Text of ``server.properties`` for a node that is broker and controller (KRaft combined mode).

    Args:
        node: id of the node.
        addresses: of every node of the cluster, by id.
        logs: directory of the partitions.
        settings: overrides of ``DEFAULTS``, and anything else Kafka knows.
    """
    own = addresses[node]
    listeners = {"PLAINTEXT": own.port}
    advertised = dict(listeners)
    if own.behind_port is not None and own.proxy_port is not None:
        listeners["BEHIND"], advertised["BEHIND"] = own.behind_port, own.proxy_port
    where = {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "listeners": _listed({**listeners, "CONTROLLER": own.controller_port}),
        "advertised.listeners": _listed(advertised),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in [*listeners, "CONTROLLER"]),
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": ",".join(
            f"{number}@{LOOPBACK}:{one.controller_port}" for number, one in addresses.items()
        ),
        "log.dirs": str(logs),
    }
    replicated = REPLICATED if len(addresses) > 1 else {}
    merged = {**where, **DEFAULTS, **replicated, **settings}
    return "".join(f"{name}={_escaped(value)}\n" for name, value in merged.items())


def _listed(listeners: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in listeners.items())


def _escaped(value: str) -> str:
    """A value as java.util.Properties reads it back: backslashes double, line ends escaped, non-ASCII as \\uXXXX."""
    plain = value.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
    units = plain.encode("utf-16-be")
    codes = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    return "".join(chr(code) if code < 0x80 else f"\\u{code:04x}" for code in codes)
