"""`choreo plan`: show what `apply` would change on the cluster, and what it would refuse."""

from __future__ import annotations

import click

from choreo.cli._design import brokers_option, open_project, topology_argument
from choreo.cli._output import console, emit_json, json_option
from choreo.errors import EXIT_DRIFT, EXIT_OK, EXIT_REFUSED


@click.command("plan")
@topology_argument
@brokers_option
@click.option("--check", is_flag=True, help="Exit with 2 if anything differs.")
@json_option
def command(topology: str | None, profile: str | None, brokers: str | None, check: bool, as_json: bool) -> int:
    """Compare the TOPOLOGY file with the live cluster and the schema registry. Changes nothing.

    Exit code 1 if something is refused: then `apply` would do nothing at all. With --json one object:
    {"topology", "file", "drift", "refused", "unchanged", "stages": […]}.
    """
    from choreo.apply.run import Destination
    from choreo.topology.render import plan_json, plan_text

    project = open_project(profile=profile, brokers=brokers)
    destination = Destination.open(project, project.load_topology(topology))
    with console().status("asking the cluster"):
        planned = destination.plan()
    if as_json:
        emit_json(plan_json(planned))
    else:
        click.echo(plan_text(planned))
    if check:
        return EXIT_DRIFT if planned.drift else EXIT_OK
    return EXIT_REFUSED if planned.refused else EXIT_OK
