"""The data directory of an embedded broker: one process at a time, formatted once, never another release's."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Final

from choreo.errors import HostError
from choreo.runtime.broker.java import Java
from choreo.runtime.broker.process import cause_in

MARK: Final = "choreo-broker.json"
LOCK: Final = "choreo-broker.lock"
FORMAT_TIMEOUT_S: Final = 60.0  # takes 1 s on an idle machine
LOCK_PATIENCE_S: Final = 2.0  # a guardian whose broker has just ended gives the lock back a moment later
LOCK_AGAIN_S: Final = 0.05
CLUSTER_ID_BYTES: Final = 16  # Kafka's ids are 16 random bytes in URL-safe base64 without padding


class DataDirectory:
    """A locked directory; made by :meth:`open`, given back by :meth:`close`.

    Attributes:
        path: the directory.
        logs: Kafka's own part of it.
        temporary: deleted on close.
    """

    def __init__(self, path: Path, lock: IO[str], *, temporary: bool) -> None:
        self.path = path
        self.logs = path / "log"
        self.temporary = temporary
        self._lock = lock

    @classmethod
    def open(cls, path: Path | None) -> DataDirectory:
        """Lock a directory, making it if needed.

        Args:
            path: where the data is kept; None for a temporary directory.

        Raises:
            HostError: CH0804, if the directory cannot be used, holds something else, or another process uses it.
        """
        if path is None:
            directory = Path(tempfile.mkdtemp(prefix="choreo-kafka-"))
            return cls(directory, (directory / LOCK).open("a+"), temporary=True)._locked()
        directory = path.absolute()
        if "," in str(directory):
            raise HostError(
                "the path contains a comma, which separates directories in Kafka's settings",
                code="CH0804",
                where=str(directory),
                hint="choose another --data directory",
                fault="user",
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not (directory / LOCK).exists() and any(directory.iterdir()):
                raise HostError(
                    "the directory is not empty and was not made by choreo, expected a data directory of choreo broker",
                    code="CH0804",
                    where=str(directory),
                    hint="choose another --data directory",
                    fault="user",
                )
            lock = (directory / LOCK).open("a+")
        except FileExistsError as error:
            raise HostError(
                "this is a file, expected a directory",
                code="CH0804",
                where=str(directory),
                hint="choose another --data directory",
                fault="user",
            ) from error
        except OSError as error:
            raise HostError(
                f"the data directory cannot be used: {error.strerror}",
                code="CH0804",
                where=str(error.filename or directory),
                hint="choose another --data directory",
                fault="user",
            ) from error
        return cls(directory, lock, temporary=False)._locked()

    def _locked(self) -> DataDirectory:
        """Take the lock, which ends with the last process that holds the open file."""
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while not self._try_lock():
            if time.monotonic() < deadline:
                time.sleep(LOCK_AGAIN_S)
                continue
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            self._lock.close()
            raise HostError(
                f"the data directory is in use by {holder}, expected it unused",
                code="CH0804",
                where=str(self.path),
                hint="stop that broker, or choose another --data directory",
                fault="user",
            )
        self.describe(f"process {os.getpid()}")
        return self

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @property
    def lock_descriptor(self) -> int:
        """Descriptor to hand to the process that uses the directory, so that the lock lasts as long as it does."""
        return self._lock.fileno()

    def describe(self, holder: str) -> None:
        """Say who has the lock, for the message of the next one who asks."""
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(f"{holder}\n")
        self._lock.flush()

    def claim(self, version: str, nodes: int) -> str:
        """Make this the directory above those of a cluster's nodes, unless it is.

        Returns:
            The cluster id, the same for as long as the directory lives.

        Raises:
            HostError: CH0804, if another release of Kafka, one broker or a cluster of another size wrote the directory.
        """
        mark = self.path / MARK
        if mark.exists():
            return self._check_mark(mark, version, nodes)
        cluster_id = new_cluster_id()
        _write_mark(mark, version, cluster_id, nodes)
        return cluster_id

    def format(
        self, java: Java, properties: Path, version: str, *, nodes: int = 1, cluster_id: str | None = None
    ) -> str:
        """Format Kafka's storage unless that was done before.

        Args:
            java: what runs Kafka's tool.
            properties: the node's settings.
            version: release of Kafka.
            nodes: how many nodes the cluster has.
            cluster_id: the cluster's; a new one if absent.

        Returns:
            The cluster id, the same for as long as the directory lives.

        Raises:
            HostError: CH0804, if another release of Kafka or a node of another cluster wrote the directory; CH0803, if
                formatting fails.
        """
        mark = self.path / MARK
        if mark.exists():
            found = self._check_mark(mark, version, nodes)
            if cluster_id is not None and found != cluster_id:
                raise HostError(
                    f"the data directory belongs to cluster {found}, expected {cluster_id}",
                    code="CH0804",
                    where=str(self.path),
                    hint="choose another --data directory",
                )
            return found
        # No mark: nothing here yet, or an earlier format was cut short. Either way there is no data to lose.
        shutil.rmtree(self.logs, ignore_errors=True)
        cluster_id = cluster_id or new_cluster_id()
        arguments = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)]
        try:
            done = subprocess.run(
                java.command(arguments, heap_mb=128, temporary=self.scratch()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=FORMAT_TIMEOUT_S,
                check=False,
                cwd=self.path,
            )
        except subprocess.TimeoutExpired as error:
            raise HostError(
                f"formatting the storage took longer than {FORMAT_TIMEOUT_S:.0f} s", code="CH0803", where=str(self.path)
            ) from error
        if done.returncode != 0:
            cause = cause_in(done.stdout.decode("utf-8", "replace"))
            raise HostError(f"formatting the storage failed: {cause}", code="CH0803", where=str(self.path))
        _write_mark(mark, version, cluster_id, nodes)
        return cluster_id

    def _check_mark(self, mark: Path, version: str, nodes: int) -> str:
        try:
            content = json.loads(mark.read_text("utf-8"))
            written_by, cluster_id = str(content["kafka"]), str(content["cluster_id"])
            nodes_before = int(content.get("nodes", 1))
        except (ValueError, KeyError, TypeError) as error:
            raise HostError(
                "the file is damaged, expected the release and the cluster id",
                code="CH0804",
                where=str(mark),
                hint="choose another --data directory",
            ) from error
        if _line(written_by) != _line(version):
            raise HostError(
                f"the data directory was written by Kafka {written_by}, expected {version}",
                code="CH0804",
                where=str(self.path),
                hint="choose another --data directory",
                fault="user",
            )
        if nodes_before != nodes:
            raise HostError(
                f"the data directory holds {_size(nodes_before)}, expected {_size(nodes)}",
                code="CH0804",
                where=str(self.path),
                hint="choose another --data directory, or the --nodes of before",
                fault="user",
            )
        return cluster_id

    def scratch(self) -> Path:
        """Directory for what Java unpacks, so that a killed JVM leaves nothing in the system's own."""
        directory = self.path / "tmp"
        directory.mkdir(exist_ok=True)
        return directory

    def close(self) -> None:
        """Release the lock; delete a temporary directory."""
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def new_cluster_id() -> str:
    """An id in Kafka's form."""
    cluster_id = base64.urlsafe_b64encode(secrets.token_bytes(CLUSTER_ID_BYTES)).decode("ascii").rstrip("=")
    # An id that starts with a dash would be read as an option.
    return cluster_id.replace("-", "A", 1) if cluster_id.startswith("-") else cluster_id


def _write_mark(mark: Path, version: str, cluster_id: str, nodes: int) -> None:
    """Writes the mark whole or not at all; one node is what a mark means that says nothing else."""
    content = {"kafka": version, "cluster_id": cluster_id, **({"nodes": nodes} if nodes > 1 else {})}
    draft = mark.with_suffix(".draft")
    draft.write_text(json.dumps(content) + "\n", "utf-8")
    draft.replace(mark)


def _size(nodes: int) -> str:
    return "a single broker" if nodes == 1 else f"a cluster of {nodes} nodes"


def _line(version: str) -> list[str]:
    """Release line: patch releases read each other's data."""
    return version.split(".")[:2]
