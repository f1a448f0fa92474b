"""How long ``choreo lint`` and ``choreo plan`` of a large topology take beyond the start of the interpreter.

    python -m benchmarks --only plan [--quick]

500 agents, 1,000 topics, 500 tables, 1,500 Avro records (``large_topology``). ``plan`` asks an embedded Kafka that has
none of the topics, and (not with --quick) one that has all 4,001 of them. The commands take turns with ``python -c
pass`` and ``choreo --help``; the figure is lint and plan together, each less the time of ``python -c pass``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import large_topology
from benchmarks.commands import CHOREO
from benchmarks.commands import run as run_command
from benchmarks.figures import median
from benchmarks.measure import Bench, Context, Measure, at_most
from choreo.runtime.broker import EmbeddedBroker

AGENTS: Final = 500
HEAP_MB: Final = 1_024
"""For 4,001 topics."""
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "choreo --help": (*CHOREO, "--help"),
    "choreo lint": (*CHOREO, "lint"),
    "choreo plan": (*CHOREO, "plan"),
}


def timed(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> float:
    """Wall seconds of a command that must succeed.

    Raises:
        RuntimeError: it did not.
    """
    started_s = time.perf_counter()
    run_command(command, folder, environment)
    return time.perf_counter() - started_s


def beyond_start(taken_s: Mapping[str, Sequence[float]]) -> list[float]:
    """Seconds of lint and plan together in each round, each without what ``python -c pass`` took in that round."""
    return [
        lint + plan - 2 * start
        for start, lint, plan in zip(
            taken_s["python -c pass"], taken_s["choreo lint"], taken_s["choreo plan"], strict=True
        )
    ]


def medians(taken_s: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {f"{name} s": round(median(values), 3) for name, values in taken_s.items()}


def rounds_of(
    numbers: range, folder: Path, environment: Mapping[str, str], note: Callable[[str], None]
) -> dict[str, list[float]]:
    """Wall seconds of each command in each round; the commands take turns."""
    taken_s: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in numbers:
        for name, command in COMMANDS.items():
            note(f"round {number} of {numbers.stop - 1}: {name}")
            taken_s[name].append(timed(command, folder, environment))
    return taken_s


def run(context: Context) -> Iterator[Measure]:
    with EmbeddedBroker(heap_mb=HEAP_MB) as broker:
        folder = context.folder / "project"
        large_topology.write(folder, AGENTS)
        environment = {"CHOREO_BROKERS": broker.bootstrap}
        taken_s = rounds_of(context.rounds(full=7, quick=3), folder, environment, context.note)
        yield BENCH.measure("plan", beyond_start(taken_s), unit="s", details=medians(taken_s))
        if context.quick:
            yield BENCH.skip("plan_applied", "making 4,001 topics takes a minute; not in quick runs")
            return
        context.note("making 4,001 topics")
        timed((*CHOREO, "apply"), folder, environment)
        taken_s = rounds_of(context.rounds(full=3), folder, environment, context.note)
        yield BENCH.measure("plan_applied", beyond_start(taken_s), unit="s", details=medians(taken_s))


BENCH: Final = Bench(
    measures={
        "plan": (
            f"choreo lint + choreo plan of {AGENTS} agents and {2 * AGENTS} topics, beyond the interpreter's start",
            at_most(1.0, "value", "<= 1 s"),
        ),
        "plan_applied": ("the same with all topics on the cluster", at_most(1.0, "value", "<= 1 s")),
    },
    run=run,
    deadline_s=600,
)
