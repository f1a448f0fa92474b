"""Many simulated worlds, the sweep of all fault points and the planted faults, with one table and one file.

    make sim SEEDS=0-20000              # into build/sim.json
    make sim COUNT=5000 RESUME=1        # goes on where the last sitting ended, and adds to its file

The file says what was run on which commit, how often each fault happened and each point was passed, how long worlds
took to come to rest, and for each failure the command that replays it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.machine import header
from tests.kernel.checks import Broken
from tests.kernel.mutants import MUTANTS, first_notice
from tests.kernel.points import POINTS, SIDES
from tests.kernel.sweep import KINDS, Target, strike, targets
from tests.kernel.world import World, run

COUNT: Final = 2_000
BLOCK: Final = 50
"""Worlds between two looks at the file: what is lost when somebody stops it."""
FAILURES_SHOWN_MAX: Final = 20


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", help="first and last, such as 0-20000")
    parser.add_argument(
        "--count", type=int, default=COUNT, help="how many, from 0 or from where the last sitting ended"
    )
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--no-sweep", action="store_true", help="worlds only, neither fault points nor planted faults")
    parser.add_argument("--file", type=Path, default=Path("build/sim.json"))
    chosen = parser.parse_args(arguments)
    told = _resumed(chosen.file) if chosen.resume else _empty()
    first, last = _range(chosen, told)
    sitting = {**header({"seeds": f"{first}-{last}", "jobs": chosen.jobs}), "worlds": 0, "seconds": 0.0}
    told["sittings"].append(sitting)
    console = Console(stderr=True)
    quiet = not console.is_terminal
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet, transient=True) as progress:
        bar = progress.add_task("worlds", total=last - first)
        started = time.monotonic()
        for done in _blocks(first, last, chosen.jobs):
            _add(told, done)
            sitting["worlds"] += done["worlds"]
            sitting["seconds"] = round(time.monotonic() - started, 1)
            told["next"] = done["last"]
            _write(chosen.file, told)
            progress.advance(bar, done["worlds"])
        if not chosen.no_sweep:
            told["sweep"] = _sweep(progress, told["failures"])
            told["planted"] = _planted(progress, told["failures"])
    _write(chosen.file, told)
    _show(told)
    return 1 if told["failures"] else 0


def _range(chosen: argparse.Namespace, told: dict[str, Any]) -> tuple[int, int]:
    if chosen.seeds:
        first, _, last = chosen.seeds.partition("-")
        return (max(int(first), told["next"]) if chosen.resume else int(first)), int(last)
    return told["next"], told["next"] + chosen.count


def _empty() -> dict[str, Any]:
    return {"worlds": 0, "next": 0, "faults": {}, "points": {}, "crashed_at": {}, "rounds": {}, "failures": [],
            "sittings": []}  # fmt: skip


def _resumed(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else _empty()


# -- worlds ------------------------------------------------------------------------------------------------------------


def _blocks(first: int, last: int, jobs: int) -> Iterator[dict[str, Any]]:
    """What blocks of worlds came to, in order."""
    ranges = [(start, min(start + BLOCK, last)) for start in range(first, last, BLOCK)]
    if jobs == 1:
        yield from map(run_block, ranges)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run_block, ranges)


def run_block(seeds: tuple[int, int]) -> dict[str, Any]:
    faults, points, crashed, rounds = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    failures: list[dict[str, Any]] = []
    for seed in range(*seeds):
        world = World(seed)
        try:
            run(world)
        except Broken as broken:
            what, _, command = str(broken).partition("; replay: ")
            failures.append({"seed": seed, "error": what, "replay": command})
        faults += world.faults
        points += Counter({f"{side} {name}": count for (name, side), count in world.hits.counts.items()})
        crashed += Counter({f"{side} {name}": count for (name, side), count in world.crashed_at.items()})
        rounds |= world.rounds
    return {
        "worlds": seeds[1] - seeds[0],
        "last": seeds[1],
        "faults": faults,
        "points": points,
        "crashed_at": crashed,
        "rounds": rounds,
        "failures": failures,
    }


def _add(told: dict[str, Any], done: dict[str, Any]) -> None:
    told["worlds"] += done["worlds"]
    for name in ("faults", "points", "crashed_at"):
        told[name] = dict(sorted((Counter(told[name]) + done[name]).items()))
    told["rounds"] = dict(Counter(told["rounds"]) | done["rounds"])
    told["failures"] += done["failures"]


# -- the sweep and the planted faults ----------------------------------------------------------------------------------


def _sweep(progress: Progress, failures: list[dict[str, Any]]) -> dict[str, Any]:
    """Every blow at every point, the first and the last time it is passed, in every kind of step."""
    blows: Counter[str] = Counter()
    struck: set[str] = set()
    for kind in progress.track(list(KINDS), description="fault points"):
        for target in targets(kind, counts=2):
            blows[target.blow] += 1
            struck.add(f"{target.side} {target.point}")
            _strike(target, failures)
    return {"kinds": list(KINDS), "blows": dict(blows), "points_struck": len(struck)}


def _strike(target: Target, failures: list[dict[str, Any]]) -> None:
    try:
        strike(target)
    except Broken as broken:
        what, _, command = str(broken).partition("; replay: ")
        failures.append({"target": str(target), "error": what, "replay": command})


def _planted(progress: Progress, failures: list[dict[str, Any]]) -> dict[str, Any]:
    """How many worlds it takes until each planted fault shows."""
    planted: dict[str, Any] = {}
    for name in progress.track(list(MUTANTS), description="planted faults"):
        notice = first_notice(name)
        planted[name] = None if notice is None else {"worlds": notice.worlds, "where": notice.where}
        if notice is None:
            command = f"pytest tests/kernel/test_planted_faults.py -k '{name}'"
            failures.append({"planted": name, "error": "nobody noticed", "replay": command})
    return planted


# -- what people see ---------------------------------------------------------------------------------------------------


def _write(file: Path, told: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(told, indent=1) + "\n")
    partial.replace(file)


def _show(told: dict[str, Any]) -> None:
    table = Table(title="Simulated worlds", show_header=False)
    sitting = told["sittings"][-1]
    rate = sitting["worlds"] / sitting["seconds"] if sitting["seconds"] else 0.0
    table.add_row("worlds", f"{told['worlds']} ({rate:.0f}/s in this sitting)")
    table.add_row("faults and what came of them", f"{sum(told['faults'].values())} of {len(told['faults'])} sorts")
    missed = {f"{side} {name}" for name in POINTS for side in SIDES} - set(told["points"])
    table.add_row("fault points passed", f"{len(told['points'])} of {2 * len(POINTS)} {', '.join(sorted(missed))}")
    table.add_row("sides of points crashed at", str(len(told["crashed_at"])))
    table.add_row("rounds to come to rest, at most", str(max(told["rounds"].values(), default=0)))
    if "sweep" in told:
        blows = told["sweep"]["blows"]
        table.add_row("blows at fault points", f"{sum(blows.values())} in {len(told['sweep']['kinds'])} kinds of step")
    if "planted" in told:
        noticed = [one["worlds"] for one in told["planted"].values() if one]
        most = max(noticed, default=0)
        table.add_row("planted faults noticed", f"{len(noticed)} of {len(told['planted'])}, at most {most} worlds each")
    table.add_row("failures", str(len(told["failures"])))
    console = Console()
    console.print(table)
    for failure in told["failures"][:FAILURES_SHOWN_MAX]:
        console.print(failure["error"], failure["replay"], markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
