"""A sitting: which targets run for how long, in which engines, and what all sittings have seen together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Literal

from tests.fuzz.catalogue import all_targets
from tests.fuzz.child import Work, with_chance
from tests.fuzz.target import Target
from tests.fuzz.watch import Failure, Seen, Watch

Engine = Literal["atheris", "chance"]

ROOT: Final = Path(__file__).parents[2]
SECONDS_EACH_CASE: Final = 0.5
SECONDS_TO_START: Final = 120.0
"""A child that takes longer than this and half a second a case hangs: an input without an end is a failure."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a sitting keeps what it finds."""

    corpus: Path
    failures: Path
    engines: Path  # where atheris is installed, beside the environment

    @classmethod
    def under(cls, build: Path) -> Places:
        return cls(build / "fuzz" / "corpus", build / "fuzz" / "failures", build / "fuzz" / "engines")


@dataclass(slots=True)
class Row:
    """What all sittings saw of one target in one engine."""

    target: str
    engine: Engine
    seen: Seen
    sittings: int = 0

    def add(self, more: Seen) -> None:
        seen = self.seen
        self.sittings += 1
        seen.cases += more.cases
        seen.seconds += more.seconds
        seen.peak_bytes = max(seen.peak_bytes, more.peak_bytes)
        if more.slowest_ms > seen.slowest_ms:
            seen.slowest_ms, seen.slowest = more.slowest_ms, more.slowest
        for kind, failure in more.failures.items():
            known = seen.failures.setdefault(kind, failure)
            if known is not failure:
                known.count += failure.count

    def as_json(self) -> dict[str, Any]:
        seen = self.seen
        return {
            "target": self.target,
            "engine": self.engine,
            "sittings": self.sittings,
            "cases": seen.cases,
            "seconds": round(seen.seconds, 1),
            "cases_per_s": round(seen.cases / seen.seconds) if seen.seconds else 0,
            "slowest_ms": seen.slowest_ms,
            "peak_mib": round(seen.peak_bytes / 2**20, 2),
            "failures": [
                {"kind": one.kind, "message": one.message, "count": one.count, "file": one.file_name}
                for one in seen.failures.values()
            ],
        }


class Tally:
    """All rows, in the order in which they came; read from and written as JSON."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, Engine], Row] = {}

    @classmethod
    def resumed(cls, body: dict[str, Any], failures: Path) -> Tally:
        """What earlier sittings wrote. A failure whose input passes by now was mended, and does not count on."""
        tally = cls()
        for one in body["rows"]:
            seen = Seen(one["cases"], one["seconds"], one["slowest_ms"], b"", round(one["peak_mib"] * 2**20))
            for failure in one["failures"]:
                file = failures / one["target"].replace("/", "-") / failure["file"]
                kept = Failure(failure["kind"], failure["message"], failure["count"], file.read_bytes())
                if _still_fails(one["target"], kept):
                    seen.failures[kept.kind] = kept
            tally.rows[one["target"], one["engine"]] = Row(one["target"], one["engine"], seen, one["sittings"])
        return tally

    def add(self, target: str, engine: Engine, seen: Seen) -> Row:
        row = self.rows.setdefault((target, engine), Row(target, engine, Seen()))
        row.add(seen)
        return row

    @property
    def failures(self) -> list[tuple[str, Failure]]:
        return [(row.target, one) for row in self.rows.values() for one in row.seen.failures.values()]

    @property
    def sittings(self) -> int:
        return max((row.sittings for row in self.rows.values()), default=0)

    def areas(self) -> dict[str, int]:
        """Cases by area: all Avro schemas together, and so on."""
        found: dict[str, int] = {}
        for row in self.rows.values():
            area = row.target.partition("/")[0]
            found[area] = found.get(area, 0) + row.seen.cases
        return found

    def as_json(self) -> dict[str, Any]:
        rows = [row.as_json() for row in self.rows.values()]
        return {
            "cases": sum(row["cases"] for row in rows),
            "cases_by_area": self.areas(),
            "slowest_ms": max((row["slowest_ms"] for row in rows), default=0.0),
            "peak_mib": max((row["peak_mib"] for row in rows), default=0.0),
            "failures": sum(len(row["failures"]) for row in rows),
            "rows": rows,
        }


def _still_fails(name: str, failure: Failure) -> bool:
    target = all_targets().get(name)
    if target is None or not failure.data:  # a child that died left no input: start anew to be rid of it
        return target is not None
    watch = Watch(target, seconds_max=target.seconds_max, limit_memory=False)
    watch.case(failure.data)
    return bool(watch.seen.failures)


def failure_file(places: Places, target: str, failure: Failure) -> Path:
    return places.failures / target.replace("/", "-") / failure.file_name


def run(
    targets: Sequence[Target],
    engines: Iterable[Engine],
    tally: Tally,
    places: Places,
    *,
    cases: int,
    seed: int,
    deadline: float | None,
    show: Callable[[Row], None],
) -> None:
    """Runs every target in every engine, one child at a time, and adds what they saw to the tally.

    Args:
        targets: which.
        engines: atheris first: chance then goes over what it found, with times that count.
        tally: filled.
        places: files.
        cases: of a target with share 1, in all engines together.
        seed: of this sitting.
        deadline: ``time.monotonic`` after which no child is started.
        show: told of every row that grew.
    """
    chosen = tuple(engines)
    for target in targets:
        for engine in chosen:
            if deadline is not None and time.monotonic() >= deadline:
                return
            wanted = -(-cases * target.share // len(chosen))
            seen = run_child(target.name, engine, places, cases=wanted, seed=seed)
            for failure in seen.failures.values():
                file = failure_file(places, target.name, failure)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(failure.data)
            show(tally.add(target.name, engine, seen))


def run_child(target: str, engine: Engine, places: Places, *, cases: int, seed: int) -> Seen:
    """What one child saw. That it died or hung is a failure of its own."""
    with tempfile.TemporaryDirectory() as directory:
        work = Work(target, cases, seed, Path(directory, "seen.json"), places.corpus / target.replace("/", "-"))
        timeout_s = SECONDS_TO_START + cases * SECONDS_EACH_CASE
        code, said = (_started if engine == "atheris" else _forked)(work, places, timeout_s)
        seen = Seen.from_json(json.loads(work.out.read_text("utf-8"))) if work.out.is_file() else Seen()
    if code != 0 or seen.cases < cases:
        kind = "hung" if code is None else f"died with {code}"
        seen.failures[kind] = Failure(kind, f"after {seen.cases} cases, seed {seed}: {said[-400:]}", 1, b"")
    return seen


def _forked(work: Work, places: Places, timeout_s: float) -> tuple[int | None, str]:
    """Chance, in a copy of this process: all is imported already."""
    process = get_context("fork").Process(target=with_chance, args=(work,))
    process.start()
    process.join(timeout_s)
    if process.is_alive():
        process.kill()
        process.join()
        return None, "killed"
    return process.exitcode, "its traceback is above"


def _started(work: Work, places: Places, timeout_s: float) -> tuple[int | None, str]:
    """Atheris, in a process of its own: choreo is instrumented while it is imported."""
    command = [sys.executable, "-m", "tests.fuzz.child", "--target", work.target, "--cases", str(work.cases)]
    command += ["--seed", str(work.seed), "--out", str(work.out), "--corpus", str(work.corpus)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(places.engines)))}
    try:
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        return None, (error.stderr or b"").decode(errors="replace")
    return ended.returncode, ended.stderr.decode(errors="replace")
