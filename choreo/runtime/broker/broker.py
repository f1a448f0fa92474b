"""An Apache Kafka of our own: started, watched, stopped."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from choreo.errors import ChoreoError, HostError
from choreo.runtime.broker.config import server_properties
from choreo.runtime.broker.directory import DataDirectory
from choreo.runtime.broker.jars import KAFKA_VERSION, JarSource, kafka_jars
from choreo.runtime.broker.java import Java, java_runtime
from choreo.runtime.broker.ports import LOOPBACK, free_port, is_free, owner, require_free
from choreo.runtime.broker.process import Jvm
from choreo.runtime.broker.progress import Progress, silent

START_TIMEOUT_S: Final = 90.0  # 2 s on an idle machine; the bound is for one whose cores are all taken
POLL_S: Final = 0.05
CONNECT_TIMEOUT_S: Final = 1.0
METADATA_TIMEOUT_S: Final = 5.0
ORPHAN_GRACE_S: Final = 5.0  # for a broker with lasting data whose starter died: time to close its logs
PORT_ATTEMPTS: Final = 3  # a port found free may be taken by another process before Kafka binds it


class EmbeddedBroker:
    """One Kafka broker on 127.0.0.1 that is its own controller, as a child process that ends with this one.

    Args:
        port: where clients connect; None for any free port, kept over restarts.
        data_dir: where topics are kept; None for a temporary directory that :meth:`stop` deletes.
        heap_mb: limit of the Java heap in MiB.
        settings: broker settings that add to or replace ``config.DEFAULTS``.
        progress: told about the download on a machine that doesn't have Kafka yet.
        version: Kafka release; others than the pinned one are for tests.
        jar_source: where jars come from; by default what jgo is configured for.

    Guarantee: after :meth:`start` returns the broker answers metadata requests; after :meth:`stop` or :meth:`kill` its
    process is gone. If this process ends in any other way, the broker follows within a second (lasting data: within
    ``ORPHAN_GRACE_S`` more).
    """

    def __init__(
        self,
        port: int | None = None,
        data_dir: Path | None = None,
        heap_mb: int = 384,
        settings: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        *,
        version: str = KAFKA_VERSION,
        jar_source: JarSource | None = None,
    ) -> None:
        self._wanted_port = port
        self._port = port
        self._wanted_directory = data_dir
        self._heap_mb = heap_mb
        self._settings = dict(settings or {})
        self._progress = progress or silent
        self._version = version
        self._jar_source = jar_source
        self._java: Java | None = None
        self._directory: DataDirectory | None = None
        self._jvm: Jvm | None = None
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
    def pid(self) -> int:
        """Process id of the running JVM."""
        if self._jvm is None or not self._jvm.running:
            raise HostError("the broker is not running", code="CH0803", fault="choreo")
        return self._jvm.pid

    @property
    def running(self) -> bool:
        """True while the JVM runs."""
        return self._jvm is not None and self._jvm.running

    @property
    def cluster_id(self) -> str:
        """Id of the cluster, the same as long as the data directory lives."""
        if self._cluster_id is None:
            raise HostError("the broker has no cluster id before its first start", code="CH0803", fault="choreo")
        return self._cluster_id

    @property
    def data_dir(self) -> Path:
        """Directory of the data; known while the broker is up or killed, not after a stop."""
        if self._directory is None:
            raise HostError("the broker has no data directory when it is stopped", code="CH0803", fault="choreo")
        return self._directory.path

    @property
    def java(self) -> Java:
        """The JRE and jars of this broker's release, for running Kafka's own tools."""
        if self._java is None:
            self._java = Java(
                java_runtime(), kafka_jars(self._version, source=self._jar_source, progress=self._progress)
            )
        return self._java

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
        if self._directory is None:
            self._directory = DataDirectory.open(self._wanted_directory)
        try:
            for attempt in range(1, PORT_ATTEMPTS + 1):
                if self._try_start(java, self._directory, last=attempt == PORT_ATTEMPTS):
                    return self
        except BaseException:
            self.stop()
            raise
        raise AssertionError("the last attempt either succeeds or raises")

    def stop(self) -> None:
        """Stop cleanly, release the data directory, delete it if it is temporary. Does nothing if that was done."""
        jvm, self._jvm = self._jvm, None
        directory, self._directory = self._directory, None
        try:
            if jvm is not None:
                jvm.stop()
        finally:
            if directory is not None:
                directory.close()

    def kill(self) -> None:
        """``kill -9``: the process is gone on return; data and port stay for :meth:`start` or :meth:`restart`."""
        if self._jvm is not None:
            self._jvm.kill()

    def restart(self) -> None:
        """Stop cleanly if it runs, then start on the same data and the same port."""
        if self._jvm is not None:
            self._jvm.stop()
        self.start()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the broker's process ends.

        Args:
            timeout_s: return after this time even if it still runs.

        Raises:
            HostError: CH0803, if the process ended by itself.
        """
        if self._jvm is None:
            return
        code = self._jvm.wait(timeout_s)
        if code is not None:
            raise HostError(f"Kafka ended with exit code {code}: {self._jvm.last_words()}", code="CH0803")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- how ---------------------------------------------------------------------------------------------------------

    def _try_start(self, java: Java, directory: DataDirectory, *, last: bool) -> bool:
        """One attempt. False if a port that we chose ourselves was taken meanwhile and another may be tried."""
        first_time = self._port is None
        port = free_port() if self._port is None else self._port
        controller_port = free_port(other_than=port)
        properties = directory.path / "server.properties"
        properties.write_text(
            server_properties(port=port, controller_port=controller_port, logs=directory.logs, settings=self._settings),
            "ascii",
        )
        self._cluster_id = directory.format(java, properties, self._version)
        log = directory.path / "broker.log"
        self._jvm = Jvm.start(
            java.command(["kafka.Kafka", str(properties)], heap_mb=self._heap_mb, temporary=directory.scratch()),
            directory=directory.path,
            log=log,
            held=[directory.lock_descriptor],
            remove=directory.temporary,
            grace_s=0 if directory.temporary else ORPHAN_GRACE_S,
        )
        directory.describe(f"the broker {LOOPBACK}:{port} (pid {self._jvm.pid})")
        self._port = port
        try:
            self._wait_until_it_answers(self._jvm, port)
        except ChoreoError:
            taken = not self._jvm.running and not (is_free(port) and is_free(controller_port))
            if not taken or last:
                raise
            if first_time:
                self._port = None
            elif not is_free(port):
                raise HostError(
                    f"port {port} is in use by {owner(port) or 'another process'}, expected free",
                    code="CH0802",
                    hint="choose --port",
                ) from None
            return False
        return True

    def _wait_until_it_answers(self, jvm: Jvm, port: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if not jvm.running:
                raise HostError(
                    f"Kafka ended with exit code {jvm.exit_code} while starting: {jvm.last_words()}", code="CH0803"
                )
            if _accepts(port) and _answers(f"{LOOPBACK}:{port}"):
                return
            if time.monotonic() > deadline:
                raise HostError(
                    f"Kafka did not answer on {LOOPBACK}:{port} within {START_TIMEOUT_S:.0f} s: {jvm.last_words()}",
                    code="CH0803",
                    retry="backoff",
                )
            time.sleep(POLL_S)


def _accepts(port: int) -> bool:
    """True if something takes connections there; cheaper and quieter than asking a Kafka client."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError:  # refused or timed out: not yet
        return False
    return True


def _answers(bootstrap: str) -> bool:
    """True if the broker answers a metadata request and names itself in it."""
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
        return bool(client.list_topics(timeout=METADATA_TIMEOUT_S).brokers)
    except KafkaException:  # no answer yet
        return False
