"""`choreo rows`: show a table's rows as the last committed transaction left them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from choreo.cli._output import emit_json, json_option, print_table
from choreo.cli._target import Target, target_options
from choreo.errors import TopologyError

if TYPE_CHECKING:
    from choreo.kernel.values import Delivery


@click.command("rows")
@click.argument("table")
@click.argument("key", required=False)
@click.option("--agent", metavar="NAME", help="Whose table, if several agents have one of this name.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Show at most so many rows.")
@target_options
@json_option
def command(
    table: str,
    key: str | None,
    agent: str | None,
    limit: int | None,
    topology: str | None,
    brokers: str | None,
    as_json: bool,
) -> int:
    """Show the rows of TABLE, or the one of entity KEY (exit code 1 if there is none).

    Rows are read from the changelog at read_committed: what you see is what a restarted worker would have.
    With --json, one object per line: {"key", "row", "partition", "offset"}.
    """
    from choreo.codec.keys import key_text
    from choreo.kernel.partitioner import murmur2_partition
    from choreo.runtime.topic_reader import read_topic

    target = Target.open(topology, brokers)
    topic, partitions = topic_of_table(target, table, agent)
    only = None if key is None else [murmur2_partition(key.encode(), partitions)]
    rows: dict[bytes | None, Delivery] = {}
    for delivery in read_topic(target.bootstrap, target.security, topic, partitions=only):
        if delivery.value is None:
            rows.pop(delivery.key, None)
        elif key is None or delivery.key == key.encode():
            rows[delivery.key] = delivery
    shown: list[dict[str, Any]] = [
        {"key": key_text(one.key), "row": target.decoded(one.value), "partition": one.partition, "offset": one.offset}
        for one in sorted(rows.values(), key=lambda one: one.key or b"")[:limit]
    ]
    if as_json:
        for row in shown:
            emit_json(row)
    elif key is not None and shown:
        print_table(["field", "value"], [[name, value] for name, value in (shown[0]["row"] or {}).items()])
    else:
        names = list(dict.fromkeys(name for row in shown for name in row["row"] or {}))
        print_table(
            ["key", *names],
            [[row["key"], *((row["row"] or {}).get(name) for name in names)] for row in shown],
            empty=f"table {table} has no row{'' if key is None else f' for {key}'}",
        )
    return 1 if key is not None and not shown else 0


def topic_of_table(target: Target, table: str, agent: str | None) -> tuple[str, int]:
    """Changelog (or reference topic) of a table and its partition count.

    Raises:
        TopologyError: CH0103, no such table or agent, or several agents to choose from.
    """
    from choreo.runtime.site import declared
    from choreo.topology import names

    topology = target.topology
    found = topology.tables.get(table)
    if found is None:
        known = ", ".join(topology.tables) or "none"
        raise TopologyError(
            f"the topology declares no table {table!r}; it has: {known}", code="CH0103", where=topology.file
        )
    if found.reference:
        return names.reference(topology.name, table), found.partitions
    owners = [one.name for one in topology.agents.values() if table in one.tables]
    if agent is not None:
        owners = [declared(topology, agent).name] if agent in owners else []
    if len(owners) != 1:
        raise TopologyError(
            f"table {table!r} belongs to {len(owners)} agents{': ' if owners else ''}{', '.join(owners)}",
            code="CH0103",
            where=str(found.position),
            hint="say --agent NAME" if owners else "no agent lists it under `tables:`",
        )
    return names.changelog(topology.name, owners[0], table), topology.partitions_of(owners[0])
