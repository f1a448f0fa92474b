"""What one measure says, and how it runs by itself: ``python -m benchmarks.NAME [--quick] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import header, load

Note = Callable[[str], None]


@dataclass(frozen=True)
class Figure:
    """One figure of a measure.

    Args:
        name: ``measure`` or ``measure: part``.
        value, unit: what was measured.
        raw: the same of the baseline, in the same run; None where there is nothing to compare with.
        ratio: what the target speaks of, if it is a ratio.
        target: as people say it.
        met: whether it is reached; None: no target, the figure explains others.
        rounds: single values, in the order they were taken.
        more: whatever helps to judge the figure.
    """

    name: str
    value: float
    unit: str
    raw: float | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    rounds: tuple[float, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)


Measure = Callable[[bool, Note], Sequence[Figure]]
"""(quick, told what is being done) → figures."""


def run_alone(measure: Measure, about: str) -> None:
    """Command line of a measure: progress on a terminal, a table, and the same as JSON if wanted."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer rounds")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    before = load()
    if sys.stdout.isatty():
        with console.status("starting") as status:
            figures = measure(given.quick, status.update)
    else:
        figures = measure(given.quick, lambda text: None)
    show(console, figures)
    console.print(f"load average {before} before, {load()} after")
    if given.json is not None:
        result = {
            **header({"quick": given.quick}),
            "load": {"before": before, "after": load()},
            "figures": [asdict(one) for one in figures],
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def show(console: Console, figures: Sequence[Figure]) -> None:
    table = Table()
    for title in ("", "value", "unit", "raw", "ratio", "target", "", "more"):
        table.add_column(title, justify="right" if title in ("value", "raw", "ratio") else "left", overflow="fold")
    for one in figures:
        table.add_row(
            one.name,
            f"{one.value:,.4g}" if one.value < 1_000 else f"{one.value:,.0f}",
            one.unit,
            "" if one.raw is None else f"{one.raw:,.4g}" if one.raw < 1_000 else f"{one.raw:,.0f}",
            "" if one.ratio is None else f"{one.ratio:.2f}",
            one.target,
            {True: "met", False: "MISSED", None: ""}[one.met],
            ", ".join(f"{name} {value}" for name, value in one.more.items()),
        )
    console.print(table)
