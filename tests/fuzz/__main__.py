"""``make fuzz``: hours of cases against every reader of what others wrote, counted over sittings.

python -m tests.fuzz                                      20,000 cases a target
python -m tests.fuzz --target avro --runs 100000 --seed 7 --resume
python -m tests.fuzz --target keys --case build/fuzz/failures/keys/0a1b….bin
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.machine import header
from tests.fuzz.catalogue import all_targets, selected
from tests.fuzz.sitting import ROOT, Engine, Places, Row, Tally, failure_file, run
from tests.fuzz.watch import Watch

RUNS: Final = 20_000
REQUIREMENTS: Final = Path(__file__).with_name("requirements.lock")
SITTING: Final = ("command", "commit", "date", "parameters", "cases", "failures")
"""What is kept of an earlier sitting, whose cases the rows count too. Its failures may be mended by now."""
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 64


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    console = Console(stderr=True)
    places = Places.under(options.build)
    targets = selected(options.target)
    if not targets:
        console.print(f"no target {options.target!r}; there are: {', '.join(all_targets())}", markup=False)
        return EXIT_USAGE
    if options.case is not None:
        return replay(options.case.read_bytes(), [one.name for one in targets], console)
    result: Path = options.build / "fuzz.json"
    tally = Tally()
    earlier: list[dict[str, Any]] = []
    if options.resume and result.is_file():
        before: dict[str, Any] = json.loads(result.read_text("utf-8"))
        tally = Tally.resumed(before, places.failures)
        earlier = [*before.get("earlier_sittings", []), {name: before[name] for name in SITTING}]
    engines = engines_of(options.engine, places, console)
    seed = options.seed + 1_000 * tally.sittings
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    console.print(
        f"seed {seed}, {len(targets)} targets, {' and '.join(engines)}; corpus in {places.corpus}", markup=False
    )

    def show(row: Row) -> None:
        if console.is_terminal:
            console.print(f"{row.target} {row.engine}: {row.seen.cases:,} cases", markup=False)
        write()

    parameters = {name: str(value) for name, value in vars(options).items() if value is not None and name != "build"}

    def write() -> None:
        result.parent.mkdir(parents=True, exist_ok=True)
        body = {**header(parameters), "earlier_sittings": earlier, **tally.as_json()}
        result.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", "utf-8")

    while True:
        run(targets, engines, tally, places, cases=options.runs, seed=seed, deadline=deadline, show=show)
        if deadline is None or time.monotonic() >= deadline:
            break
        seed += 1  # MINUTES: round after round
    write()
    if options.json:
        print(result.read_text("utf-8"), end="")  # noqa: T201
    else:
        print_table(tally, places)
    return EXIT_FAILED if tally.failures else 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--target", default="", help="names or areas, * allowed; all if left out")
    parser.add_argument("--runs", type=int, default=RUNS, help="cases a target; one for many schemas gets a multiple")
    parser.add_argument("--minutes", type=float, help="round after round for so long; nothing new is begun after it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="add to what build/fuzz.json counts")
    parser.add_argument("--engine", choices=("both", "atheris", "chance"), default="both")
    parser.add_argument("--case", type=Path, help="replay one input")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--json", action="store_true", help="print the result file instead of the table")
    return parser.parse_args(argv)


def engines_of(wanted: str, places: Places, console: Console) -> list[Engine]:
    """The engines that there are. Atheris has wheels for some Pythons and systems only."""
    if wanted == "chance":
        return ["chance"]
    if not (places.engines / "atheris").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += [
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--target",
            str(places.engines),
            "-r",
            str(REQUIREMENTS),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            said = (ended.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            console.print(f"atheris cannot be installed here, so changes by chance alone: {said}", markup=False)
            return ["chance"]
    return ["atheris"] if wanted == "atheris" else ["atheris", "chance"]


def replay(data: bytes, names: list[str], console: Console) -> int:
    """One input against the targets of that name, outside any engine; the error with its traceback."""
    failed = 0
    for name in names:
        target = all_targets()[name]
        watch = Watch(target, seconds_max=target.seconds_max, limit_memory=False)
        watch.case(data)
        seen = watch.seen
        console.print(f"{name}: {seen.slowest_ms} ms, {seen.peak_bytes / 2**20:.2f} MiB", markup=False)
        for failure in seen.failures.values():
            failed += 1
            console.print(f"  {failure.kind}: {failure.message}", markup=False)
        if seen.failures and not {"slow", "memory"} & seen.failures.keys():
            target.check(data)
    return EXIT_FAILED if failed else 0


def print_table(tally: Tally, places: Places) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 110  # a file has no width of its own
    table = Table(title=f"fuzz: {sum(tally.areas().values()):,} cases")
    for name in ("target", "engine", "cases", "cases/s", "slowest ms", "peak MiB", "failures"):
        table.add_column(name, justify="left" if name in ("target", "engine") else "right", overflow="fold")
    for row in tally.rows.values():
        one = row.as_json()
        cells = (f"{one['cases']:,}", f"{one['cases_per_s']:,}", f"{one['slowest_ms']:.1f}", f"{one['peak_mib']:.1f}")
        table.add_row(row.target, row.engine, *cells, str(len(one["failures"])))
    console.print(table)
    console.print("  ".join(f"{area} {cases:,}" for area, cases in tally.areas().items()), markup=False)
    for target, failure in tally.failures:
        file = failure_file(places, target, failure)
        shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
        console.print(f"{target}: {failure.kind}: {failure.message[:300]} ({failure.count} times)", markup=False)
        console.print(f"  make fuzz TARGET={target} CASE={shown}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
