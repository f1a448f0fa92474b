"""`choreo parked`: list, show, retry and drop events that wait for a person."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from choreo.cli._output import emit_json, json_option, print_table
from choreo.cli._settle import settle
from choreo.cli._target import Target, operator, target_options
from choreo.errors import ChoreoError, HostError
from choreo.kernel.values import ParkedRow, Settlement
from choreo.topology.model import Agent

reason_option = click.option("--reason", default="", metavar="TEXT", help="Why; goes into the record.")


@click.group("parked")
def command() -> None:
    """Events that wait for a person; later events of the same entity queue behind them."""


@command.command("list")
@click.argument("agent", required=False)
@target_options
@json_option
def list_(agent: str | None, topology: str | None, brokers: str | None, as_json: bool) -> None:
    """List parked events of AGENT, or of all agents, by entity in order."""
    target = Target.open(topology, brokers)
    agents = [target.agent(agent)] if agent else target.engine_agents()
    rows = [(one.name, row) for one in agents for row in parked_rows(target, one)]
    if as_json:
        for name, row in rows:
            emit_json({"agent": name, **_summary(row)})
        return
    print_table(
        ["agent", "entity", "number", "parked at", "code", "event", "reason"],
        [
            [name, row.entity, row.number, f"{_parked_at(row):%Y-%m-%d %H:%M:%S}", row.code, row.event_id, row.reason]
            for name, row in rows
        ],
        empty="nothing is parked",
    )


@command.command("show")
@click.argument("agent")
@click.argument("entity")
@click.argument("number", type=int, required=False)
@target_options
@json_option
def show(agent: str, entity: str, number: int | None, topology: str | None, brokers: str | None, as_json: bool) -> None:
    """Show the parked events of an ENTITY, or its event NUMBER, as far as they can be read."""
    target = Target.open(topology, brokers)
    for row in _of_entity(target, target.agent(agent), entity, number):
        shown = _summary(row)
        try:
            shown["event"] = target.decoded(row.delivery.value)
        except ChoreoError as error:
            shown["event"], shown["unreadable"] = None, error.message
        if as_json:
            emit_json(shown)
        else:
            print_table(["field", "value"], [[name, value] for name, value in shown.items()])


@command.command("retry")
@click.argument("agent")
@click.argument("entity")
@reason_option
@target_options
@json_option
def retry(agent: str, entity: str, reason: str, topology: str | None, brokers: str | None, as_json: bool) -> None:
    """Handle the parked events of an ENTITY again, in their order, then what queued behind them."""
    target = Target.open(topology, brokers)
    declared = target.agent(agent)
    rows = _of_entity(target, declared, entity, None)
    settle(target, declared, [Settlement("retry", entity, -1, operator(), reason, None)])
    _say(as_json, "retried", rows, f"{len(rows)} parked events of {entity} go again")


@command.command("drop")
@click.argument("agent")
@click.argument("entity")
@click.argument("number", type=int, required=False)
@click.option("--all", "everything", is_flag=True, help="All parked events of the entity.")
@reason_option
@target_options
@json_option
def drop(
    agent: str,
    entity: str,
    number: int | None,
    everything: bool,
    reason: str,
    topology: str | None,
    brokers: str | None,
    as_json: bool,
) -> None:
    """Give up event NUMBER of an ENTITY: it becomes a dead letter, with the reason."""
    if everything == (number is not None):
        raise click.UsageError("say which: a NUMBER from the list, or --all")
    target = Target.open(topology, brokers)
    declared = target.agent(agent)
    rows = _of_entity(target, declared, entity, number)
    settle(target, declared, [Settlement("drop", entity, -1 if number is None else number, operator(), reason, None)])
    _say(as_json, "dropped", rows, f"{len(rows)} parked events of {entity} become dead letters")


def parked_rows(target: Target, agent: Agent) -> list[ParkedRow]:
    """What is parked now, by entity and number."""
    from choreo.runtime.records import InternalRecords
    from choreo.runtime.topic_reader import read_topic
    from choreo.topology import names

    records = InternalRecords()
    latest: dict[bytes | None, ParkedRow] = {}
    topic = names.parked(target.topology.name, agent.name)
    for delivery in read_topic(target.bootstrap, target.security, topic):
        if delivery.value is None:
            latest.pop(delivery.key, None)
        else:
            latest[delivery.key] = records.parked(delivery.value)
    return sorted(latest.values(), key=lambda row: (row.entity, row.number))


def _of_entity(target: Target, agent: Agent, entity: str, number: int | None) -> list[ParkedRow]:
    rows = [row for row in parked_rows(target, agent) if row.entity == entity and number in (None, row.number)]
    if not rows:
        which = "nothing parked" if number is None else f"no parked event {number}"
        raise HostError(
            f"agent {agent.name} has {which} for {entity!r}",
            code="CH0809",
            hint=f"`choreo parked list {agent.name}` shows what there is",
            fault="user",
        )
    return rows


def _summary(row: ParkedRow) -> dict[str, object]:
    return {
        "entity": row.entity,
        "number": row.number,
        "parked_at": _parked_at(row),
        "code": row.code,
        "reason": row.reason,
        "event_id": row.event_id,
        "topic": row.delivery.topic,
        "partition": row.delivery.partition,
        "offset": row.delivery.offset,
    }


def _parked_at(row: ParkedRow) -> datetime:
    return datetime.fromtimestamp(row.parked_at_ms / 1000, UTC)


def _say(as_json: bool, verb: str, rows: list[ParkedRow], text: str) -> None:
    if as_json:
        emit_json({verb: [{"entity": row.entity, "number": row.number} for row in rows]})
    else:
        click.echo(text)
