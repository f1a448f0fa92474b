"""One Kafka process and its data directory: what a single broker and each member of a cluster have in common."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Final

from choreo.errors import HostError
from choreo.runtime.broker.config import Addresses, server_properties
from choreo.runtime.broker.directory import DataDirectory
from choreo.runtime.broker.java import Java
from choreo.runtime.broker.ports import LOOPBACK, free_port, is_free, owner, require_free
from choreo.runtime.broker.process import Jvm

START_TIMEOUT_S: Final = 90.0  # 2 s on an idle machine; the bound is for one whose cores are all taken
POLL_S: Final = 0.05
CONNECT_TIMEOUT_S: Final = 1.0
METADATA_TIMEOUT_S: Final = 5.0
ORPHAN_GRACE_S: Final = 5.0  # for a node with lasting data whose starter died: time to close its logs


class Node:
    """A node of an embedded cluster; made and given back by :class:`EmbeddedBroker` and :class:`EmbeddedCluster`.

    Attributes:
        id: Kafka's ``node.id``, from 1 on.

    Guarantee: after :meth:`start` the node takes part in its cluster and answers; after :meth:`stop` or :meth:`kill`
    its process is gone. Data and ports stay for the next start.
    """

    def __init__(self, number: int, java: Java, directory: DataDirectory, *, heap_mb: int, version: str) -> None:
        self.id = number
        self._java = java
        self._directory = directory
        self._heap_mb = heap_mb
        self._version = version
        self._addresses: Mapping[int, Addresses] = {}
        self._held: Sequence[int] = ()
        self._jvm: Jvm | None = None

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def directory(self) -> DataDirectory:
        """Where it keeps its data."""
        return self._directory

    @property
    def addresses(self) -> Addresses:
        """Its ports."""
        return self._addresses[self.id]

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self.addresses.port

    @property
    def bootstrap(self) -> str:
        """The same as an address, ``127.0.0.1:PORT``."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def running(self) -> bool:
        """True while the JVM runs, paused or not."""
        return self._jvm is not None and self._jvm.running

    @property
    def pid(self) -> int:
        """Process id of the running JVM.

        Raises:
            HostError: CH0803, if it does not run.
        """
        if self._jvm is None or not self._jvm.running:
            raise HostError("the broker is not running", code="CH0803", fault="choreo")
        return self._jvm.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code of the last run, 128 + n if signal n ended it; None before the first and while one lasts."""
        return None if self._jvm is None else self._jvm.exit_code

    def last_words(self) -> str:
        """The end of what the last run wrote."""
        return "it never ran" if self._jvm is None else self._jvm.last_words()

    # -- what it does ------------------------------------------------------------------------------------------------

    def prepare(
        self,
        addresses: Mapping[int, Addresses],
        settings: Mapping[str, str],
        *,
        cluster_id: str | None = None,
        held: Sequence[int] = (),
    ) -> str:
        """Write the node's settings and format its storage unless that was done before.

        Args:
            addresses: of every node of the cluster, by id.
            settings: that add to or replace the defaults.
            cluster_id: of the cluster; a new one if absent.
            held: descriptors that stay open as long as the process runs, besides the directory's own lock.

        Returns:
            The cluster id.

        Raises:
            HostError: CH0803, if formatting fails; CH0804, if the directory holds something else.
        """
        self._addresses = dict(addresses)
        self._held = (self._directory.lock_descriptor, *held)
        properties = self._directory.path / "server.properties"
        properties.write_text(
            server_properties(self.id, addresses, logs=self._directory.logs, settings=settings), "ascii"
        )
        return self._directory.format(
            self._java, properties, self._version, nodes=len(addresses), cluster_id=cluster_id
        )

    def start(self) -> None:
        """Start as prepared, and wait until the node answers. Does nothing if it runs.

        Raises:
            HostError: CH0802, if one of its ports is taken; CH0803, if Kafka does not start.
        """
        if self.running:
            return
        for port in self.addresses.all():
            require_free(port)
        self.launch()
        self.wait_answers()

    def launch(self) -> None:
        """Start the process as prepared, without waiting for Kafka."""
        directory = self._directory
        properties = directory.path / "server.properties"
        self._jvm = Jvm.start(
            self._java.command(["kafka.Kafka", str(properties)], heap_mb=self._heap_mb, temporary=directory.scratch()),
            directory=directory.path,
            log=directory.path / "broker.log",
            held=self._held,
            remove=directory.temporary,
            grace_s=0 if directory.temporary else ORPHAN_GRACE_S,
        )
        directory.describe(f"the broker {self.bootstrap} (pid {self._jvm.pid})")

    def wait_answers(self) -> None:
        """Wait until the node takes part in the cluster and answers.

        Raises:
            HostError: CH0803, if it ended, or took longer than ``START_TIMEOUT_S``.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if not self.running:
                raise HostError(
                    f"Kafka ended with exit code {self.exit_code} while starting: {self.last_words()}", code="CH0803"
                )
            if _accepts(self.port) and _answers(self.bootstrap, self.id):
                return
            if time.monotonic() > deadline:
                raise HostError(
                    f"Kafka did not answer on {self.bootstrap} within {START_TIMEOUT_S:.0f} s: {self.last_words()}",
                    code="CH0803",
                    retry="backoff",
                )
            time.sleep(POLL_S)

    def taken_port(self) -> int | None:
        """The port for whose sake the process has just ended: one of its own that somebody else listens on."""
        if self.running:
            return None
        return next((port for port in self.addresses.all() if not is_free(port)), None)

    def stop(self) -> None:
        """Stop cleanly: leaders move, logs are closed. Also ends a paused process."""
        if self._jvm is not None:
            self._jvm.stop()

    def kill(self) -> None:
        """``kill -9``: the process is gone on return."""
        if self._jvm is not None:
            self._jvm.kill()

    def restart(self) -> None:
        """Stop cleanly if it runs, then start on the same data and the same ports."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """``SIGSTOP``: the process keeps its connections and says nothing more.

        Raises:
            HostError: CH0803, if it does not run.
        """
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """``SIGCONT``, after :meth:`pause`.

        Raises:
            HostError: CH0803, if it does not run.
        """
        os.kill(self.pid, signal.SIGCONT)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until the process ends; its exit code, or None if it still runs after ``timeout_s``."""
        return None if self._jvm is None else self._jvm.wait(timeout_s)


