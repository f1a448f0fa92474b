"""Several Kafka nodes on this machine as one cluster: three copies of everything, and each node can be hurt by itself.

Theory of operation. Each node is broker and controller at once (KRaft combined mode), a process of its own below a
guardian of its own, in a data directory of its own; ``node`` holds what it shares with a single broker. The cluster
knows all ports before the first node starts, because every node's settings name the controllers of all. Two of three
nodes make a majority: one may be away and nothing stops. With two away the third still answers, but takes no writes
that ask for two copies, and knows of no change until a second one is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from choreo.errors import ChoreoError, HostError
from choreo.runtime.broker.broker import PORT_ATTEMPTS
from choreo.runtime.broker.directory import DataDirectory, new_cluster_id
from choreo.runtime.broker.embedded import Embedded
from choreo.runtime.broker.jars import KAFKA_VERSION, JarSource
from choreo.runtime.broker.node import METADATA_TIMEOUT_S, POLL_S, Node, choose_addresses, port_in_use
from choreo.runtime.broker.ports import require_free
from choreo.runtime.broker.progress import Progress

NODES: Final = 3
NODES_MIN: Final = 3  # with two, the loss of either leaves no majority: less safe than one
NODES_MAX: Final = 9  # more controllers than anybody runs; it bounds memory
HEAP_MB: Final = 192
"""Of each node."""
IN_SYNC_TIMEOUT_S: Final = 90.0  # a follower catches up within seconds; as for a start, the bound is for a busy machine


class EmbeddedCluster(Embedded):
    """Some Kafka nodes on 127.0.0.1, child processes that end with this one.

    Args:
        nodes: how many, from 3 on.
        port: where clients connect to the first node; the others follow it. None for any free ports. All are kept.
        data_dir: where topics are kept; None for temporary directories that :meth:`stop` deletes.
        heap_mb: limit of each node's Java heap in MiB.
        settings: settings of every node that add to or replace ``config.DEFAULTS`` and ``config.REPLICATED``.
        progress: told about the download on a machine that doesn't have Kafka yet.
        version: Kafka release; others than the pinned one are for tests.
        jar_source: where jars come from; by default what jgo is configured for.
        proxy_ports: node id to the port of a proxy that stands before it. Its clients are told to connect there, and it
            connects to that node's ``addresses.behind_port``.

    Guarantee: after :meth:`start` returns every node answers and takes part; after :meth:`stop` all processes are gone.
    If this process ends in any other way, they follow within a second (lasting data: within ``ORPHAN_GRACE_S`` more).
    """

    def __init__(
        self,
        nodes: int = NODES,
        port: int | None = None,
        data_dir: Path | None = None,
        heap_mb: int = HEAP_MB,
        settings: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        *,
        version: str = KAFKA_VERSION,
        jar_source: JarSource | None = None,
        proxy_ports: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(version, jar_source, progress)
        if not NODES_MIN <= nodes <= NODES_MAX:
            raise HostError(
                f"a cluster of {nodes} nodes was asked for, expected {NODES_MIN} to {NODES_MAX}",
                code="CH0807",
                fault="user",
            )
        self._ports: dict[int, int | None] = {
            number: None if port is None else port + number - 1 for number in range(1, nodes + 1)
        }
        self._wanted_directory = data_dir
        self._heap_mb = heap_mb
        self._settings = dict(settings or {})
        self._proxy_ports = dict(proxy_ports or {})
        self._given_back = ExitStack()
        self._nodes: tuple[Node, ...] = ()
        self._above: DataDirectory | None = None  # of those of the nodes, if the data lasts
        self._cluster_id: str | None = None

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def bootstrap(self) -> str:
        """Addresses of all nodes for clients, ``127.0.0.1:PORT,127.0.0.1:PORT,…``."""
        return ",".join(node.bootstrap for node in self.nodes)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, in the order of their ids; known while the cluster is up.

        Raises:
            HostError: CH0803, if it is not.
        """
        if not self._nodes:
            raise HostError("the cluster is not running", code="CH0803", fault="choreo")
        return self._nodes

    def node(self, number: int) -> Node:
        """The node with an id."""
        return self.nodes[number - 1]

    @property
    def running(self) -> bool:
        """True while every node's process runs."""
        return bool(self._nodes) and all(node.running for node in self._nodes)

    @property
    def cluster_id(self) -> str:
        """Id of the cluster, the same as long as the data directory lives."""
        if self._cluster_id is None:
            raise HostError("the cluster has no id before its first start", code="CH0803", fault="choreo")
        return self._cluster_id

    # -- what it does ------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start every node that does not run, and wait until all answer.

        Raises:
            HostError: CH0802, if a port is taken; CH0803, if Kafka cannot be downloaded or a node doesn't start;
                CH0804, if the data directory cannot be used.
        """
        if self._nodes:
            _at_once(Node.start, [node for node in self._nodes if not node.running])
            return self
        try:
            for port in self._ports.values():
                if port is not None:
                    require_free(port)
            nodes = self._open_nodes()
            for attempt in range(1, PORT_ATTEMPTS + 1):
                if self._try_start(nodes, last=attempt == PORT_ATTEMPTS):
                    return self
        except BaseException:
            self.stop()
            raise
        raise AssertionError("the last attempt either succeeds or raises")

    def stop(self) -> None:
        """Stop all nodes cleanly, release the data directories, delete them if they are temporary."""
        self._nodes = ()
        self._above = None
        with self._given_back:
            self._given_back = ExitStack()

    def wait_in_sync(self, timeout_s: float = IN_SYNC_TIMEOUT_S) -> None:
        """Wait until every replica of every partition is in sync: only then may another node go.

        Raises:
            HostError: CH0803, if that took too long; it names partitions and the nodes they miss.
        """
        deadline = time.monotonic() + timeout_s
        while behind := self._behind():
            if time.monotonic() > deadline:
                raise HostError(
                    f"not in sync within {timeout_s:.0f} s: {', '.join(behind[:5])}",
                    code="CH0803",
                    retry="backoff",
                    hint="is a node stopped or paused?",
                )
            time.sleep(POLL_S)

    # -- how ---------------------------------------------------------------------------------------------------------

    def _open_nodes(self) -> list[Node]:
        """Nodes in directories that are ours from here to ``stop``."""
        java, version, wanted = self.java, self._version, self._wanted_directory
        self._cluster_id = None
        if wanted is not None:
            above = DataDirectory.open(wanted)
            self._given_back.callback(above.close)
            self._above = above
            self._cluster_id = above.claim(version, len(self._ports))
        nodes = []
        for number in self._ports:
            directory = DataDirectory.open(None if wanted is None else wanted / f"node-{number}")
            self._given_back.callback(directory.close)
            nodes.append(Node(number, java, directory, heap_mb=self._heap_mb, version=version))
        self._given_back.callback(
            _at_once, Node.stop, nodes
        )  # the first to be called: all end before any is given back
        return nodes

    def _try_start(self, nodes: list[Node], *, last: bool) -> bool:
        """One attempt. False if a port that we chose ourselves was taken meanwhile and others may be tried."""
        addresses = choose_addresses(self._ports, self._proxy_ports)
        cluster_id = self._cluster_id = self._cluster_id or new_cluster_id()

        held = () if self._above is None else (self._above.lock_descriptor,)

        def prepare(node: Node) -> None:
            node.prepare(addresses, self._settings, cluster_id=cluster_id, held=held)

        _at_once(prepare, nodes)
        for node in nodes:
            node.launch()
        try:
            _at_once(Node.wait_answers, nodes)
        except ChoreoError:
            taken = [port for node in nodes if (port := node.taken_port()) is not None]
            if not taken or last:
                raise
            if taken[0] in self._ports.values():
                raise port_in_use(taken[0]) from None
            _at_once(Node.kill, nodes)
            return False
        self._nodes = tuple(nodes)
        if self._above is not None:
            self._above.describe(f"the cluster {self.bootstrap}")
        self._ports = {node.id: node.port for node in nodes}
        return True

    def _behind(self) -> list[str]:
        """Partitions whose replicas are not all in sync, as the cluster says; the cluster itself if it says nothing."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        client = AdminClient(
            {"bootstrap.servers": self.bootstrap, "log_level": 0, "error_cb": lambda error: None}  # nodes may be away
        )
        try:
            metadata = client.list_topics(timeout=METADATA_TIMEOUT_S)
        except KafkaException as error:
            return [f"no answer ({error.args[0].name()})"]
        # the cluster takes seconds to miss a node; we know at once that its process is gone
        missing = [f"node {node.id}" for node in self.nodes if not node.running or node.id not in metadata.brokers]
        return missing + [
            f"{topic.topic}/{partition.id} misses {sorted(set(partition.replicas) - set(partition.isrs))}"
            for topic in metadata.topics.values()
            for partition in topic.partitions.values()
            if set(partition.replicas) != set(partition.isrs) or partition.leader < 0
        ]


def _at_once(action: Callable[[Node], object], nodes: Iterable[Node]) -> None:
    """Does the same with several nodes side by side; waits for all, then raises the first error."""
    todo = list(nodes)
    if not todo:
        return
    with ThreadPoolExecutor(len(todo)) as pool:
        for done in [pool.submit(action, node) for node in todo]:
            done.result()
