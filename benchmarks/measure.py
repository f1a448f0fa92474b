"""The form of every measure, and what a module must have to be run by ``python -m benchmarks``.

A module of this package is a benchmark if it has a constant ``BENCH``: a :class:`Bench` that names the measures it
yields, each with its target, and a function that runs them. ``benchmarks/registry.py`` lists the modules. The runner
starts each in a process of its own, kills it at its deadline, and writes what it yielded.

    def run(context: Context) -> Iterator[Measure]:
        raw, ours = [], []
        for number in context.rounds(full=5, quick=3):
            context.note(f"round {number}")
            raw.append(...)
            ours.append(...)
        yield BENCH.measure("waiting", ours, unit="calls/s", raw=raw)

    BENCH = Bench(
        measures={"waiting": ("waiting on 500 ms calls, 2,000 keys", at_least(0.95, "ratio", "≥ 95 % of the limit"))},
        run=run,
        deadline_s=300,
    )
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.figures import median, spread

LONGER: Final = 1.3
"""How much longer than the rounds so far the next one may take, before the deadline."""

Of = Literal["value", "ratio"]


@dataclass(frozen=True)
class Target:
    """A bound of a measure's value or of its ratio to the raw loop.

    Args:
        text: as the table shows it.
        of: what is bounded.
        at_least, at_most: one of them or both; the bound itself meets the target.
    """

    text: str
    of: Of
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"the target {self.text!r} bounds nothing")

    def is_met(self, value: float | None, ratio: float | None) -> bool:
        """A figure that is absent meets nothing."""
        seen = value if self.of == "value" else ratio
        if seen is None or seen != seen:  # NaN
            return False
        return (self.at_least is None or seen >= self.at_least) and (self.at_most is None or seen <= self.at_most)


def at_least(bound: float, of: Of, text: str) -> Target:
    return Target(text, of, at_least=bound)


def at_most(bound: float, of: Of, text: str) -> Target:
    return Target(text, of, at_most=bound)


@dataclass(frozen=True)
class Measure:
    """One line of the table, one object of the JSON file.

    Args:
        name: identifier, the same from run to run.
        what: one line for people.
        value, unit: the figure: the median of the rounds.
        raw: the same figure of what it is compared with (the raw loop, or what ``note`` says), in the same run.
        ratio: ``value / raw``.
        target: None for figures that have none.
        spread: (largest - smallest) / median of the rounds.
        rounds: the figure of each round, in order; ``raw_rounds`` those of ``raw``.
        note: what one must know to read the figure.
        details: further figures.
        skipped: why it was not measured; nothing that was skipped is met.
        failed: what went wrong.
    """

    name: str
    what: str
    value: float | None = None
    unit: str = ""
    raw: float | None = None
    ratio: float | None = None
    target: Target | None = None
    spread: float | None = None
    rounds: Sequence[float] = ()
    raw_rounds: Sequence[float] = ()
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    skipped: str | None = None
    failed: str | None = None

    @property
    def met(self) -> bool | None:
        """None where there is no target."""
        if self.target is None:
            return None
        was_measured = self.skipped is None and self.failed is None
        return was_measured and self.target.is_met(self.value, self.ratio)

    def as_json(self) -> dict[str, Any]:
        """Every field, figures with four significant digits or more."""
        return {
            "name": self.name,
            "what": self.what,
            "value": _rounded(self.value),
            "unit": self.unit,
            "raw": _rounded(self.raw),
            "ratio": _rounded(self.ratio),
            "target": None if self.target is None else self.target.text,
            "met": self.met,
            "spread": _rounded(self.spread),
            "rounds": [_rounded(one) for one in self.rounds],
            "raw_rounds": [_rounded(one) for one in self.raw_rounds],
            "note": self.note,
            "details": dict(self.details),
            **({} if self.skipped is None else {"skipped": self.skipped}),
            **({} if self.failed is None else {"failed": self.failed}),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}") if abs(value) < 1_000 else round(value)


class Context:
    """What a benchmark gets from the runner.

    Args:
        quick: fewer rounds and events: the whole set within ten minutes.
        folder: an empty directory, deleted afterwards.
        build: where results and profiles may stay.
        note: shows progress; cheap, call it often.
        rounds: overrides the number of rounds.
        deadline_s: after so many seconds the benchmark is killed.
    """

    def __init__(
        self,
        *,
        quick: bool,
        folder: Path,
        build: Path,
        note: Callable[[str], None],
        rounds: int | None = None,
        deadline_s: float = math.inf,
    ) -> None:
        self.quick = quick
        self.folder = folder
        self.build = build
        self.note = note
        self._rounds = rounds
        self._started_s = time.monotonic()
        self._deadline_s = deadline_s

    def rounds(self, *, full: int = 5, quick: int = 2) -> range:
        """Numbers of the rounds, from 1."""
        return range(1, (self._rounds or (quick if self.quick else full)) + 1)

    def rounds_in_time(self, *, full: int = 5, quick: int = 2) -> Iterator[int]:
        """As ``rounds``, but no further one is begun that would not end before the deadline: on a busy machine fewer
        rounds are better than none."""
        longest_s = 0.0
        for number in self.rounds(full=full, quick=quick):
            begun_s = time.monotonic()
            if begun_s + LONGER * longest_s > self._started_s + self._deadline_s:
                self.note(f"no time for round {number}")
                return
            yield number
            longest_s = max(longest_s, time.monotonic() - begun_s)

    def size(self, *, full: int, quick: int) -> int:
        """How much of something: events, keys, seconds."""
        return quick if self.quick else full


Run = Callable[[Context], Iterable[Measure]]


@dataclass(frozen=True)
class Bench:
    """A module's measures and how to run them.

    Args:
        measures: name to (what, target); all of them are yielded, or the run counts as failed.
        run: yields the measures as they are done.
        deadline_s: after it the benchmark and everything it started is killed (``quick_deadline_s``: of quick runs).
    """

    measures: Mapping[str, tuple[str, Target | None]]
    run: Run
    deadline_s: float
    quick_deadline_s: float = 120.0

    def measure(
        self,
        name: str,
        rounds: Sequence[float],
        *,
        unit: str,
        raw: Sequence[float] = (),
        note: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> Measure:
        """The measure of some rounds: medians, their ratio, the spread."""
        what, target = self.measures[name]
        value = median(rounds)
        against = median(raw) if raw else None
        return Measure(
            name=name,
            what=what,
            value=value,
            unit=unit,
            raw=against,
            ratio=value / against if against else None,
            target=target,
            spread=spread(rounds) if value else None,
            rounds=tuple(rounds),
            raw_rounds=tuple(raw),
            note=note,
            details=details or {},
        )

    def skip(self, name: str, why: str) -> Measure:
        """A measure that needs something which is absent."""
        what, target = self.measures[name]
        return Measure(name=name, what=what, target=target, skipped=why)

    def fail(self, name: str, why: str) -> Measure:
        """A measure that was tried and broke."""
        what, target = self.measures[name]
        return Measure(name=name, what=what, target=target, failed=why)

    def missing(self, found: Iterable[Measure]) -> Iterator[str]:
        """Names that were not yielded."""
        names = {one.name for one in found}
        return (name for name in self.measures if name not in names)
