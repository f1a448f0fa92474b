"""``make cluster``: the counting project on three brokers under faults in any order, for as long as one likes."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console

from benchmarks.machine import header
from choreo.runtime.broker import EmbeddedCluster
from tests.cluster.counting import Counting
from tests.cluster.faults import FAULTS, SETTINGS

STORES = ("memory", "rocksdb")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="Three brokers under faults.")
    parser.add_argument("--rounds", type=int, default=1, help="each has every fault once, in an order by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=Path("build/cluster.json"))
    options = parser.parse_args()
    console = Console(stderr=True)
    fired: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    rounds = []
    for number in range(1, options.rounds + 1):
        order = list(FAULTS)
        random.Random(f"order {options.seed} {number}").shuffle(order)
        begun = time.monotonic()
        store = STORES[number % len(STORES)]
        with EmbeddedCluster(settings=SETTINGS) as cluster, tempfile.TemporaryDirectory() as folder:
            seed = options.seed * 1_000 + number
            scene = Counting(cluster, Path(folder), seed=seed, name=f"round{number}", store=store)
            report, took = scene.play(order)
        fired.update(scene.run.fired)
        seconds.update(took)
        problems = [str(problem) for problem in report.problems]
        rounds.append({"round": number, "store": store, "inputs": report.inputs, "ok": report.ok, "problems": problems})
        console.print(
            f"round {number} of seed {options.seed} ({store}): {'right' if report.ok else 'WRONG'}, "
            f"{report.inputs:,} inputs, {time.monotonic() - begun:.0f} s"
        )
        for problem in problems:
            console.print(f"  {problem}", markup=False, highlight=False)
    right = all(one["ok"] for one in rounds)
    body = {
        **header({"rounds": options.rounds, "seed": options.seed}),
        "ok": right,
        "faults": dict(fired),
        "seconds_with_recovery": {kind: round(total, 1) for kind, total in seconds.items()},
        "by_round": rounds,
    }
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(body, indent=1) + "\n", "utf-8")
    print(json.dumps({"ok": right, "report": str(options.report)}))  # noqa: T201 - the result, for programs
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
