"""Whom one slow key holds up: 1,000 keys at 1,000 events a second, one of them waits for a call of 60 s (10 s quick).

    python -m benchmarks --only slow_key [--quick]

Open loop: a request's latency counts from the moment it was meant to be sent to the moment a read_committed reader has
its answer. Calm stretches and stretches inside the slow call take turns on the same worker; requests of the slow key
queue behind the call as they must, and count in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.desk import Answer, Answers, Desk, late_ms, person
from benchmarks.figures import median, percentile
from benchmarks.measure import Bench, Context, Measure, at_most
from benchmarks.processes import Process
from choreo.runtime.broker import EmbeddedBroker

KEYS: Final = 1_000
PER_S: Final = 1_000
WARM_UP_S: Final = 2
"""Of each stretch; its requests count for nothing."""
STALLED_S: Final = 100.0
SHARE: Final = 0.99


def others_ms(answers: Sequence[Answer], first_counted: int) -> list[float]:
    """Latencies of all keys but the slow one, without the warm-up."""
    return [
        (one.at_ns - one.meant_ns) / 1e6 for one in answers if one.person != person(0) and one.number >= first_counted
    ]


class Stretches:
    """Sends and reads one stretch after the other."""

    def __init__(self, desk: Desk, answers: Answers, worker: Process) -> None:
        self._desk = desk
        self._answers = answers
        self._worker = worker
        self._next = 1
        self.late_ms_max = 0.0

    def latencies_ms(self, seconds: int, *, slow_s: int) -> list[float]:
        """One stretch: latencies of the others. Returns when the slow key, too, has all of its answers."""
        count = seconds * PER_S
        first = self._next + 1  # the slow request has the number before
        self._next = first + count
        slow_ms = slow_s * 1_000
        plan = self._desk.plan(persons=KEYS, first=first, count=count, per_s=PER_S, slow_ms=slow_ms)
        with self._desk.feeding(plan) as feeder:
            found = self._answers.read_until(
                count + bool(slow_ms), self._worker, stalled_s=STALLED_S, note=lambda done: None
            )
            self.late_ms_max = max(self.late_ms_max, late_ms(feeder))
        if slow_ms:
            (slow,) = (one for one in found if one.number == first - 1)
            ahead = [one for one in found if one.person != person(0) and one.at_ns < slow.at_ns]
            if len(ahead) < 0.9 * count:
                raise RuntimeError(f"the slow call did not last: {len(ahead)} of {count} were answered meanwhile")
        return others_ms(found, first + WARM_UP_S * PER_S)


def run(context: Context) -> list[Measure]:
    slow_s = context.size(full=60, quick=10)
    seconds = slow_s - 1
    calm: list[float] = []
    slow: list[float] = []
    medians: dict[str, list[float]] = {"calm_p50_ms": [], "slow_p50_ms": []}
    with EmbeddedBroker() as broker:
        desk = Desk(broker.bootstrap, context.folder)
        answers = Answers(broker.bootstrap)
        with desk.worker() as worker:
            stretches = Stretches(desk, answers, worker)
            stretches.latencies_ms(WARM_UP_S + 1, slow_s=0)
            for number in context.rounds(full=3, quick=3):
                for is_slow in (False, True) if number % 2 else (True, False):
                    context.note(f"round {number}: {'one slow key' if is_slow else 'calm'}")
                    found = stretches.latencies_ms(seconds, slow_s=slow_s if is_slow else 0)
                    (slow if is_slow else calm).append(percentile(found, SHARE))
                    medians["slow_p50_ms" if is_slow else "calm_p50_ms"].append(percentile(found, 0.5))
        answers.close()
    return [
        BENCH.measure(
            "slow_key",
            slow,
            unit="ms",
            raw=calm,
            note="p99 of the other keys; raw: the same without the slow call",
            details={
                "slow_s": slow_s,
                "feeder_late_ms_max": round(stretches.late_ms_max, 1),
                **{name: round(median(values), 1) for name, values in medians.items()},
            },
        )
    ]


BENCH: Final = Bench(
    measures={
        "slow_key": (
            f"p99 of {KEYS - 1} keys at {PER_S:,} events/s while one key waits for a call",
            at_most(1.2, "ratio", "<= 1.2 x without it"),
        )
    },
    run=run,
    deadline_s=600,
    quick_deadline_s=150,
)
