"""One round of throughput: a worker meets a backlog; how fast it is gone is read from Kafka, not from the worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.cluster import Cluster
from benchmarks.machine import busiest_thread_cpu_s, cpu_s
from benchmarks.processes import Process
from benchmarks.scoring import PARTITIONS, Contestant

WARM_UP_SHARE: Final = 0.2
"""Of the backlog: the first fetches, librdkafka's queues filling, Python's caches."""
LOOK_S: Final = 0.01
STALLED_S: Final = 60.0
"""Without a commit the round failed. Above every start: the slowest takes some seconds."""
QUIET_S: Final = 0.5
"""After the last commit that was expected nothing more may come."""


@dataclass(frozen=True)
class Drained:
    """What a round showed.

    Args:
        events: in the measured part, from the first commit after the warm-up to the last commit.
        seconds: between these two.
        worker_cpu_us, broker_cpu_us: user and system time for each event of that part.
        thread_cpu_us: the same of the worker's busiest thread, which is its limit on a machine with cores to spare.
        first_commit_s: from the start of the process to its first commit.
    """

    events: float
    seconds: float
    worker_cpu_us: float
    broker_cpu_us: float
    thread_cpu_us: float
    first_commit_s: float

    @property
    def per_s(self) -> float:
        return self.events / self.seconds


@dataclass(frozen=True)
class Look:
    """What was seen at a commit."""

    at_s: float
    records: int  # of the output, commit markers included
    worker_cpu_s: float
    broker_cpu_s: float
    thread_cpu_s: float


def drain(
    cluster: Cluster,
    contestant: Contestant,
    *,
    backlog: int,
    broker_pid: int,
    on_warm: Callable[[Process], Any] | None = None,
) -> Drained:
    """Starts a worker on a backlog of ``backlog`` events and stops it when the last of its outputs is committed.

    Args:
        on_warm: called with the worker at the first commit after the warm-up, for profilers.

    Raises:
        RuntimeError: the worker ended, or nothing was committed for ``STALLED_S``.
    """
    numbers = range(PARTITIONS)

    def committed() -> int:
        return sum(cluster.committed_ends(contestant.output, numbers).values())

    before = committed()
    looks: list[Look] = []
    started_s = time.monotonic()
    with contestant.start() as worker:
        seen, since_s, is_warm = before, time.monotonic(), False
        while True:
            now = committed()
            at_s = time.monotonic()
            if now != seen:
                seen, since_s = now, at_s
                looks.append(_look(at_s, now - before, worker.pid, broker_pid))
                if on_warm is not None and not is_warm and now - before >= WARM_UP_SHARE * backlog:
                    is_warm = True
                    on_warm(worker)
            elif now - before >= backlog and at_s - since_s > QUIET_S:
                break
            elif at_s - since_s > STALLED_S:
                raise RuntimeError(
                    f"{contestant.name} stalled after {now - before} of {backlog} events\n{worker.tail()}"
                )
            worker.require_alive()
            time.sleep(LOOK_S)
    return evaluate(looks, backlog=backlog, started_s=started_s)


def _look(at_s: float, records: int, worker_pid: int, broker_pid: int) -> Look:
    return Look(at_s, records, cpu_s(worker_pid), cpu_s(broker_pid), busiest_thread_cpu_s(worker_pid))


def evaluate(looks: Sequence[Look], *, backlog: int, started_s: float) -> Drained:
    """The measured part of a round.

    Args:
        looks: one for each commit that was seen.
        backlog: events that all of them did.
        started_s: when the process was started, on the clock of the looks.
    """
    last = looks[-1]
    warm = next(look for look in looks if look.records >= WARM_UP_SHARE * last.records)
    share = (last.records - warm.records) / last.records  # commit markers are spread evenly over the records
    events = share * backlog
    return Drained(
        events=events,
        seconds=last.at_s - warm.at_s,
        worker_cpu_us=(last.worker_cpu_s - warm.worker_cpu_s) / events * 1e6,
        broker_cpu_us=(last.broker_cpu_s - warm.broker_cpu_s) / events * 1e6,
        thread_cpu_us=(last.thread_cpu_s - warm.thread_cpu_s) / events * 1e6,
        first_commit_s=looks[0].at_s - started_s,
    )
