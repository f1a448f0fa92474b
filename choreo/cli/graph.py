"""`choreo graph`: draw who talks to whom."""

from __future__ import annotations

import click

from choreo.cli._design import open_project, topology_argument
from choreo.cli._output import emit_json, json_option
from choreo.errors import EXIT_OK


@click.command("graph")
@topology_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "json", "html"]),
    default="text",
    show_default=True,
    help="mermaid for Markdown pages, html for a page with a drawing.",
)
@json_option
def command(topology: str | None, profile: str | None, form: str, as_json: bool) -> int:
    """Print the agents of the TOPOLOGY file with what they read, write and keep.

    --json is the same as --format json: {"topology", "nodes": […], "edges": […]}.
    """
    from choreo.topology import drawing, graph

    found = open_project(profile=profile).load_topology(topology)
    if as_json or form == "json":
        emit_json(graph.graph_json(found))
    elif form == "mermaid":
        click.echo(graph.mermaid(found))
    elif form == "html":
        click.echo(drawing.page(found), nl=False)
    else:
        click.echo(graph.text(found))
    return EXIT_OK
