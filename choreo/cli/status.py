"""`choreo status`: agents, their workers, lag, calls in flight, restore progress."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any, Final

import click

from choreo.cli._output import emit_json, json_option, print_table
from choreo.cli._target import Target, target_options

PAGE_TIMEOUT_S: Final = 2.0
"""A worker on this machine answers in milliseconds; one that hangs is reported, not waited for."""


@click.command("status")
@click.option(
    "--url", "urls", multiple=True, metavar="URL", help="A worker on another machine; may be given several times."
)
@target_options
@json_option
def command(urls: tuple[str, ...], topology: str | None, brokers: str | None, as_json: bool) -> None:
    """Show every agent of the topology and every worker that can be asked.

    Lag and dead letters come from Kafka; what is in flight or being restored comes from the workers' pages: those on
    this machine, and those named with --url. Lag counts offsets, commit markers included.
    """
    from dataclasses import asdict

    from choreo.runtime.cluster_view import view_agents
    from choreo.runtime.slots import worker_notes

    target = Target.open(topology, brokers)
    views = view_agents(target.topology, target.admin, target.bootstrap)
    notes = worker_notes(target.project.state_dir, target.topology.name)
    workers = [ask(note.url, agent=note.agent, instance=note.instance, pid=note.pid) for note in notes if note.url]
    workers += [ask(url) for url in urls]
    if as_json:
        emit_json(
            {
                "topology": target.topology.name,
                "bootstrap": target.bootstrap,
                "agents": [{**asdict(view), "lag_total": view.lag_total} for view in views],
                "workers": workers,
            }
        )
        return
    print_table(
        ["agent", "kind", "group", "workers", "lag", "dead letters"],
        [
            [view.agent, view.kind, view.state, len(view.members), _lag(view.lag_total), view.dead_letters]
            for view in views
        ],
        empty="the topology declares no agents",
    )
    for view in views:
        if view.missing:
            click.echo(f"{view.agent}: topics missing: {', '.join(view.missing)} (`choreo apply` creates them)")
    click.echo()
    print_table(
        ["worker", "agent", "ready", "in flight", "steps", "partitions", "restoring", "note"],
        [_worker_row(worker) for worker in workers],
        empty="no worker of this machine answers",
    )


def ask(url: str, **known: Any) -> dict[str, Any]:
    """A worker's status page, or why there is none."""
    shown = {**known, "url": url}
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/status", timeout=PAGE_TIMEOUT_S) as answer:
            return {**shown, **json.load(answer)}
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return {**shown, "reason": f"does not answer: {reason}", "ready": False, "engine": None}


def _lag(value: int | None) -> object:
    return "not started" if value is None else value


def _worker_row(worker: dict[str, Any]) -> list[object]:
    engine = worker.get("engine") or {}
    partitions = engine.get("partitions", [])
    restoring = engine.get("restoring", {})
    stopped = engine.get("stopped", {})
    note = "" if worker.get("ready") else worker.get("reason")
    return [
        worker.get("instance") or worker["url"],
        worker.get("agent"),
        "yes" if worker.get("ready") else "no",
        engine.get("in_flight"),
        engine.get("steps"),
        len(partitions) or None,
        ", ".join(f"{number}: {one['rows']} rows" for number, one in restoring.items()) or None,
        "; ".join([*(f"partition {number} stopped: {text}" for number, text in stopped.items()), note or ""]).strip(
            "; "
        ),
    ]
