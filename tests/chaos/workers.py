"""Worker processes: started as a user starts them, and killed as no user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# A worker that was asked to stop drains for a few seconds; one that takes longer than this hangs.
STOP_TIMEOUT_S = 40.0


class Worker:
    """One worker process with a fixed instance id. Its log goes on over restarts."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log_file = folder / f"worker-{name}.log"
        self.starts = 0
        self._command = list(command)
        self._folder = folder
        self._environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert not self.alive, f"worker {self.name} is running already"
        self.starts += 1
        with self.log_file.open("ab") as log:
            log.write(f"---- start {self.starts}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

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

    def stop(self) -> int:
        """SIGTERM; the exit code. A worker that does not end in time is a failure."""
        assert self._process is not None
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
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

    def log(self) -> str:
        return self.log_file.read_text("utf-8", errors="replace") if self.log_file.exists() else ""

    def assigned(self) -> bool:
        """Whether the worker was given partitions since its last start."""
        return "assigned partitions [" in self.log().rpartition("---- start")[2]

    def tail(self, lines: int = 40) -> str:
        return f"---- log of worker {self.name}\n" + "\n".join(self.log().splitlines()[-lines:])


def faust_command(agent: str, *arguments: str) -> list[str]:
    """The command line a user types, in this interpreter."""
    return [sys.executable, "-m", "faust", "-A", f"agents.{agent}", "worker", "-l", "info", "--without-web", *arguments]
