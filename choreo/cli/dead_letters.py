"""`choreo dead-letters`: list, show and re-drive events that an agent could not handle."""

from __future__ import annotations

from typing import Any, Final

import click

from choreo.cli._output import emit_json, json_option, print_table
from choreo.cli._settle import settle
from choreo.cli._target import Target, operator, target_options
from choreo.errors import HostError

MESSAGE_SHOWN_MAX: Final = 100
"""Characters of a message in the list; `show` has all of it."""


@click.group("dead-letters")
def command() -> None:
    """Events that an agent could not handle, with the original bytes and the reason."""


@command.command("list")
@click.argument("agent", required=False)
@click.option("--code", metavar="CHxxxx", help="Only those with this error code.")
@target_options
@json_option
def list_(agent: str | None, code: str | None, topology: str | None, brokers: str | None, as_json: bool) -> None:
    """List dead letters of AGENT, or of all agents, oldest first."""
    target = Target.open(topology, brokers)
    agents = [target.agent(agent)] if agent else target.engine_agents()
    letters = [letter for one in agents for letter in letters_of(target, one.name) if code in (None, letter["code"])]
    letters.sort(key=lambda letter: letter["failed_at"])
    if as_json:
        for letter in letters:
            emit_json({name: value for name, value in letter.items() if name != "original"})
        return
    print_table(
        ["agent", "id", "failed at", "code", "entity", "redriven", "message"],
        [
            [
                one["agent"],
                one["id"],
                f"{one['failed_at']:%Y-%m-%d %H:%M:%S}",
                one["code"],
                one["entity"],
                "yes" if one["redriven"] else "no",
                one["message"][:MESSAGE_SHOWN_MAX],
            ]
            for one in letters
        ],
        empty="no dead letters",
    )


@command.command("show")
@click.argument("agent")
@click.argument("letter_id", metavar="ID")
@target_options
@json_option
def show(agent: str, letter_id: str, topology: str | None, brokers: str | None, as_json: bool) -> None:
    """Show one dead letter of AGENT: the reason, and the event as far as it can be read. ID is from the list."""
    from choreo.errors import ChoreoError

    target = Target.open(topology, brokers)
    letter = _chosen(target, target.agent(agent).name, (letter_id,))[0]
    original = letter["original"]
    try:
        letter["event"] = target.decoded(original["value"])
    except ChoreoError as error:
        letter["event"] = None
        letter["unreadable"] = error.message
    if as_json:
        emit_json(letter)
        return
    original["headers"] = {header["name"]: header["value"].decode("utf-8", "replace") for header in original["headers"]}
    for name in ("key", "value"):
        original[name] = None if original[name] is None else original[name].decode("utf-8", "backslashreplace")
    print_table(["field", "value"], [[name, value] for name, value in letter.items()])


@command.command("redrive")
@click.argument("agent")
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that were not re-driven yet.")
@click.option("--code", metavar="CHxxxx", help="With --all: only those with this error code.")
@click.option("--reason", default="", metavar="TEXT", help="Why; goes into the record.")
@target_options
@json_option
def redrive(
    agent: str,
    letter_ids: tuple[str, ...],
    everything: bool,
    code: str | None,
    reason: str,
    topology: str | None,
    brokers: str | None,
    as_json: bool,
) -> None:
    """Let AGENT handle events again, under their original ids, after the cause is gone."""
    from choreo.kernel.values import Settlement
    from choreo.runtime.records import delivery_of

    if everything == bool(letter_ids):
        raise click.UsageError("say which: IDs from the list, or --all")
    target = Target.open(topology, brokers)
    declared = target.agent(agent)
    if everything:
        letters = [one for one in letters_of(target, agent) if not one["redriven"] and code in (None, one["code"])]
        skipped = [one for one in letters if _hopeless(one)]
        letters = [one for one in letters if not _hopeless(one)]
    else:
        letters, skipped = _chosen(target, agent, letter_ids), []
        for letter in letters:
            if reason_not := _hopeless(letter):
                raise HostError(reason_not, code="CH0809", where=f"{agent} {letter['id']}", fault="user")
    who = operator()
    settle(
        target,
        declared,
        [Settlement("redrive", one["entity"], -1, who, reason, delivery_of(one["original"])) for one in letters],
    )
    if as_json:
        emit_json({"redriven": [one["id"] for one in letters], "skipped": [one["id"] for one in skipped]})
    else:
        skipped_text = f"; {len(skipped)} cannot be (no key, or larger than the topic takes)" if skipped else ""
        click.echo(f"{len(letters)} dead letters of {agent} go again{skipped_text}")


def letters_of(target: Target, agent: str) -> list[dict[str, Any]]:
    """Dead letters of an agent: the record's fields, its id ``partition/offset``, and whether it was re-driven."""
    from choreo.runtime.topic_reader import read_topic
    from choreo.topology import names

    redriven = set()
    settled = names.settled(target.topology.name, agent)
    for delivery in read_topic(target.bootstrap, target.security, settled):
        settlement = target.decoded(delivery.value) or {}
        if settlement.get("kind") == "redrive" and settlement["delivery"] is not None:
            redriven.add(_place(settlement["delivery"]))
    letters = []
    for delivery in read_topic(target.bootstrap, target.security, names.dead_letters(target.topology.name, agent)):
        letter = target.decoded(delivery.value)
        if letter is not None:
            letter["id"] = f"{delivery.partition}/{delivery.offset}"
            letter["redriven"] = _place(letter["original"]) in redriven
            letters.append(letter)
    return letters


def _place(original: dict[str, Any]) -> tuple[str, int, int]:
    return original["topic"], original["partition"], original["offset"]


def _chosen(target: Target, agent: str, wanted: tuple[str, ...]) -> list[dict[str, Any]]:
    by_id = {letter["id"]: letter for letter in letters_of(target, agent)}
    for one in wanted:
        if one not in by_id:
            raise HostError(
                f"agent {agent} has no dead letter {one!r}",
                code="CH0809",
                hint=f"`choreo dead-letters list {agent}` shows their ids",
                fault="user",
            )
    return [by_id[one] for one in wanted]


def _hopeless(letter: dict[str, Any]) -> str | None:
    """Why a dead letter cannot be handled again, None if it can."""
    if letter["stub"]:
        return "the event was too large to be kept whole; send it again where it came from"
    if letter["entity"] is None:
        return "the event has no usable key, so that no entity could handle it; send a corrected one"
    return None
