"""The broker's JVM as a child that dies with us: start, look, stop, kill."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from choreo.errors import HostError
from choreo.runtime.broker import guardian

SPAWN_TIMEOUT_S: Final = 20.0  # the guardian answers in 50 ms; a loaded machine may take seconds
STOP_TIMEOUT_S: Final = 20.0  # a clean stop takes 1 s; after this the log is recovered on the next start instead
KILL_TIMEOUT_S: Final = 10.0  # the kernel ends a killed process; this bounds our wait for it
LOG_TAIL_BYTES: Final = 16_384
LOG_TAIL_LINES: Final = 3


class Jvm:
    """One run of a JVM below a guardian process (see ``guardian``)."""

    def __init__(self, process: subprocess.Popen[bytes], pid: int, log: Path) -> None:
        self._guardian = process
        self._log = log
        self.pid = pid

    @classmethod
    def start(
        cls, command: Sequence[str], *, directory: Path, log: Path, held: Sequence[int], remove: bool, grace_s: float
    ) -> Jvm:
        """Start a JVM that ends when this process does.

        Args:
            command: what to run.
            directory: its working directory.
            log: file for its output, emptied first.
            held: descriptors that stay open as long as it runs.
            remove: delete ``directory`` if this process ends without stopping the JVM.
            grace_s: how long the JVM may take to stop cleanly in that case.

        Raises:
            HostError: CH0803, if the process cannot be started.
        """
        script = [sys.executable, "-I", "-S", str(Path(guardian.__file__))]
        arguments = [str(os.getpid()), str(grace_s), str(directory) if remove else "", "--", *command]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*script, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=directory,
                pass_fds=held,
                start_new_session=True,  # Ctrl-C is for us; we stop the broker after its clients
            )
        pid = _read_pid(process)
        if pid is None:
            process.kill()
            process.wait()
            raise HostError(f"Java could not be started: {tail(log)}", code="CH0803", where=str(log))
        return cls(process, pid, log)

    @property
    def running(self) -> bool:
        """True until the JVM has ended."""
        return self._guardian.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the JVM, 128 + n if signal n ended it; None while it runs."""
        return self._guardian.poll()

    def stop(self) -> None:
        """Stop cleanly, a stopped process too; kill after ``STOP_TIMEOUT_S``."""
        if self.running:
            with suppress(ProcessLookupError):  # it ended between the question and the signal
                os.kill(self.pid, signal.SIGTERM)
                os.kill(self.pid, signal.SIGCONT)
            with suppress(subprocess.TimeoutExpired):
                self._guardian.wait(STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does; also works on a stopped process."""
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            try:
                self._guardian.wait(KILL_TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise HostError(f"process {self.pid} does not end after SIGKILL", code="CH0803") from error

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until the JVM has ended; its exit code, or None if it still runs after ``timeout_s``."""
        with suppress(subprocess.TimeoutExpired):
            return self._guardian.wait(timeout_s)
        return None

    def last_words(self) -> str:
        """The end of what the JVM wrote."""
        return tail(self._log)


def _read_pid(process: subprocess.Popen[bytes]) -> int | None:
    """The line that the guardian writes, or None if it ended without one or takes too long."""
    if process.stdout is None:
        raise AssertionError("the guardian has no pipe")
    with process.stdout as pipe:
        waiting = select.poll()  # select() takes no descriptor above 1,023
        waiting.register(pipe, select.POLLIN | select.POLLHUP)
        readable = waiting.poll(SPAWN_TIMEOUT_S * 1_000)
        line = pipe.readline() if readable else b""
    return int(line) if line.strip().isdigit() else None


def tail(log: Path) -> str:
    """The cause of an end, from the last part of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    return cause_in(text)


def cause_in(output: str) -> str:
    """What a Java program gave as the cause of its end, as one line: the innermost exceptions, else the last lines."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    causes = [line for line in lines if "Exception: " in line or "Error: " in line]
    return " | ".join((causes or lines)[-LOG_TAIL_LINES:]) or "it said nothing"
