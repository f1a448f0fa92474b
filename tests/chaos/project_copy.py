"""Copies of the tests' project, each under names of its own, applied to a broker the way a user does it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos.target import PROJECT, Target
from tests.chaos.wire import Wire
from tests.chaos.workers import faust_command

TOPICS = ("arrivals", "departures", "counted", "paired")
PARTITIONS = 4
# Kafka's default minimum; long enough for a busy machine, short enough for a test that waits for it.
SESSION = "6s"
COMMAND_TIMEOUT_S = 120.0


def copy_project(
    folder: Path, run: str, *, store: str = "memory", topic_settings: Mapping[str, str] | None = None
) -> Path:
    """A copy with generated classes whose topology and topics carry the name of the run.

    Args:
        folder: where to put it.
        run: lower-case letters and digits.
        store: of both tables.
        topic_settings: topic → further YAML fields, ``"message_bytes_max: 20000"``.
    """
    project = folder / f"project-{run}"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("__pycache__", "*.py.bak"))
    file = project / "topologies" / "counting.yaml"
    text = file.read_text("utf-8")
    for topic, settings in (topic_settings or {}).items():
        text, found = re.subn(rf"^(  {topic}: .*)\}}$", rf"\1, {settings}}}", text, flags=re.MULTILINE)
        assert found == 1, f"topic {topic} was not found"
    text = text.replace("store: memory", f"store: {store}").replace("topology: counting", f"topology: counting_{run}")
    text = re.sub(rf"\b({'|'.join(TOPICS)})\b(?=[:,\]])", rf"{run}-\1", text)
    file.write_text(text, "utf-8")
    choreo(project, "schemas", "generate")
    return project


def choreo(project: Path, *arguments: str, brokers: str | None = None, check: bool = True) -> str:
    """Standard output of a ``choreo`` command run in a project.

    Raises:
        AssertionError: it failed, or printed a traceback.
    """
    environment = {**os.environ, "CHOREO_BROKERS": brokers} if brokers else None
    done = subprocess.run(
        [sys.executable, "-c", "from choreo.cli._main import main; main()", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    if check:
        assert done.returncode == 0, f"choreo {' '.join(arguments)} ended with {done.returncode}\n{done.stderr}"
    return done.stdout


def schema_ids(project: Path) -> dict[str, int]:
    """Subject → newest schema id, from the committed lock file."""
    lock = json.loads((project / "schemas" / "registry.lock.json").read_text("utf-8"))
    return {subject: versions[-1]["id"] for subject, versions in lock["subjects"].items()}


def counting(
    bootstrap: str,
    folder: Path,
    run: str,
    *,
    agent: str = "counter",
    store: str = "memory",
    latency_s: float = 0.05,
    arguments: Sequence[str] = (),
    topic_settings: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Target:
    """The agent ``counter`` or ``joiner``, its topics created by ``choreo apply``, its workers started by ``faust``."""
    project = copy_project(folder, run, store=store, topic_settings=topic_settings)
    choreo(project, "apply", "topologies/counting.yaml", brokers=bootstrap)
    ids = schema_ids(project)

    def wire(record: str, topic: str) -> Wire:
        return Wire.load(project / "schemas" / f"{record}.avsc", ids[f"{topic}-value"])

    topology = f"counting-{run}"
    group = f"{topology}.{agent}"
    arrivals, departures = f"{run}-arrivals", f"{run}-departures"
    inputs = {arrivals: wire("Arrived", arrivals)}
    if agent == "joiner":
        inputs[departures] = wire("Departed", departures)
    output, event, table, row = {
        "counter": (f"{run}-counted", "Counted", "counters", "Counter"),
        "joiner": (f"{run}-paired", "Paired", "pairs", "Pair"),
    }[agent]
    changelog = f"{group}.changelog.{table}"

    def variables(instance: str) -> dict[str, str]:
        return {
            "CHOREO_BROKERS": bootstrap,
            "CHOREO_INSTANCE": instance,
            "CHOREO_SESSION_TIMEOUT": SESSION,
            "CHAOS_LATENCY_S": str(latency_s),
            **(environment or {}),
        }

    return Target(
        name=run,
        bootstrap=bootstrap,
        inputs=inputs,
        output=output,
        event=wire(event, output),
        changelog=changelog,
        row=wire(row, changelog),
        group=group,
        folder=project,
        partitions=PARTITIONS,
        command=lambda _: faust_command(agent, *arguments),
        environment=variables,
        dead_letters=f"{group}.dead-letters",
    )
