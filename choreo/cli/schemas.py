"""`choreo schemas`: classes from Avro files, compatibility, and the registry's contents."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from choreo.cli._output import console, emit_json, json_option, print_table
from choreo.errors import EXIT_DRIFT, HostError, SchemaError

_LOOPBACK: Final = "127.0.0.1"


@click.group("schemas")
def command() -> None:
    """Classes from Avro files, compatibility, and the registry's contents."""


@command.command("generate")
@click.option("--check", is_flag=True, help="Change nothing; exit 2 if a class differs from its schema.")
@json_option
def generate_command(check: bool, as_json: bool) -> None:
    """Write typed classes for schemas/*.avsc.

    One module per file, re-exported by schemas/__init__.py. They are checked in; --check keeps them honest.
    """
    from choreo.runtime.project import SCHEMAS, Project
    from choreo.runtime.schema_modules import difference, make_same

    project = Project.find()
    directory = project.root / SCHEMAS
    texts = project.schema_texts()
    if not texts:
        raise HostError("there are no .avsc files", where=str(directory), fault="user")
    found = difference(directory, texts, project.schemas())
    if not check:
        make_same(directory, found)
    if as_json:
        emit_json({"changed": sorted(found.changed), "removed": found.stale, "same": found.same, "check": check})
    else:
        verb = "is stale" if check else "written"
        for name in sorted(found.changed):
            click.echo(f"{SCHEMAS}/{name} {verb}")
        for name in found.stale:
            click.echo(f"{SCHEMAS}/{name} {'has no schema any more' if check else 'removed'}")
        if not found:
            click.echo(f"{found.same} modules agree with their schemas")
    if check and found:
        console().print("run `choreo schemas generate`")
        raise SystemExit(EXIT_DRIFT)


@command.command("check")
@click.argument("topology", required=False, type=click.Path(path_type=Path))
@json_option
def check_command(topology: Path | None, as_json: bool) -> None:
    """Compare the schemas with the registered ones.

    For every topic of the TOPOLOGY (default: of all): is its schema new, unchanged, or a change; and is the change
    compatible with every registered version, at the topic's level?
    """
    from choreo.codec.compat import check_versions
    from choreo.runtime.project import SCHEMAS, Project
    from choreo.runtime.registry_choice import open_registry, value_subject

    project = Project.find()
    schemas = project.schemas()
    rows: list[dict[str, object]] = []
    refused: list[str] = []
    for file in [topology] if topology is not None else project.topology_files():
        declared = project.load_topology(file)
        registry = open_registry(project.registry_address(declared), project.root / SCHEMAS)
        for topic in declared.topics.values():
            subject = value_subject(topic.name)
            schema = schemas.by_name(topic.schema)
            older = [known for _, _, known in registry.versions(subject)]
            problems = check_versions(schema, older, topic.compatibility)
            state = "new" if not older else "same" if older[-1] == schema else "changed"
            refused += [f"{topic.name}: {problem}" for problem in problems]
            rows.append(
                {
                    "topic": topic.name,
                    "schema": schema.full_name,
                    "versions": len(older),
                    "level": topic.compatibility,
                    "state": "refused" if problems else state,
                    "problems": [str(problem) for problem in problems],
                }
            )
    if as_json:
        emit_json(rows)
    else:
        print_table(
            ["topic", "schema", "versions", "level", "state"],
            [[row["topic"], row["schema"], row["versions"], row["level"], row["state"]] for row in rows],
            empty="no topics",
        )
    if refused:
        raise SchemaError(
            "; ".join(refused),
            code="CH0203",
            hint="give new fields a default, keep old ones, or use a new topic",
        )


@command.command("list")
@click.option("--topology", type=click.Path(path_type=Path), help="Whose registry; needed if it is not the file.")
@json_option
def list_command(topology: Path | None, as_json: bool) -> None:
    """List subjects, versions and ids of the registry."""
    from choreo.runtime.project import SCHEMAS, Project
    from choreo.runtime.registry_choice import open_registry

    project = Project.find()
    if topology is not None:
        address = project.registry_address(project.load_topology(topology))
    else:
        address = project.settings.schema_registry or "file"
    registry = open_registry(address, project.root / SCHEMAS)
    rows = [
        {"subject": subject, "version": version, "id": schema_id, "record": schema.full_name}
        for subject in registry.subjects()
        for version, schema_id, schema in registry.versions(subject)
    ]
    if as_json:
        emit_json(rows)
    else:
        print_table(["subject", "version", "id", "record"], [list(row.values()) for row in rows], empty="no subjects")


@command.command("serve")
@click.option("--port", type=click.IntRange(0, 65_535), default=8081, show_default=True, help="0: any free port.")
@json_option
def serve_command(port: int, as_json: bool) -> None:
    """Serve the file registry over HTTP, read-only, on this machine only.

    Clients that expect a Confluent schema registry (AvroDeserializer, kcat, consoles) can read choreo's topics with it.
    """
    import asyncio

    from choreo.runtime.project import SCHEMAS, Project
    from choreo.runtime.registry_file import LOCK_NAME, FileRegistry
    from choreo.runtime.registry_view import serve, view

    registry = FileRegistry(Project.find().root / SCHEMAS / LOCK_NAME)

    def announce(bound: int) -> None:
        url = f"http://{_LOOPBACK}:{bound}"
        if as_json:
            emit_json({"url": url})
        else:
            click.echo(url)

    asyncio.run(serve(view(registry), _LOOPBACK, port, announce))
