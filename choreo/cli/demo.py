"""`choreo demo NAME`: a whole topology on a real Kafka, fed with real events, and an account of every one of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from choreo.cli._design import open_project
from choreo.cli._output import emit_json, json_option
from choreo.errors import EXIT_OK, EXIT_REFUSED, HostError

if TYPE_CHECKING:
    from choreo.cli._demo.interface import Demo
    from choreo.cli._demo.run import Stage
    from choreo.runtime.project import Project

DEMOS: Final = "demos"
EVENTS_DEFAULT: Final = 20_000
RATE_DEFAULT: Final = 1_000.0
"""Most events a second; the feed goes slower where the agents cannot keep up."""


@click.command("demo")
@click.argument("name")
@click.option("--events", type=click.IntRange(1), default=EVENTS_DEFAULT, show_default=True, help="How many events.")
@click.option(
    "--rate",
    type=click.FloatRange(1),
    default=RATE_DEFAULT,
    show_default=True,
    help="At most so many events a second; fewer if the agents do not keep up.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of what the demo makes up.")
@click.option("--brokers", metavar="HOST:PORT", help="A Kafka that runs already. Default: one for this run only.")
@json_option
def command(name: str, events: int, rate: float, seed: int, brokers: str | None, as_json: bool) -> int:
    """Run a demo of this project: broker, topics, one worker process for each agent, events, report.

    Exits with 0 only if every event is accounted for: exactly one decision by each agent that reads it.
    """
    from choreo.cli._demo.progress import TerminalProgress
    from choreo.cli._demo.report import as_json as json_of
    from choreo.cli._demo.report import as_text, report_of
    from choreo.cli._demo.run import run

    project = open_project(brokers=brokers)
    demo = find_demo(project.root, name)
    with _cluster(project) as reached, TerminalProgress() as progress:
        progress.phase("reading the events")
        facts = list(demo.facts(events=events, seed=seed))
        progress.phase("creating topics, loading reference tables")
        stage = stage_of(demo, reached)
        outcome = run(stage, facts, rate=rate, progress=progress)
    report = report_of(name, demo, outcome)
    if as_json:
        emit_json(json_of(report))
    else:
        click.echo(as_text(report), nl=False)
    return EXIT_OK if report.account.ok else EXIT_REFUSED


def find_demo(root: Path, name: str) -> Demo:
    """The demo of that name in the project; makes the project's packages importable.

    Raises:
        HostError: CH0807, there is none.
    """
    known = sorted(folder.parent.name for folder in (root / DEMOS).glob("*/__init__.py"))
    if name not in known:
        raise HostError(
            f"there is no demo {name!r}; this project has: {', '.join(known) or 'none'}",
            code="CH0807",
            where=str(root / DEMOS),
            fault="user",
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    made: Demo = importlib.import_module(f"{DEMOS}.{name}").demo()
    return made


@contextmanager
def _cluster(project: Project) -> Iterator[Project]:
    """The project with the cluster that was named, or with an embedded broker that lives as long as the block."""
    if project.settings.brokers:
        yield project
        return
    from choreo.runtime.broker import EmbeddedBroker, terminal_progress

    with terminal_progress() as downloading:
        broker = EmbeddedBroker(progress=downloading)
        broker.start()
    try:
        yield replace(project, settings=replace(project.settings, brokers=broker.bootstrap))
    finally:
        broker.stop()


def stage_of(demo: Demo, project: Project) -> Stage:
    """The demo's topology on the cluster: topics made, schemas registered, reference tables loaded."""
    from choreo.apply.run import apply_topology
    from choreo.cli._demo.run import Stage
    from choreo.codec.wire import Encoder
    from choreo.runtime.reference_loading import load_rows
    from choreo.runtime.registry_choice import value_subject
    from choreo.topology import names

    topology = project.load_topology(demo.topology)
    apply_topology(project, topology)
    bootstrap, registry, schemas = project.bootstrap(topology), project.registry(topology), project.schemas()
    for table, rows in demo.references().items():
        declared = topology.tables[table]
        topic, schema = names.reference(topology.name, table), schemas.by_name(declared.schema)
        encoder = Encoder(registry.id_for(value_subject(topic), schema), schema)
        values = [row._to_avro() for row in rows]
        load_rows(bootstrap, topology.cluster.security, topic, declared.key, values, encoder)
    return Stage(demo, project, topology, bootstrap)
