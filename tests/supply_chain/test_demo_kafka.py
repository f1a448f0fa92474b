"""The demo on a real Kafka: every event is accounted for, also when a worker is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from choreo.cli._demo.report import as_json, as_text, report_of
from choreo.cli._demo.run import run
from choreo.cli.demo import find_demo, stage_of
from choreo.runtime.project import Project
from choreo.testing.broker import RunningBroker

pytestmark = pytest.mark.kafka

EVENTS = 1_800  # to the late morning: the first flights are scored


def test_the_command_accounts_for_every_event_in_its_last_line(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHOREO_")}
    environment["CHOREO_STATE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("choreo")), "demo", "supply_chain", "--events", str(EVENTS), "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["events_in"] == EVENTS
    assert shown["decisions_out"] > EVENTS
    assert (shown["dead_letters"], shown["lost"], shown["repeated"], shown["unknown"]) == (0, 0, 0, 0)
    assert shown["events_per_s"] > 0
    assert 0 < shown["latency_ms_p50"] <= shown["latency_ms_p99"]
    assert 0 <= shown["precision"] <= 1
    assert 0 <= shown["recall"] <= 1


class KillsAWorker:
    """A progress display that kills an agent's worker, as `kill -9` does, when half of the events are fed."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.killed: int | None = None

    def phase(self, text: str) -> None: ...

    def decided(self, by_agent: Mapping[str, int], undecided: int) -> None: ...

    def fed(self, done: int, total: int) -> None:
        if self.killed is None and done >= total / 2:
            self.killed = worker_of(self.agent)
            os.kill(self.killed, signal.SIGKILL)


def worker_of(agent: str) -> int:
    """The process of an agent's worker among this process's children."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it ended while we looked
        if int(parent) == os.getpid() and f"agents.{agent}".encode() in command.split(b"\0"):
            return int(folder.name)
    raise AssertionError(f"no worker of {agent} is running")


def test_a_killed_worker_costs_no_event(kafka_broker: RunningBroker, tmp_path: Path) -> None:
    project = Project.find(environment={"CHOREO_STATE_DIR": str(tmp_path)})
    project = replace(project, settings=replace(project.settings, brokers=kafka_broker.bootstrap))
    demo = find_demo(project.root, "supply_chain")
    stage = stage_of(demo, project)
    killer = KillsAWorker("load_planner")
    outcome = run(stage, list(demo.facts(events=EVENTS, seed=1)), rate=1_000.0, progress=killer)
    assert killer.killed is not None
    assert outcome.restarts == 1
    report = report_of("supply_chain", demo, outcome)
    assert outcome.account.ok, as_text(report)
    assert outcome.account.events == outcome.fed == EVENTS
    assert as_json(report)["lost"] == 0
