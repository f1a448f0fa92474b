"""`choreo apply`: make the cluster ready for a topology: topics, settings, schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from choreo.cli._design import brokers_option, open_project, topology_argument
from choreo.cli._output import console, emit_json, json_option
from choreo.errors import EXIT_DRIFT, EXIT_OK

if TYPE_CHECKING:
    from choreo.apply.run import Destination
    from choreo.topology.plan import Plan


@click.command("apply")
@topology_argument
@brokers_option
@click.option("--check", is_flag=True, help="Change nothing; exit with 2 if anything differs.")
@json_option
def command(topology: str | None, profile: str | None, brokers: str | None, check: bool, as_json: bool) -> int:
    """Carry out what `plan` shows for the TOPOLOGY file, and look again afterwards.

    Does all or, if anything is refused, nothing. Repeating it is harmless. Never deletes a topic, never touches an
    external one. With --json the plan as one object, with "applied".
    """
    from choreo.apply.execute import refusal
    from choreo.apply.run import Destination
    from choreo.topology.render import plan_json, plan_text, summary

    project = open_project(profile=profile, brokers=brokers)
    destination = Destination.open(project, project.load_topology(topology))
    with console().status("asking the cluster"):
        planned = destination.plan()
    if check:
        emit_json({**plan_json(planned), "applied": False}) if as_json else click.echo(plan_text(planned))
        return EXIT_DRIFT if planned.drift else EXIT_OK
    if planned.refused:
        raise refusal(planned.refused)
    if planned.changes:
        _carry_out(destination, planned)
    if as_json:
        emit_json({**plan_json(planned), "applied": True})
    else:
        click.echo(plan_text(planned) if planned.drift else summary(planned))
        if planned.drift:
            click.echo("done")
    return EXIT_OK


def _carry_out(destination: Destination, planned: Plan) -> None:
    """Apply with a progress bar for whoever watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("applying"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console(), transient=True) as progress:
        task = progress.add_task("", total=len(planned.changes))
        destination.apply(planned, lambda change: progress.update(task, advance=1, description=change.target))
