"""The supervisor restarts what crashes, passes output on, stops everything, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from choreo.errors import HostError
from choreo.runtime import supervisor as module
from choreo.runtime.supervisor import Supervisor, Worker, free_ports

WAIT_S = 20.0


class Lines:
    """Collects output; waits for a line."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._changed = threading.Condition()

    def __call__(self, name: str, text: str) -> None:
        with self._changed:
            self.seen.append((name, text))
            self._changed.notify_all()

    def has(self, text: str) -> Callable[[], bool]:
        return lambda: any(text in line for _, line in self.seen)


def worker(code: str, tmp_path: Path, name: str = "w") -> Worker:
    return Worker(name, [sys.executable, "-u", "-c", code], tmp_path, dict(os.environ))


def run_until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S

    def until() -> bool:
        assert time.monotonic() < deadline, "nothing happened"
        return condition()

    supervisor.run(until)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S_FIRST", 0.01)
    monkeypatch.setattr(module, "BACKOFF_S_MAX", 0.02)


FOREVER = "import signal, time; print('up', flush=True); time.sleep(600)"


def test_lines_carry_the_name_of_their_worker(tmp_path: Path) -> None:
    lines = Lines()
    with Supervisor([worker(FOREVER, tmp_path, "a"), worker(FOREVER, tmp_path, "b")], lines) as supervisor:
        run_until(supervisor, lambda: {("a", "up"), ("b", "up")} <= set(lines.seen))


def test_a_killed_worker_starts_again(tmp_path: Path) -> None:
    lines, changes = Lines(), Lines()
    with Supervisor([worker(FOREVER, tmp_path)], lines, changes) as supervisor:
        run_until(supervisor, lines.has("up"))
        first = supervisor.states()[0].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        run_until(supervisor, lambda: len(lines.seen) == 2)
        state = supervisor.states()[0]
    assert state.restarts == 1
    assert state.pid != first
    assert state.exit_code == -signal.SIGKILL
    assert changes.has("was ended by signal 9; starting again")()


def test_a_hopeless_worker_is_given_up_with_its_exit_code(tmp_path: Path) -> None:
    supervisor = Supervisor([worker("raise SystemExit(69)", tmp_path, "lost")], Lines())
    with supervisor, pytest.raises(HostError) as refused:
        run_until(supervisor, lambda: False)
    assert refused.value.code == "CH0808"
    assert "worker lost ended 8 times in a row, last with exit code 69" in str(refused.value)


def test_stop_lets_workers_drain(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('drained', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\ntime.sleep(600)"
    )
    lines = Lines()
    with Supervisor([worker(code, tmp_path)], lines) as supervisor:
        run_until(supervisor, lines.has("up"))
    assert lines.has("drained")()
    assert supervisor.states()[0].state == "stopped"
    assert supervisor.states()[0].exit_code == 0


def test_a_worker_that_ignores_the_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_EXTRA_S", 0.1)
    code = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{FOREVER}"
    lines, changes = Lines(), Lines()
    with Supervisor([worker(code, tmp_path)], lines, changes, drain_s=0.1) as supervisor:
        run_until(supervisor, lines.has("up"))
    assert changes.has("was killed")()


@pytest.mark.skipif(sys.platform != "linux", reason="the tether is Linux only")
def test_workers_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from choreo.runtime.supervisor import Supervisor, Worker\nimport os, time\n"
        f"w = Worker('w', [sys.executable, '-u', '-c', {FOREVER!r}], Path('.'), dict(os.environ))\n"
        "s = Supervisor([w], lambda n, t: print(s.states()[0].pid, flush=True))\ns.start()\ntime.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    try:
        child = int(owner.stdout.readline())
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    deadline = time.monotonic() + WAIT_S
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split(")")[1]:
        assert time.monotonic() < deadline, "the worker outlived its supervisor"
        time.sleep(0.02)


def test_free_ports_differ() -> None:
    assert len(set(free_ports(5))) == 5
