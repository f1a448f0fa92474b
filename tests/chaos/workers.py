"""Worker processes: started as a user starts them, and killed as no user would."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from choreo.runtime import tether

# A worker that was asked to stop drains for a few seconds; one that takes longer than this hangs.
STOP_TIMEOUT_S = 40.0


class Worker:
    """One worker process with a fixed instance id. Its log goes on over restarts.

    The log comes through a pipe: a worker that may not write files (``fill_disk``) can still say what is wrong.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        runs_in: Path | None = None,
    ) -> None:
        self.name = name
        self.log_file = folder / f"worker-{name}.log"
        self.starts = 0
        self._command = list(command)
        self._folder = runs_in or folder
        self._environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: list[str] = []  # since the last start
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        assert not self.alive, f"worker {self.name} is running already"
        self._end_reader()
        self.starts += 1
        self._lines = []
        # tied to this process: if it is killed, no worker is left behind to hold partitions
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(tether.__file__), str(os.getpid()), *self._command],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout, self._lines), name=f"log of {self.name}", daemon=True
        )
        self._reader.start()

    def _read(self, pipe: IO[bytes], lines: list[str]) -> None:
        with pipe, self.log_file.open("ab") as log:
            log.write(f"---- start {self.starts}\n".encode())
            for line in pipe:
                lines.append(line.decode("utf-8", errors="replace"))
                log.write(line)
                log.flush()

    def _end_reader(self) -> None:
        if self._reader is not None:
            self._reader.join(STOP_TIMEOUT_S)
            assert not self._reader.is_alive(), f"the log of {self.name} did not end with its process"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def kill(self) -> bool:
        """kill -9. True if the worker was running, and died of it and of nothing else."""
        if not self.alive:
            return False
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        return self._process.wait(STOP_TIMEOUT_S) == -signal.SIGKILL

    def freeze(self) -> bool:
        """SIGSTOP. True if the worker was running and is stopped now."""
        if not self.alive:
            return False
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # WNOWAIT leaves the process to `subprocess`, which collects its exit code later.
        state = os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return state is not None and state.si_code == os.CLD_STOPPED

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def fill_disk(self) -> None:
        """From now on until its end, every write of the process to a file fails (EFBIG): RLIMIT_FSIZE is 0.

        Needs neither a mount nor root; sockets and pipes are not touched. Python ignores SIGXFSZ, so writes fail as
        they do on a full disk.
        """
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0, hard))

    def dump_threads(self) -> None:
        """Makes the process write all its threads' stacks to its log, and end (PYTHONFAULTHANDLER has to be set)."""
        if self.alive:
            assert self._process is not None
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGABRT)

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting for what comes of it."""
        assert self._process is not None
        if self.alive:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """SIGTERM; the exit code. A worker that does not end in time is a failure."""
        assert self._process is not None
        self.ask_to_stop()
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"worker {self.name} did not stop in {STOP_TIMEOUT_S} s\n{self.tail()}") from None

    def wait_exit(self, timeout_s: float) -> int:
        """Exit code of a worker that is expected to end by itself."""
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"worker {self.name} still runs after {timeout_s} s\n{self.tail()}") from None

    def discard(self) -> None:
        """Ends the process whatever its state; for cleaning up."""
        if self.alive:
            assert self._process is not None
            self._process.kill()  # also ends a stopped process
            self._process.wait(STOP_TIMEOUT_S)
        self._end_reader()

    def lines(self) -> list[str]:
        """What the worker has said since its last start."""
        return list(self._lines)

    def log(self) -> str:
        """What the worker has said since its first start."""
        if not self.alive:
            self._end_reader()
        return self.log_file.read_text("utf-8", errors="replace") if self.log_file.exists() else ""

    def assigned(self) -> bool:
        """Whether the worker was given partitions since its last start."""
        return any("assigned partitions [" in line for line in self.lines())

    def tail(self, lines: int = 40) -> str:
        return f"---- log of worker {self.name}\n" + "\n".join(self.log().splitlines()[-lines:])


def faust_command(agent: str, *arguments: str) -> list[str]:
    """The command line a user types, in this interpreter."""
    return [sys.executable, "-m", "faust", "-A", f"agents.{agent}", "worker", "-l", "info", "--without-web", *arguments]
