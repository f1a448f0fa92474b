"""An Apache Kafka of our own: started, watched, stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from choreo.errors import ChoreoError, HostError
from choreo.runtime.broker.directory import DataDirectory
from choreo.runtime.broker.embedded import Embedded
from choreo.runtime.broker.jars import KAFKA_VERSION, JarSource
from choreo.runtime.broker.node import Node, choose_addresses, port_in_use
from choreo.runtime.broker.ports import LOOPBACK, require_free
from choreo.runtime.broker.progress import Progress

HEAP_MB: Final = 384
PORT_ATTEMPTS: Final = 3  # a port found free may be taken by another process before Kafka binds it
ONLY: Final = 1
"""Id of the only node."""


class EmbeddedBroker(Embedded):
    """One Kafka broker on 127.0.0.1 that is its own controller, as a child process that ends with this one.

    Args:
        port: where clients connect; None for any free port, kept over restarts.
        data_dir: where topics are kept; None for a temporary directory that :meth:`stop` deletes.
        heap_mb: limit of the Java heap in MiB.
        settings: broker settings that add to or replace ``config.DEFAULTS``.
        progress: told about the download on a machine that doesn't have Kafka yet.
        version: Kafka release; others than the pinned one are for tests.
        jar_source: where jars come from; by default what jgo is configured for.
        proxy_port: where a proxy listens that stands before the broker. Its clients are told to connect there, and it
            connects to :attr:`behind_port`; clients of :attr:`bootstrap` go past it.

    Guarantee: after :meth:`start` returns the broker answers metadata requests; after :meth:`stop` or :meth:`kill` its
    process is gone. If this process ends in any other way, the broker follows within a second (lasting data: within
    ``ORPHAN_GRACE_S`` more).
    """

    def __init__(
        self,
        port: int | None = None,
        data_dir: Path | None = None,
        heap_mb: int = HEAP_MB,
        settings: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        *,
        version: str = KAFKA_VERSION,
        jar_source: JarSource | None = None,
        proxy_port: int | None = None,
    ) -> None:
        super().__init__(version, jar_source, progress)
        self._port = port
        self._wanted_directory = data_dir
        self._heap_mb = heap_mb
        self._settings = dict(settings or {})
        self._proxy_ports = {} if proxy_port is None else {ONLY: proxy_port}
        self._node: Node | None = None
        self._cluster_id: str | None = None

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def bootstrap(self) -> str:
        """Address for clients, ``127.0.0.1:PORT``."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def port(self) -> int:
        """Port for clients; known from the first start on."""
        if self._port is None:
            raise HostError("the broker has no port before its first start", code="CH0803", fault="choreo")
        return self._port

    @property
    def behind_port(self) -> int:
        """Port for a proxy; known while the broker is up or killed."""
        found = None if self._node is None else self._node.addresses.behind_port
        if found is None:
            raise HostError("no proxy stands before this broker", code="CH0803", fault="choreo")
        return found

    @property
    def pid(self) -> int:
        """Process id of the running JVM."""
        if self._node is None:
            raise HostError("the broker is not running", code="CH0803", fault="choreo")
        return self._node.pid

    @property
    def running(self) -> bool:
        """True while the JVM runs."""
        return self._node is not None and self._node.running

    @property
    def cluster_id(self) -> str:
        """Id of the cluster, the same as long as the data directory lives."""
        if self._cluster_id is None:
            raise HostError("the broker has no cluster id before its first start", code="CH0803", fault="choreo")
        return self._cluster_id

    @property
    def data_dir(self) -> Path:
        """Directory of the data; known while the broker is up or killed, not after a stop."""
        if self._node is None:
            raise HostError("the broker has no data directory when it is stopped", code="CH0803", fault="choreo")
        return self._node.directory.path

    # -- what it does ------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start, and wait until the broker answers. Does nothing if it runs.

        Raises:
            HostError: CH0802, if the port is taken; CH0803, if Kafka cannot be downloaded or doesn't start; CH0804, if
                the data directory cannot be used.
        """
        if self.running:
            return self
        if self._port is not None:
            require_free(self._port)
        java = self.java
        if self._node is None:
            directory = DataDirectory.open(self._wanted_directory)
            self._node = Node(ONLY, java, directory, heap_mb=self._heap_mb, version=self._version)
        try:
            for attempt in range(1, PORT_ATTEMPTS + 1):
                if self._try_start(self._node, last=attempt == PORT_ATTEMPTS):
                    return self
        except BaseException:
            self.stop()
            raise
        raise AssertionError("the last attempt either succeeds or raises")

    def stop(self) -> None:
        """Stop cleanly, release the data directory, delete it if it is temporary. Does nothing if that was done."""
        node, self._node = self._node, None
        if node is None:
            return
        try:
            node.stop()
        finally:
            node.directory.close()

    def kill(self) -> None:
        """``kill -9``: the process is gone on return; data and port stay for :meth:`start` or :meth:`restart`."""
        if self._node is not None:
            self._node.kill()

    def restart(self) -> None:
        """Stop cleanly if it runs, then start on the same data and the same port."""
        if self._node is not None:
            self._node.stop()
        self.start()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the broker's process ends.

        Args:
            timeout_s: return after this time even if it still runs.

        Raises:
            HostError: CH0803, if the process ended by itself.
        """
        if self._node is None:
            return
        code = self._node.wait(timeout_s)
        if code is not None:
            raise HostError(f"Kafka ended with exit code {code}: {self._node.last_words()}", code="CH0803")

    # -- how ---------------------------------------------------------------------------------------------------------

    def _try_start(self, node: Node, *, last: bool) -> bool:
        """One attempt. False if a port that we chose ourselves was taken meanwhile and another may be tried."""
        addresses = choose_addresses({ONLY: self._port}, self._proxy_ports)
        self._cluster_id = node.prepare(addresses, self._settings)
        node.launch()
        try:
            node.wait_answers()
        except ChoreoError:
            taken = node.taken_port()
            if taken is None or last:
                raise
            if taken == self._port:
                raise port_in_use(taken) from None
            return False
        self._port = node.port
        return True
