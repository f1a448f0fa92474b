"""`choreo run`: start all agents of a topology, and a Kafka if none is named."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

from choreo.cli._design import brokers_option, open_project, topology_argument
from choreo.cli._output import emit_json, json_option
from choreo.errors import EXIT_OK

if TYPE_CHECKING:
    from choreo.runtime.project import Project
    from choreo.runtime.supervisor import Worker
    from choreo.topology.model import Topology

KAFKA_DATA: Final = "kafka"
"""Below the state directory: what `choreo broker` uses too."""
KAFKA_PORT: Final = 9092
"""Tried first, so that the address in people's shells stays right; any free port if it is taken."""
WORKERS_MAX: Final = 32
"""Of one agent on one machine; each takes about 80 MB."""
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COLOURS: Final = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")


@click.command("run")
@topology_argument
@brokers_option
@click.option("--only", multiple=True, metavar="AGENT", help="Only this agent; may be given several times.")
@click.option("--scale", multiple=True, metavar="AGENT=N", help="N workers of this agent instead of one.")
@click.option(
    "--apply/--no-apply", "do_apply", default=None, help="Apply the topology first. Default: on an own Kafka."
)
@click.option(
    "--restarts",
    type=click.IntRange(0, 1000),
    default=7,
    show_default=True,
    help="Of a worker in a row before giving up.",
)
@click.option("--ephemeral", is_flag=True, help="With an own Kafka: forget all topics at the end.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warn", "error", "crit"]),
    default="info",
    show_default=True,
    help="Of the workers.",
)
@json_option
def command(
    topology: str | None,
    profile: str | None,
    brokers: str | None,
    only: tuple[str, ...],
    scale: tuple[str, ...],
    do_apply: bool | None,
    restarts: int,
    ephemeral: bool,
    log_level: str,
    as_json: bool,
) -> int:
    """Run the agents of TOPOLOGY, each in a `faust worker` process, until Ctrl-C.

    A worker that ends is started again with growing pauses. Without --brokers and CHOREO_BROKERS a Kafka is started
    here, with its data in the project's state directory, and the topology is applied to it.
    With --json one object per line: {"worker", "line"} or {"worker", "event"}.
    """
    from choreo.apply.run import apply_topology
    from choreo.runtime.supervisor import Supervisor

    project = open_project(profile=profile, brokers=brokers)
    declared = project.load_topology(topology)
    counts = worker_counts(declared, only, scale)
    show = _Lines(list(counts), as_json)
    with _stop_requested() as stopped, kafka_for(project, declared, show, ephemeral=ephemeral) as (reached, is_own):
        if do_apply if do_apply is not None else is_own:
            planned = apply_topology(reached, declared)
            show.event("choreo", f"applied: {len(planned.changes)} changes")
        workers = workers_of(reached, declared, counts, log_level, profile)
        supervisor = Supervisor(
            workers, show.line, show.event, reached.settings.drain_ms / 1000, crashes_max=restarts + 1
        )
        try:
            supervisor.start()
            supervisor.run(stopped.is_set)
        finally:
            show.event("choreo", "stopping")
            supervisor.stop()
    return EXIT_OK


def worker_counts(topology: Topology, only: tuple[str, ...], scale: tuple[str, ...]) -> dict[str, int]:
    """How many workers each agent gets.

    Raises:
        TopologyError: CH0103, no such agent.
        UsageError: a count that is none.
    """
    from choreo.runtime.site import declared

    counts = {name: 1 for name in topology.agents if not only or name in only}
    for name in only:
        declared(topology, name)
    for text in scale:
        name, _, number = text.partition("=")
        declared(topology, name)
        if not (number.isascii() and number.isdigit() and 0 <= int(number) <= WORKERS_MAX):
            raise click.UsageError(f"--scale {text}: expected AGENT=N with N from 0 to {WORKERS_MAX}")
        counts[name] = int(number)
    return {name: count for name, count in counts.items() if count}


def workers_of(
    project: Project, topology: Topology, counts: Mapping[str, int], log_level: str, profile: str | None
) -> list[Worker]:
    """The processes to run; each has pages on a port of its own."""
    from choreo.runtime.supervisor import faust_worker, free_ports

    environment = {
        "CHOREO_BROKERS": project.bootstrap(topology),
        "CHOREO_TOPOLOGY": str(project.root / topology.file),
        **({} if profile is None else {"CHOREO_PROFILE": profile}),
    }
    ports = iter(free_ports(sum(counts.values())))
    return [
        faust_worker(
            topology.agents[agent].app,
            name=agent if count == 1 else f"{agent}.{number}",
            folder=project.root,
            environment=environment,
            port=next(ports),
            log_level=log_level,
        )
        for agent, count in counts.items()
        for number in range(count)
    ]


@contextmanager
def kafka_for(project: Project, topology: Topology, show: _Lines, *, ephemeral: bool) -> Iterator[tuple[Project, bool]]:
    """The project with a cluster to run on: the one that is named, or a Kafka of its own while the block lasts."""
    if project.settings.brokers or topology.cluster.bootstrap:
        yield project, False
        return
    from choreo.runtime.broker import EmbeddedBroker, terminal_progress
    from choreo.runtime.broker.ports import is_free

    data = None if ephemeral else project.state_dir / KAFKA_DATA
    with terminal_progress() as progress:
        broker = EmbeddedBroker(KAFKA_PORT if is_free(KAFKA_PORT) else None, data, progress=progress)
        broker.start()
    try:
        kept = "nothing is kept" if data is None else f"data in {_shown(data)}"
        show.event(
            "kafka", f"answers at {broker.bootstrap} ({kept}); elsewhere: export CHOREO_BROKERS={broker.bootstrap}"
        )
        yield replace(project, settings=replace(project.settings, brokers=broker.bootstrap)), True
    finally:
        broker.stop()
        show.event("kafka", "stopped")


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """Set by Ctrl-C, SIGTERM or a closed terminal while the block lasts; a second one does not cut the stop short."""
    requested = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        requested.set()

    before = {number: signal.signal(number, request) for number in STOP_SIGNALS}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Lines:
    """Prints lines of all workers, each with its worker's name in front; safe from reader threads."""

    def __init__(self, names: list[str], as_json: bool) -> None:
        self._json = as_json
        self._width = max((len(name) for name in [*names, "choreo", "kafka"]), default=0) + 2
        self._colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
        self._lock = threading.Lock()

    def line(self, worker: str, text: str) -> None:
        """A line that a worker printed."""
        self._print(worker, text, "line")

    def event(self, worker: str, text: str) -> None:
        """Something that happened to a worker."""
        self._print(worker, text, "event")

    def _print(self, worker: str, text: str, kind: str) -> None:
        with self._lock:
            if self._json:
                emit_json({"worker": worker, kind: text})
                return
            colour = self._colours.get(worker.partition(".")[0], "white")
            click.echo(click.style(f"{worker:<{self._width}}| ", fg=colour, bold=kind == "event") + text)
