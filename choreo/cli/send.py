"""`choreo send`: put events into a topic, checked against its schema."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from choreo.cli._input import json_records, read_input
from choreo.cli._output import emit_json, json_option
from choreo.cli._target import Target, target_options
from choreo.errors import UndeclaredError


@click.command("send")
@click.argument("topic")
@click.option(
    "--file", default="-", metavar="FILE", help="JSON: an object, an array, or an object a line. Default: stdin."
)
@click.option("--at", metavar="TIME", help="Event time, ISO 8601 (UTC if it has no zone). Default: now.")
@click.option("--key", metavar="TEXT", help="Message key. Default: made of the topic's key fields.")
@target_options
@json_option
def command(
    topic: str, file: str, at: str | None, key: str | None, topology: str | None, brokers: str | None, as_json: bool
) -> None:
    """Send events to TOPIC. All of them or, if one does not fit the schema, none.

    Example: echo '{"tail_number": "N14228", "minutes": 42}' | choreo send delay-risks
    """
    from choreo.runtime.preflight import require_listener
    from choreo.runtime.producer import Producer

    target = Target.open(topology, brokers)
    declared = target.topology.topics.get(topic)
    if declared is None:
        known = ", ".join(target.topology.topics) or "none"
        raise UndeclaredError(f"the topology declares no topic {topic!r}; it has: {known}", where=target.topology.file)
    schema = target.schemas.by_name(declared.schema)
    moment = None if at is None else _moment(at)
    records = list(json_records(read_input(file), schema, "stdin" if file == "-" else file))
    require_listener(target.bootstrap)
    with Producer._of(target.project, target.topology) as producer:
        ids = [producer.send_values(schema, record, topic=topic, at=moment, key=key) for record in records]
    if as_json:
        emit_json({"topic": topic, "sent": len(ids), "ids": ids})
    else:
        click.echo(f"{len(ids)} event{'' if len(ids) == 1 else 's'} sent to {topic}")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.UsageError(f"--at {text}: expected a time such as 2013-01-01T05:17:00Z") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
