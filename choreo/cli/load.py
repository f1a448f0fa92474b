"""`choreo load`: fill a reference table from a CSV or JSON file."""

from __future__ import annotations

from pathlib import PurePath

import click

from choreo.cli._input import csv_records, json_records, read_input
from choreo.cli._output import emit_json, json_option
from choreo.cli._target import Target, target_options
from choreo.errors import TopologyError


@click.command("load")
@click.argument("table")
@click.argument("file")
@click.option("--replace", is_flag=True, help="Also delete the rows that FILE does not have.")
@click.option("--format", "kind", type=click.Choice(["csv", "json"]), help="Default: by FILE's ending; JSON on stdin.")
@target_options
@json_option
def command(
    table: str,
    file: str,
    replace: bool,
    kind: str | None,
    topology: str | None,
    brokers: str | None,
    as_json: bool,
) -> None:
    """Load FILE ("-": stdin) into the reference TABLE; workers see the new rows within moments.

    CSV needs a header line of field names; JSON is an array, or one object a line. A row with the key of an existing
    one replaces it. Nothing is written if any row does not fit the schema.
    """
    from choreo.codec.wire import Encoder
    from choreo.runtime.reference_loading import load_rows
    from choreo.runtime.registry_choice import value_subject
    from choreo.topology import names

    target = Target.open(topology, brokers)
    declared = target.topology.tables.get(table)
    if declared is None or not declared.reference:
        known = ", ".join(name for name, one in target.topology.tables.items() if one.reference) or "none"
        seen = "declares no table" if declared is None else "has a table, but not a reference table,"
        raise TopologyError(
            f"the topology {seen} {table!r}; reference tables: {known}", code="CH0103", where=target.topology.file
        )
    schema = target.schemas.by_name(declared.schema)
    is_csv = kind == "csv" or (kind is None and PurePath(file).suffix.lower() == ".csv")
    name = "stdin" if file == "-" else file
    read = csv_records if is_csv else json_records
    records = list(read(read_input(file), schema, name))
    topic = names.reference(target.topology.name, table)
    encoder = Encoder(target.registry.id_for(value_subject(topic), schema), schema)
    loaded = load_rows(target.bootstrap, target.security, topic, declared.key, records, encoder, replace=replace)
    if as_json:
        emit_json({"table": table, "topic": topic, "rows": loaded.written, "deleted": loaded.deleted})
    else:
        gone = f", {loaded.deleted} deleted" if replace else ""
        click.echo(f"{loaded.written} rows loaded into {table}{gone}")
