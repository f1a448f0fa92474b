"""Runs one benchmark in this process and writes each measure as a line of JSON. Started by ``python -m benchmarks``.

    python -m benchmarks.run_one MODULE FOLDER [--quick] [--rounds N] [--deadline S]

Progress goes to standard error as plain lines; measures to standard output.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from benchmarks.machine import BUILD
from benchmarks.measure import Context, Measure
from benchmarks.registry import load


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run_one")
    parser.add_argument("module")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--deadline", type=float, default=math.inf, help="seconds after which the caller kills this")
    given = parser.parse_args()
    bench = load(given.module)

    def note(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def tell(measure: Measure) -> None:
        sys.stdout.write(json.dumps(measure.as_json()) + "\n")
        sys.stdout.flush()

    found: list[Measure] = []
    context = Context(
        quick=given.quick,
        folder=given.folder,
        build=BUILD,
        note=note,
        rounds=given.rounds,
        deadline_s=given.deadline,
    )
    for measure in bench.run(context):
        if measure.name not in bench.measures:
            raise KeyError(f"{given.module} yielded {measure.name}, which its BENCH does not name")
        found.append(measure)
        tell(measure)
    for name in bench.missing(found):
        tell(bench.fail(name, "was not measured"))


if __name__ == "__main__":
    main()
