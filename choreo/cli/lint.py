"""`choreo lint`: check a topology file, without a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from choreo.cli._design import open_project, topology_argument
from choreo.cli._output import emit_json, json_option
from choreo.errors import EXIT_OK, EXIT_REFUSED, TopologyError

if TYPE_CHECKING:
    from choreo.codec.schema import Schema, SchemaSet
    from choreo.runtime.project import Project
    from choreo.topology.model import Topology


@click.command("lint")
@topology_argument
@click.option("--schema", "show_schema", is_flag=True, help="Print the JSON schema of topology files and stop.")
@click.option("--explain", metavar="CODE", help="Print what a lint means, with examples, and stop.")
@json_option
def command(topology: str | None, profile: str | None, show_schema: bool, explain: str | None, as_json: bool) -> int:
    """Check the TOPOLOGY file (default: the project's only one) and its schemas.

    Prints every problem with its place, what was expected and what to do. Exit code 1 if one of them is an error.
    With --json one object: {"file", "errors", "warnings", "problems": […]}.
    """
    if show_schema:
        from choreo.topology.pages import json_schema_page

        click.echo(json_schema_page(), nl=False)
        return EXIT_OK
    if explain is not None:
        return _explain(explain, as_json=as_json)
    from choreo.topology.lints import lint
    from choreo.topology.problems import in_order

    project = open_project(profile=profile)
    file = project.shown(project.topology_path(topology))
    parsed = project.parse_topology(topology)
    problems = list(parsed.problems)
    if parsed.topology is not None:
        schemas = project.schemas()
        registered = _registered(project, parsed.topology, schemas)
        problems = in_order([*problems, *lint(parsed.topology, schemas, registered)])
    errors = sum(one.severity == "error" for one in problems)
    if as_json:
        emit_json(
            {"file": file, "errors": errors, "warnings": len(problems) - errors, "problems": [
                {**one._asdict(), "position": str(one.position)} for one in problems
            ]}
        )  # fmt: skip
    else:
        for one in problems:
            click.echo(f"{one.position}: {one.severity} {one.code}: {one.message}")
            click.echo(f"    expected {one.expected}; {one.hint}")
        if parsed.topology is not None and not problems:
            found = parsed.topology
            click.echo(
                f"{file}: no problems ({len(found.agents)} agents, {len(found.topics)} topics, "
                f"{len(found.tables)} tables)"
            )
        elif problems:
            click.echo(f"{file}: {errors} errors, {len(problems) - errors} warnings")
    return EXIT_REFUSED if errors else EXIT_OK


def _registered(project: Project, topology: Topology, schemas: SchemaSet) -> dict[str, list[Schema]]:
    """Versions in the committed lock file; a registry server is the business of `plan`, as lint reads files only."""
    from choreo.topology.plan import subjects_of

    if project.registry_address(topology) != "file":
        return {}
    registry = project.registry(topology, schemas)
    known = set(registry.subjects())
    return {
        subject: [schema for _, _, schema in registry.versions(subject)]
        for subject in subjects_of(topology)
        if subject in known
    }


def _explain(code: str, *, as_json: bool) -> int:
    from choreo.errors import CATALOGUE
    from choreo.topology.lints import RULES

    wanted = code.upper()
    rule = RULES.get(wanted)
    if rule is None and wanted not in CATALOGUE:
        raise TopologyError(
            f"there is no code {code!r}", code="CH0807", hint="codes look like CH0123; see docs/lints.md"
        )
    if rule is None:
        title = CATALOGUE[wanted]
        emit_json({"code": wanted, "title": title}) if as_json else click.echo(f"{wanted}: {title}")
    elif as_json:
        emit_json({
            "code": rule.code, "severity": rule.severity, "title": rule.title, "why": rule.why,
            "bad": rule.bad, "good": rule.good,
        })  # fmt: skip
    else:
        click.echo(f"{rule.code} ({rule.severity}): {rule.doc}")
    return EXIT_OK
