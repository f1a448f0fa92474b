"""How long ``choreo lint`` and ``choreo plan`` of a large topology take beyond the start of the interpreter.

    python -m benchmarks.plan [--quick] [--json FILE]

500 agents, 1,000 topics, 500 tables, 1,500 Avro records (``large_topology``). ``plan`` asks an embedded Kafka that has
none of the topics, and (not with --quick) one that has all 4,001 of them. The commands take turns with ``python -c
pass`` and ``choreo --help``; the target is for lint and plan together, each less the time of ``python -c pass``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import large_topology
from benchmarks.figures import median
from benchmarks.standalone import Figure, Note, run_alone
from choreo.runtime.broker import EmbeddedBroker

AGENTS: Final = 500
TARGET_S: Final = 1.0
COMMAND_S: Final = 300.0
ROUNDS, ROUNDS_QUICK = 7, 3
_CHOREO: Final = (sys.executable, "-c", "from choreo.cli._main import main; main()")
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "choreo --help": (*_CHOREO, "--help"),
    "choreo lint": (*_CHOREO, "lint"),
    "choreo plan": (*_CHOREO, "plan"),
}


def timed(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> float:
    """Wall seconds of a command that must succeed.

    Raises:
        RuntimeError: it did not.
    """
    started_s = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    taken_s = time.perf_counter() - started_s
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-500:]}{done.stderr[-500:]}")
    return taken_s


def beyond_start(taken_s: Mapping[str, Sequence[float]], *commands: str) -> float:
    """Seconds of commands together, each without what ``python -c pass`` takes (medians)."""
    start_s = median(taken_s["python -c pass"])
    return sum(median(taken_s[name]) - start_s for name in commands)


def rounds_of(count: int, folder: Path, environment: Mapping[str, str], note: Note) -> dict[str, list[float]]:
    taken_s: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(1, count + 1):
        for name, command in COMMANDS.items():
            note(f"round {number} of {count}: {name}")
            taken_s[name].append(timed(command, folder, environment))
    return taken_s


def measure(quick: bool, note: Note) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name, EmbeddedBroker() as broker:
        folder = Path(name) / "project"
        large_topology.write(folder, AGENTS)
        environment = {"CHOREO_BROKERS": broker.bootstrap}
        figures = _figures(rounds_of(ROUNDS_QUICK if quick else ROUNDS, folder, environment, note), "")
        if not quick:
            note("creating 4,001 topics")
            timed((*_CHOREO, "apply"), folder, environment)
            figures += _figures(rounds_of(ROUNDS_QUICK, folder, environment, note), ", all topics there")
    return figures


def _figures(taken_s: dict[str, list[float]], where: str) -> list[Figure]:
    both_s = beyond_start(taken_s, "choreo lint", "choreo plan")
    raw_s = median(taken_s["python -c pass"])
    return [
        Figure(
            f"lint + plan of {AGENTS} agents{where}",
            both_s,
            "s beyond interpreter start",
            raw=raw_s,
            target=f"<= {TARGET_S:g} s",
            met=both_s <= TARGET_S,
            rounds=tuple(
                lint + plan - 2 * start
                for start, lint, plan in zip(
                    taken_s["python -c pass"], taken_s["choreo lint"], taken_s["choreo plan"], strict=True
                )
            ),
            more={f"{name} s": round(median(values), 3) for name, values in taken_s.items()},
        )
    ]


if __name__ == "__main__":
    run_alone(measure, __doc__)
