"""``make chaos``: the bank under faults, round after round, with a table and a JSON file at the end."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.bank.campaign import KILLS_PER_ROUND, Campaign, load, replay_command, report, run
from tests.chaos.bank.round import Result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="The bank under faults.")
    parser.add_argument("--kills", type=int, default=100, help="of workers, over all sittings")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0.0, help="begin no new round after so long; 0: no limit")
    parser.add_argument("--resume", action="store_true", help="go on where the last sitting ended")
    parser.add_argument("--round", type=int, default=None, help="play this round again and nothing else")
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="of Kafka")
    parser.add_argument("--folder", type=Path, default=Path("build"), help="of the state file and the report")
    options = parser.parse_args()
    kills = options.kills if options.round is None else min(options.kills, KILLS_PER_ROUND)
    campaign = Campaign(kills, options.seed, options.minutes, options.folder, options.round, options.nodes)
    console = Console(stderr=True)

    def done(result: Result) -> None:
        right = "right" if result.ok else "WRONG"
        console.print(
            f"round {result.number} of seed {result.seed} ({result.store}): {right}, {result.kills} kills, "
            f"{result.decisions:,} decisions, {result.seconds:.0f} s"
        )
        for problem in result.problems:
            console.print(f"  {problem}", markup=False, highlight=False)
        if not result.ok:
            console.print(f"  again: {replay_command(result)}\n  logs: {campaign.folder / result.folder}", markup=False)

    console.print(f"seed {options.seed}")
    with console.status("starting") as status:
        right = run(campaign, resume=options.resume, tell=status.update, done=done)
    if campaign.only is None:
        rounds = load(campaign.state_file)
        show(console, report(rounds, campaign.parameters))
        if rounds.kills < options.kills and right:
            console.print("not all kills were made in this sitting; go on with RESUME=1")
        print(json.dumps({"ok": right, "report": str(campaign.report_file)}))  # noqa: T201 - the result, for programs
    return 0 if right else 1


def show(console: Console, body: dict[str, Any]) -> None:
    """The report for people."""
    table = Table("what", "how much", title="the bank under faults", title_justify="left")
    for kind, times in body["faults"].items():
        table.add_row(kind, f"{times:,}")
    recover = body["kill_to_first_commit_s"]
    for name, value in (
        ("kills in all", body["kills"]),
        ("rounds", body["rounds"]),
        ("transfers asked for", body["transfers"]),
        ("decisions", body["decisions"]),
        ("dead letters, as meant", body["dead_letters"]),
        ("repetitions dropped", body["duplicates_dropped"]),
        ("questions to the ledger", body["ledger_calls"]),
        ("of these asked again", body["ledger_calls_repeated"]),
        ("lost", body["lost"]),
        ("repeated", body["repeated"]),
        ("rounds with a problem", len(body["problems"])),
        ("rounds broken off by the harness's own client", len(body["rounds_broken_off"])),
        ("workers ended by librdkafka", body["workers_ended_by_librdkafka"]),
    ):
        table.add_row(name, f"{value:,}")
    table.add_row("kill to first commit", f"median {recover['median']} s, p99 {recover['p99']} s of {recover['of']}")
    table.add_row("throughput under faults", f"{body['decisions_per_s']} decisions/s")
    table.add_row("a kill took, all in all", f"{body['seconds_per_kill']} s")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
