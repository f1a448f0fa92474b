"""`choreo agent`: make an agent forget everything and start over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from choreo.cli._output import emit_json, json_option
from choreo.cli._target import Target, target_options
from choreo.errors import HostError

if TYPE_CHECKING:
    from choreo.topology.model import Agent


@click.group("agent")
def command() -> None:
    """Operations on one agent."""


@command.command("reset")
@click.argument("name", metavar="AGENT")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@target_options
@json_option
def reset(name: str, yes: bool, topology: str | None, brokers: str | None, as_json: bool) -> None:
    """Delete what AGENT remembers: rows, timers, parked events, journal, inbox and its place in its inputs.

    The next worker begins as a new agent does (`start:` in the topology): with `earliest` it handles again all that
    its inputs still hold, and emits again. Dead letters, decisions and what it emitted before stay. Its workers must
    be stopped.
    """
    from choreo.apply.run import apply_topology
    from choreo.runtime.agent_reset import forget, remembered_topics

    target = Target.open(topology, brokers)
    agent = target.agent(name)
    _refuse_while_running(target, agent)
    topics = remembered_topics(target.topology, agent)
    if not yes:
        click.confirm(
            f"Delete {len(topics)} topics of agent {name} on {target.bootstrap} and start it over from {agent.start}?",
            abort=True,
            err=True,
        )
    forget(target.topology, agent, target.admin, target.bootstrap)
    apply_topology(target.project, target.topology)
    if as_json:
        emit_json({"agent": name, "topics": topics, "start": agent.start})
    else:
        click.echo(f"agent {name} starts over from {agent.start}; {len(topics)} topics were made anew")


def _refuse_while_running(target: Target, agent: Agent) -> None:
    from choreo.runtime.cluster_view import view_agents

    view = next(one for one in view_agents(target.topology, target.admin, target.bootstrap) if one.agent == agent.name)
    if view.members:
        raise HostError(
            f"agent {agent.name} is at work: {', '.join(view.members)}",
            code="CH0809",
            where=target.bootstrap,
            hint="stop them; after a crash the group forgets them when their session ends",
            fault="user",
        )