def choose_addresses(ports: Mapping[int, int | None], proxy_ports: Mapping[int, int]) -> dict[int, Addresses]:
    """Free ports for every node.

    Args:
        ports: node id to where clients connect; None for any free port.
        proxy_ports: node id to the port of the proxy that stands before it.

    Raises:
        HostError: CH0802, if no free port was found.
    """
    promised = {port for port in ports.values() if port is not None} | set(proxy_ports.values())

    def another() -> int:
        port = free_port(other_than=promised)
        promised.add(port)
        return port

    return {
        node: Addresses(
            port=another() if port is None else port,
            controller_port=another(),
            behind_port=another() if node in proxy_ports else None,
            proxy_port=proxy_ports.get(node),
        )
        for node, port in ports.items()
    }


def port_in_use(port: int) -> HostError:
    """The error for a port that somebody took between the look at it and Kafka's start."""
    return HostError(
        f"port {port} is in use by {owner(port) or 'another process'}, expected free",
        code="CH0802",
        hint="choose --port",
    )


def _accepts(port: int) -> bool:
    """True if something takes connections there; cheaper and quieter than asking a Kafka client."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError:  # refused or timed out: not yet
        return False
    return True


def _answers(bootstrap: str, node: int) -> bool:
    """True if the node answers a metadata request and names itself in it: the controllers have let it in."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    client = AdminClient(
        {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "error_cb": lambda error: None,  # a broker that is still starting is expected here
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 200,
        }
    )
    try:
        return node in client.list_topics(timeout=METADATA_TIMEOUT_S).brokers
    except KafkaException:  # no answer yet
        return False
