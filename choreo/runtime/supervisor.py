"""Keeps a set of worker processes running: restarts with backoff, prefixed output, one orderly stop.

Used by ``choreo run`` and ``choreo demo``. Driven by polling: the owner calls ``poll`` a few times a second from the
thread that called ``start``, and nothing happens behind its back except that output lines are read.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Literal

from choreo.errors import HostError
from choreo.runtime import tether

BACKOFF_S_FIRST: Final = 0.5
# Doubles up to this: a broken dependency is asked twice a minute, and a person sees that something is wrong.
BACKOFF_S_MAX: Final = 30.0
# A worker that lived this long had started properly; its next crash counts as the first again.
HEALTHY_S: Final = 60.0
# Crashes in a row without ever living that long. More of them only fill the log: the cause is not going away.
CRASHES_MAX: Final = 8
# Beyond the worker's own drain: the interpreter's exit, the last commit's answer.
STOP_EXTRA_S: Final = 10.0
POLL_S: Final = 0.1

State = Literal["running", "waiting", "stopped", "given up"]


@dataclass(frozen=True, slots=True)
class Worker:
    """One process to keep running.

    Args:
        name: prefix of its lines; unique.
        command: program and arguments; the program's path is absolute.
        folder: working directory.
        environment: complete environment.
        url: address of its pages, None without.
    """

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    url: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One process at one moment."""

    name: str
    state: State
    pid: int | None
    restarts: int
    exit_code: int | None  # of the last one that ended; negative: the signal


@dataclass(slots=True)
class _Kept:
    """A worker and what became of it so far."""

    worker: Worker
    process: subprocess.Popen[str] | None = None
    reader: threading.Thread | None = None
    started_at: float = 0.0
    start_again_at: float = 0.0
    crashes: int = 0  # in a row
    restarts: int = 0
    exit_code: int | None = None
    given_up: bool = False


@dataclass(slots=True)
class Supervisor:
    """Runs workers until ``stop``.

    Args:
        workers: what to run.
        on_line: gets (worker name, line) from reader threads, for each line a worker prints.
        on_change: gets (worker name, what happened) when a worker starts, ends or is given up.
        drain_s: how long workers may take to finish their steps when stopped.
        crashes_max: a worker that ended so often in a row is given up.
    """

    workers: Sequence[Worker]
    on_line: Callable[[str, str], None]
    on_change: Callable[[str, str], None] = lambda name, text: None
    drain_s: float = 10.0
    crashes_max: int = CRASHES_MAX
    _kept: list[_Kept] = field(init=False)
    _stopping: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._kept = [_Kept(worker) for worker in self.workers]

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every worker."""
        for kept in self._kept:
            self._launch(kept)

    def poll(self) -> None:
        """Notice what ended, start again what may start again. Call it a few times a second.

        Raises:
            HostError: CH0808, a worker crashed again and again.
        """
        for kept in self._kept:
            if kept.process is not None:
                code = kept.process.poll()
                if code is not None:
                    self._ended(kept, code)
            elif not kept.given_up and not self._stopping and time.monotonic() >= kept.start_again_at:
                kept.restarts += 1
                self._launch(kept)
        hopeless = next((kept for kept in self._kept if kept.given_up), None)
        if hopeless is not None and not self._stopping:
            raise HostError(
                f"worker {hopeless.worker.name} ended {_times(hopeless.crashes)}, "
                f"last with exit code {hopeless.exit_code}",
                code="CH0808",
                hint="its last lines above say why",
                fault="user",
            )

    def run(self, until: Callable[[], bool]) -> None:
        """Poll until the condition holds; raises as ``poll`` does."""
        while not until():
            self.poll()
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Ask all to stop, wait for them to drain, kill what does not end. Idempotent."""
        self._stopping = True
        running = [kept for kept in self._kept if kept.process is not None]
        for kept in running:
            self._signal(kept, signal.SIGTERM)
        deadline = time.monotonic() + self.drain_s + STOP_EXTRA_S
        for kept in running:
            assert kept.process is not None
            try:
                code = kept.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._signal(kept, signal.SIGKILL)
                code = kept.process.wait()
                self.on_change(kept.worker.name, "did not stop in time and was killed")
            self._close(kept, code)

    def states(self) -> list[WorkerState]:
        """All workers at this moment."""
        shown = []
        for kept in self._kept:
            state: State = "running" if kept.process is not None else "waiting"
            if kept.given_up:
                state = "given up"
            elif kept.process is None and self._stopping:
                state = "stopped"
            pid = None if kept.process is None else kept.process.pid
            shown.append(WorkerState(kept.worker.name, state, pid, kept.restarts, kept.exit_code))
        return shown

    def _launch(self, kept: _Kept) -> None:
        worker = kept.worker
        # A session of its own: Ctrl-C in a terminal reaches us only, and we stop the workers in order.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(tether.__file__), str(os.getpid()), *worker.command],
            cwd=worker.folder,
            env=dict(worker.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        assert process.stdout is not None
        kept.process, kept.started_at = process, time.monotonic()
        kept.reader = threading.Thread(
            target=self._read, args=(worker.name, process.stdout), name=f"output of {worker.name}", daemon=True
        )
        kept.reader.start()
        self.on_change(worker.name, f"started, process {process.pid}")

    def _read(self, name: str, output: IO[str]) -> None:
        for line in output:
            self.on_line(name, line.rstrip("\n"))

    def _ended(self, kept: _Kept, code: int) -> None:
        lived_s = time.monotonic() - kept.started_at
        self._close(kept, code)
        kept.crashes = 1 if lived_s >= HEALTHY_S else kept.crashes + 1
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if kept.crashes >= self.crashes_max:
            kept.given_up = True
            self.on_change(kept.worker.name, f"{how}, {_times(kept.crashes)}; not started again")
            return
        pause_s = min(BACKOFF_S_FIRST * 2 ** (kept.crashes - 1), BACKOFF_S_MAX)
        kept.start_again_at = time.monotonic() + pause_s
        self.on_change(kept.worker.name, f"{how}; starting again in {pause_s:g} s")

    def _close(self, kept: _Kept, code: int) -> None:
        """Forget an ended process after its last line was read."""
        kept.exit_code = code
        if kept.reader is not None:
            # A grandchild may hold the pipe open; its lines are not worth waiting for.
            kept.reader.join(1.0)
        reading = kept.reader is not None and kept.reader.is_alive()
        if kept.process is not None and kept.process.stdout is not None and not reading:
            kept.process.stdout.close()
        kept.process = kept.reader = None

    def _signal(self, kept: _Kept, number: signal.Signals) -> None:
        assert kept.process is not None
        kept.process.send_signal(number)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times in a row"


def faust_worker(
    app: str,
    *,
    name: str,
    folder: Path,
    environment: Mapping[str, str],
    port: int,
    log_level: str = "info",
) -> Worker:
    """A ``faust worker`` process for one agent.

    Args:
        app: dotted module that holds ``app``.
        name: prefix of its lines.
        folder: the project root; modules are imported from there.
        environment: variables on top of this process's own.
        port: of its web pages.
        log_level: as for ``faust worker -l``.
    """
    command = [sys.executable, "-m", "faust", "--quiet", "-A", app, "worker"]
    command += ["--loglevel", log_level, "--web-port", str(port)]
    everything = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    return Worker(name, command, folder, everything, f"http://127.0.0.1:{port}")


def free_ports(count: int) -> list[int]:
    """Different ports that were free a moment ago."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
