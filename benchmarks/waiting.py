"""A worker that spends its time waiting: calls of 500 ms, 2,000 keys, ``in_flight: 1000``.

    python -m benchmarks --only waiting [--quick]

No worker can do better than in-flight ÷ latency, 2,000 a second; how near does one come, with a transaction around each
answer? Requests of random keys lie in Kafka; counted is the middle of each round, from a fifth to four fifths of its
answers: at the end too few keys are left to keep 1,000 calls in flight. Answers are read at read_committed, each once
and in the order of its key, or the run fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.desk import IN_FLIGHT, Answer, Answers, Desk, feed
from benchmarks.machine import cpu_s
from benchmarks.measure import Bench, Context, Measure, at_least
from choreo.runtime.broker import EmbeddedBroker

CALL_MS: Final = 500
KEYS: Final = 2_000
IDEAL_PER_S: Final = IN_FLIGHT * 1_000 / CALL_MS
STEADY: Final = (0.2, 0.8)
STALLED_S: Final = 60.0


def steady_per_s(answers: Sequence[Answer]) -> float:
    """Answers a second between the two marks of ``STEADY``.

    Raises:
        ValueError: too few answers to have a middle.
    """
    low, high = (int(share * len(answers)) for share in STEADY)
    if high - low < 2:
        raise ValueError(f"{len(answers)} answers have no middle")
    return (high - low) / ((answers[high].at_ns - answers[low].at_ns) / 1e9)


def run(context: Context) -> list[Measure]:
    requests = context.size(full=50_000, quick=20_000)
    rates: list[float] = []
    cpu_us: list[float] = []
    with EmbeddedBroker() as broker:
        desk = Desk(broker.bootstrap, context.folder)
        answers = Answers(broker.bootstrap)
        with desk.worker() as worker:
            for number in context.rounds(full=5, quick=2):
                context.note(f"round {number}: writing {requests} requests")
                feed(desk.plan(persons=KEYS, first=number * requests, count=requests, wait_ms=CALL_MS))
                before_s = cpu_s(worker.pid)
                found = answers.read_until(
                    requests,
                    worker,
                    stalled_s=STALLED_S,
                    note=lambda done, number=number: context.note(  # type: ignore[misc]
                        f"round {number}: {done} of {requests} answers"
                    ),
                )
                cpu_us.append(round((cpu_s(worker.pid) - before_s) / requests * 1e6))
                rates.append(steady_per_s(found))
        answers.close()
    return [
        BENCH.measure(
            "waiting",
            rates,
            unit="calls/s",
            raw=[IDEAL_PER_S],
            note="raw: in-flight ÷ latency",
            details={"requests": requests, "keys": KEYS, "worker_cpu_us_per_call": cpu_us},
        )
    ]


BENCH: Final = Bench(
    measures={
        "waiting": (
            f"steps that wait {CALL_MS} ms for a call, {KEYS:,} keys, in_flight {IN_FLIGHT:,}, order per key kept",
            at_least(0.95, "ratio", ">= 0.95 x in-flight ÷ latency"),
        )
    },
    run=run,
    deadline_s=420,
    quick_deadline_s=150,
)
