"""Runs the benchmarks and writes ``build/bench.json``.

    python -m benchmarks [--quick] [--resume] [--rounds N] [--only MODULE|MEASURE …] [--out FILE] [--list]

Each benchmark runs in a process of its own that is killed at its deadline. The file is written after each, so that a
run that was cut goes on with ``--resume``: measures of the same commit and size are kept, unless they failed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.machine import BUILD, REPOSITORY, header, load
from benchmarks.measure import Bench
from benchmarks.registry import MODULES
from benchmarks.registry import load as load_bench

LOG_LINES: Final = 15
END_S: Final = 20.0
QUICK_S: Final = 580.0
"""Of all benchmarks of a quick run; with the interpreter's start and the table it ends within ten minutes."""
BEGIN_S: Final = 20.0
"""Less is not worth beginning with: starting Kafka and a worker takes half of it."""

MET: Final = {True: "[green]yes[/green]", False: "[red]no[/red]", None: ""}
"""None: nothing was promised."""

Note = Callable[[str], None]
Found = dict[str, Any]


def run(
    module: str, bench: Bench, *, quick: bool, rounds: int | None, note: Note, left_s: float = math.inf
) -> list[Found]:
    """Measures of one benchmark, as JSON objects; those that are missing are there as failed.

    Args:
        left_s: what is left for all benchmarks; they are skipped when it is too little to begin.
    """
    if left_s < BEGIN_S:
        return [bench.skip(name, "the time of a quick run was over").as_json() for name in bench.measures]
    deadline_s = min(bench.quick_deadline_s if quick else bench.deadline_s, left_s)
    with tempfile.TemporaryDirectory(prefix="choreo-bench-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "benchmarks.run_one", module, folder, "--deadline", str(deadline_s)]
        command += ["--quick"] if quick else []
        command += ["--rounds", str(rounds)] if rounds else []
        found, log, why = _collect(command, deadline_s, note)
    named = {one["name"] for one in found}
    reason = why or "\n".join(log[-LOG_LINES:])
    return found + [bench.fail(name, reason).as_json() for name in bench.measures if name not in named]


def _collect(command: Sequence[str], deadline_s: float, note: Note) -> tuple[list[Found], list[str], str]:
    """What a child process printed until it ended or was killed; and why it was killed."""
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    lines: queue.Queue[tuple[str, str]] = queue.Queue()

    def pass_on(stream: IO[str], kind: str) -> None:
        for line in stream:
            lines.put((kind, line.rstrip("\n")))

    readers = [
        threading.Thread(target=pass_on, args=(process.stdout, "measure"), daemon=True),
        threading.Thread(target=pass_on, args=(process.stderr, "note"), daemon=True),
    ]
    for reader in readers:
        reader.start()
    found: list[Found] = []
    log: list[str] = []
    why = ""
    ends_s = time.monotonic() + deadline_s
    try:
        while process.poll() is None or not lines.empty() or any(reader.is_alive() for reader in readers):
            try:
                kind, line = lines.get(timeout=0.2)
            except queue.Empty:
                if process.poll() is not None and time.monotonic() > ends_s + END_S:
                    break  # something that it started holds the pipe open
            else:
                if kind == "measure" and line.startswith("{"):
                    found.append(json.loads(line))
                else:
                    log.append(line)
                    note(line)
            if not why and time.monotonic() > ends_s:
                why = f"killed at its deadline of {deadline_s:.0f} s; last: {log[-1] if log else 'nothing'}"
                os.killpg(process.pid, signal.SIGKILL)
    finally:
        with suppress(ProcessLookupError):  # nothing is left of it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(END_S)
        for reader, stream in zip(readers, (process.stdout, process.stderr), strict=True):
            reader.join(END_S)
            stream.close()
    return found, log, why


def kept(file: Path, head: Found) -> dict[str, Found]:
    """Measures of an earlier run of the same commit and size."""
    if not file.exists():
        return {}
    earlier = json.loads(file.read_text("utf-8"))
    if (earlier["commit"], earlier["parameters"]) != (head["commit"], head["parameters"]):
        return {}
    return {one["name"]: one for one in earlier["measures"] if "failed" not in one}


def write(file: Path, head: Found, found: dict[str, Found]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(".part")
    scratch.write_text(json.dumps({**head, "measures": list(found.values())}, indent=2) + "\n", "utf-8")
    scratch.replace(file)


def table(found: Sequence[Found]) -> Table:
    made = Table(title="choreo against the raw loop, and what was promised")
    for title in ("measure", "value", "raw", "ratio", "spread", "target", "met"):
        made.add_column(title, justify="left" if title in ("measure", "target") else "right", overflow="fold")
    for one in found:
        if "skipped" in one or "failed" in one:
            word = "skipped" if "skipped" in one else "failed"
            why = str(one[word]).splitlines()
            made.add_row(
                one["name"], f"{word}: {why[-1] if why else ''}", "", "", "", one["target"] or "", MET[one["met"]]
            )
            continue
        made.add_row(
            f"{one['name']}\n[dim]{one['what']}[/dim]",
            f"{one['value']:,g} {one['unit']}",
            "" if one["raw"] is None else f"{one['raw']:,g}",
            "" if one["ratio"] is None else f"{one['ratio']:.3g}",
            "" if one["spread"] is None else f"{one['spread']:.0%}",
            one["target"] or "",
            MET[one["met"]],
        )
    return made


def chosen(only: Sequence[str]) -> dict[str, Bench]:
    """Benchmarks by module; ``only`` names modules or measures.

    Raises:
        SystemExit: a name is neither.
    """
    benches = {module: load_bench(module) for module in MODULES}
    known = {*benches, *(name for bench in benches.values() for name in bench.measures)}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise SystemExit(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    return {
        module: bench
        for module, bench in benches.items()
        if not only or module in only or any(name in only for name in bench.measures)
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="at most ten minutes: fewer rounds, fewer events")
    parser.add_argument("--resume", action="store_true", help="keep what an earlier run of this commit finished")
    parser.add_argument("--rounds", type=int, help="of each measure")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="modules or measures")
    parser.add_argument("--out", type=Path, default=BUILD / "bench.json")
    parser.add_argument("--list", action="store_true", help="show the measures and their targets, run nothing")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    benches = chosen(given.only)
    if given.list:
        for module, bench in benches.items():
            for name, (what, target) in bench.measures.items():
                console.print(f"{module}: {name}: {what}: {target.text if target else 'no target'}")
        return 0
    head = header({"quick": given.quick, "rounds": given.rounds})
    found = kept(given.out, head) if given.resume else {}
    head["load"] = {"before": load(), "after": None}
    failures = 0
    ends_s = time.monotonic() + (QUICK_S if given.quick else math.inf)
    for number, (module, bench) in enumerate(benches.items(), 1):
        if all(name in found for name in bench.measures):
            console.print(f"{module}: kept from the earlier run")
            continue
        started_s = time.monotonic()
        with console.status("") as status:

            def note(text: str, title: str = f"{number}/{len(benches)} {module}") -> None:
                status.update(f"{title}: {text}")

            left_s = ends_s - time.monotonic()
            measures = run(module, bench, quick=given.quick, rounds=given.rounds, note=note, left_s=left_s)
        for one in measures:
            found[one["name"]] = one
            failures += "failed" in one
        head["load"]["after"] = load()
        write(given.out, head, found)
        console.print(f"{module}: {time.monotonic() - started_s:.0f} s")
    console.print(table(list(found.values())))
    console.print(f"load average {head['load']['before']} before, {head['load']['after']} after; written: {given.out}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
