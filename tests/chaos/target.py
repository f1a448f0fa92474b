"""What a run is made against: topics and schemas, a command line for workers, where to look for the results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from tests.chaos.wire import Wire
from tests.chaos.workers import Worker

PROJECT = Path(__file__).parent / "project"
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Target:
    """One agent on one broker, under names of its own so that runs can share the broker."""

    name: str
    bootstrap: str
    inputs: Mapping[str, Wire]
    output: str
    event: Wire  # of the output
    changelog: str
    row: Wire
    group: str
    folder: Path
    partitions: int
    command: Callable[[str], Sequence[str]]  # of a worker by its instance name
    environment: Callable[[str], Mapping[str, str]] = field(default=lambda _: {})
    dead_letters: str = ""  # topic, if the target has one

    def describe(self) -> str:
        return self.name

    def worker(self, instance: str) -> Worker:
        return Worker(instance, self.command(instance), self.folder, self.environment(instance))


def create_topics(bootstrap: str, topics: Mapping[str, Mapping[str, str]], *, partitions: int) -> None:
    """Creates topics with their settings and waits until they are there."""
    client = AdminClient({"bootstrap.servers": bootstrap, "metadata.recovery.strategy": "none", "log_level": 0})
    wanted = [NewTopic(name, partitions, 1, config=dict(config)) for name, config in topics.items()]
    for future in client.create_topics(wanted).values():
        future.result(30)


def standin(bootstrap: str, folder: Path, mode: str, *, partitions: int = 4) -> Target:
    """A stand-in worker (see ``standin.py``) and its topics."""
    name = f"standin-{mode}"
    schema_id = 1_000
    arrivals, counted, changelog = f"{name}.arrivals", f"{name}.counted", f"{name}.changelog"
    create_topics(
        bootstrap, {arrivals: {}, counted: {}, changelog: {"cleanup.policy": "compact"}}, partitions=partitions
    )

    def command(instance: str) -> list[str]:
        settings = {
            "bootstrap": bootstrap,
            "group": name,
            "instance": instance,
            "input": arrivals,
            "output": counted,
            "changelog": changelog,
            "schemas": str(PROJECT / "schemas"),
            "mode": mode,
            "id": str(schema_id),
        }
        return [sys.executable, "-m", "tests.chaos.standin", *(f"--{key}={value}" for key, value in settings.items())]

    def wire(record: str) -> Wire:
        return Wire.load(PROJECT / "schemas" / f"{record}.avsc", schema_id)

    return Target(
        name=name,
        bootstrap=bootstrap,
        inputs={arrivals: wire("Arrived")},
        output=counted,
        event=wire("Counted"),
        changelog=changelog,
        row=wire("Counter"),
        group=name,
        folder=folder,
        partitions=partitions,
        command=command,
        environment=lambda _: {"PYTHONPATH": str(REPOSITORY)},
    )
