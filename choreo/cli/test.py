"""run the cases beside the topologies: no broker, no network, virtual time."""

from __future__ import annotations

from pathlib import Path

import click

from choreo.cli._output import emit_json, json_option
from choreo.errors import EXIT_OK, EXIT_REFUSED, HostError


@click.command("test")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@json_option
def command(files: tuple[Path, ...], as_json: bool) -> int:
    """Run YAML cases: topologies/NAME.test.yaml, all of them if no FILES are given.

    A file may be given by its own path, its topology's path, or the topology's name. Exits with 1 if a case fails.
    """
    from choreo.runtime.project import Project
    from choreo.testing.cases import SUFFIX, case_files, read_cases

    project = Project.find()
    chosen = list(files) or case_files(project)
    if not chosen:
        raise HostError(
            f"this project has no cases: no topologies/*{SUFFIX}",
            where=str(project.root),
            hint="docs/testing.md shows one",
            fault="user",
        )
    passed = failed = 0
    for file in chosen:
        for case in read_cases(file, project=project):
            found = case.differences()
            passed, failed = (passed, failed + 1) if found else (passed + 1, failed)
            if as_json:
                emit_json({"case": case.name, "where": str(case.position), "passed": not found, "differences": found})
            else:
                click.echo(f"{'FAIL' if found else 'ok  '} {case.position.file}:{case.position.line} {case.name}")
                for line in found:
                    click.echo(f"       {line}")
    if as_json:
        emit_json({"passed": passed, "failed": failed})
    else:
        click.echo(f"{passed} passed, {failed} failed")
    return EXIT_REFUSED if failed else EXIT_OK
