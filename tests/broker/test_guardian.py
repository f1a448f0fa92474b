"""A child ends when its starter does, however the starter ended. Shown with `sleep` in the place of Kafka."""

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
from choreo.runtime.broker.process import Jvm, cause_in

GONE_WITHIN_S = 10.0  # it takes 0.3 s; the bound is for a machine under load
STARTER = """
import sys, os, threading
from pathlib import Path
from choreo.runtime.broker.process import Jvm
directory = Path(sys.argv[1])
child = Jvm.start(["sleep", "600"], directory=directory, log=directory / "log", held=[], remove=sys.argv[2] == "remove",
                  grace_s=float(sys.argv[3]))
print(child.pid, child._guardian.pid, flush=True)
sys.stdin.read()
if sys.argv[4] == "raise":
    raise SystemExit(3)
"""


def alive(pid: int) -> bool:
    """False for a process that is gone or waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + GONE_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {GONE_WITHIN_S} s: {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("remove", ["remove", "keep"])
@pytest.mark.parametrize("end", ["kill -9", "exit"])
def test_child_ends_with_its_starter(tmp_path: Path, remove: str, end: str) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    command = [sys.executable, "-c", STARTER, str(directory), remove, "0", "raise"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdin is not None
        assert starter.stdout is not None
        child, guardian = (int(number) for number in starter.stdout.readline().split())
        assert alive(child)
        if end == "kill -9":
            starter.kill()
        else:
            starter.stdin.close()
        starter.wait(GONE_WITHIN_S)
    wait_until(lambda: not alive(child) and not alive(guardian), "child and guardian are gone")
    assert directory.exists() == (remove == "keep")


def test_polite_end_comes_first_when_there_is_data_to_keep(tmp_path: Path) -> None:
    """With a grace period the child gets SIGTERM and may write its last file."""
    script = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(open("closed", "w").close()))
signal.pause()
"""
    starter = STARTER.replace('["sleep", "600"]', repr([sys.executable, "-c", script]))
    command = [sys.executable, "-c", starter, str(tmp_path), "keep", "5", "raise"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child, _ = (int(number) for number in process.stdout.readline().split())
        wait_until(lambda: caught_signals(child) & (1 << (signal.SIGTERM - 1)) != 0, "the child handles SIGTERM")
        process.kill()
    wait_until(lambda: not alive(child), "the child is gone")
    assert (tmp_path / "closed").exists()


def caught_signals(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))


def start(tmp_path: Path, *command: str) -> Jvm:
    return Jvm.start(list(command), directory=tmp_path, log=tmp_path / "log", held=[], remove=False, grace_s=0)


def test_child_ends_with_its_guardian(tmp_path: Path) -> None:
    child = start(tmp_path, "sleep", "600")
    parent = int(Path(f"/proc/{child.pid}/stat").read_text("ascii").rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: not alive(child.pid), "the child is gone")
    assert child.exit_code == -signal.SIGKILL


def test_child_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    started: list[Jvm] = []
    thread = threading.Thread(target=lambda: started.append(start(tmp_path, "sleep", "600")))
    thread.start()
    thread.join()
    child = started[0]
    assert child.wait(0.6) is None, "a parent-death signal set by that thread would have come by now"
    child.kill()
    assert not alive(child.pid)
    assert child.exit_code == 128 + signal.SIGKILL


def test_stopped_child_can_be_killed(tmp_path: Path) -> None:
    child = start(tmp_path, "sleep", "600")
    os.kill(child.pid, signal.SIGSTOP)
    child.kill()
    assert not child.running


def test_stop_is_polite_and_repeatable(tmp_path: Path) -> None:
    child = start(tmp_path, "sleep", "600")
    child.stop()
    child.stop()
    child.kill()
    assert child.exit_code == 128 + signal.SIGTERM


def test_exit_code_and_output_of_the_child_are_kept(tmp_path: Path) -> None:
    child = start(tmp_path, sys.executable, "-c", "print('x.y.FooException: the cause'); raise SystemExit(7)")
    assert child.wait(GONE_WITHIN_S) == 7
    assert child.last_words() == "x.y.FooException: the cause"


def test_command_that_cannot_start_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no-such-java") as caught:
        start(tmp_path, "no-such-java")
    assert caught.value.code == "CH0803"


def test_cause_is_found_in_a_java_stack_trace() -> None:
    output = """[main] ERROR kafka.Kafka$ - Exiting Kafka due to fatal exception
java.lang.RuntimeException: outer
\tat kafka.Kafka.main(Kafka.scala)
Caused by: java.net.BindException: Address already in use
\tat sun.nio.ch.Net.bind0(Native Method)
"""
    assert cause_in(output) == (
        "java.lang.RuntimeException: outer | Caused by: java.net.BindException: Address already in use"
    )
    assert cause_in("") == "it said nothing"
