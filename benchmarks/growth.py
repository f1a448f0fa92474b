"""Does an event cost more when there is more of everything? CPU of the workers for each event, from /proc.

    python -m benchmarks --only growth [--quick]

The scoring job (``project/agents/scoring.py``) four times on one broker: 1,000 keys in 4 partitions on one worker, and
the same with 1,000,000 keys (100,000 with --quick), with 64 partitions, with 4 workers. The tables hold a row for every
key before anything is measured. All workers run all the time and are stopped (SIGSTOP) only while their backlog is
written; the jobs take turns, round by round, and each round's CPU is counted from a fifth of its outputs to the last.
Ratios are to the first job.

More keys mean more rows for the same events: a transaction writes each changed row once, and 1,000 keys repeat within
one. That is in the figure; the raw loop, which does the same, is measured beside it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.backlog import drain
from benchmarks.cluster import Cluster
from benchmarks.commands import prepare
from benchmarks.feed import PaymentFeed
from benchmarks.figures import median
from benchmarks.machine import cpu_s
from benchmarks.measure import Bench, Context, Measure, at_most
from benchmarks.processes import Process
from benchmarks.rows import fill
from benchmarks.scoring import PROJECT, Contestant, raw_contestant
from choreo.runtime.broker import EmbeddedBroker
from choreo.topology import names

AGENT: Final = "off_memory"
WARM_UP_SHARE: Final = 0.2
STALLED_S: Final = 90.0
LOOK_S: Final = 0.01
SESSION: Final = "120s"
FLAT: Final = 1.1


@dataclass(frozen=True)
class Size:
    """How much of everything a job has."""

    keys: int = 1_000
    partitions: int = 4
    workers: int = 1


def topology(name: str, partitions: int) -> str:
    """The scoring job under names of its own."""
    return f"""\
choreo: 1
topology: {name}
owner: benchmarks
defaults: {{partitions: {partitions}, retention: 7d}}
topics:
  payments-{name}: {{schema: Payment, key: account, ingress: true}}
  scored-{name}:   {{schema: PaymentScored, key: account}}
tables:
  accounts: {{schema: Account, key: account}}
agents:
  {AGENT}:
    reads: [payments-{name}]
    writes: [scored-{name}]
    tables: [accounts]
    audit: "off"
"""


class Job:
    """One size of the scoring job: its project, topics, workers."""

    def __init__(self, name: str, size: Size, bootstrap: str, folder: Path) -> None:
        self.name = name
        self.size = size
        self.bootstrap = bootstrap
        self.source, self.output = f"payments-{name}", f"scored-{name}"
        self.changelog = names.changelog(name, AGENT, "accounts")
        self._folder = folder / name
        shutil.copytree(PROJECT, self._folder, ignore=shutil.ignore_patterns("__pycache__", "*.yaml"))
        (self._folder / "topologies").mkdir(exist_ok=True)
        file = f"topologies/{name}.yaml"
        (self._folder / file).write_text(topology(name, size.partitions), "utf-8")
        self._environment = {
            "CHOREO_BROKERS": bootstrap,
            "CHOREO_TOPOLOGY": file,
            "CHOREO_SESSION_TIMEOUT": SESSION,  # nothing moves while the workers are stopped
        }
        newest = prepare(self._folder, file, self._environment)
        self.ids = {
            "Payment": newest[f"{self.source}-value"],
            "PaymentScored": newest[f"{self.output}-value"],
            "Account": newest[f"{self.changelog}-value"],
        }
        self.cluster = Cluster(bootstrap)
        self._feed = PaymentFeed(bootstrap, self.source, self.ids["Payment"], keys=size.keys, seed=1)
        fill(bootstrap, self.changelog, self.ids["Account"], size.keys, partitions=size.partitions)

    def start(self, running: ExitStack) -> list[Process]:
        """Its workers, ended with the stack."""
        command = [sys.executable, "-m", "faust", "-A", f"agents.{AGENT}", "worker", "-l", "info", "--without-web"]
        return [
            running.enter_context(
                Process(
                    f"{self.name}-{number}",
                    command,
                    self._folder,
                    {**self._environment, "CHOREO_INSTANCE": f"bench-{number}"},
                )
            )
            for number in range(self.size.workers)
        ]

    def cpu_us(self, workers: Sequence[Process], events: int) -> float:
        """A backlog of events and then its outputs; microseconds of all workers for each event.

        Raises:
            RuntimeError: a worker ended, or nothing came for ``STALLED_S``.
        """
        before = self._committed()
        for worker in workers:
            os.kill(worker.pid, signal.SIGSTOP)
        try:
            self._feed.write(events)
        finally:
            for worker in workers:
                os.kill(worker.pid, signal.SIGCONT)
        marks: list[tuple[int, float]] = []
        moved_s = time.monotonic()
        while not marks or marks[-1][0] < events:
            records = self._committed() - before
            if not marks or records > marks[-1][0]:
                moved_s = time.monotonic()
                marks.append((records, sum(cpu_s(worker.pid) for worker in workers)))
            elif time.monotonic() - moved_s > STALLED_S:
                raise RuntimeError(f"{self.name} stalled after {records} of {events}\n{workers[0].tail()}")
            for worker in workers:
                worker.require_alive()
            time.sleep(LOOK_S)
        return per_event_us(marks, events)

    def catch_up(self, contestant: Contestant, events: int) -> None:
        """Starts the raw loop until it has handled that many events.

        Raises:
            RuntimeError: it ended, or did not in ``STALLED_S``.
        """
        deadline = time.monotonic() + STALLED_S
        with contestant.start() as worker:
            while sum(self.cluster.committed_ends(contestant.output, range(self.size.partitions)).values()) < events:
                worker.require_alive()
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{contestant.name} stalled\n{worker.tail()}")
                time.sleep(LOOK_S)

    def _committed(self) -> int:
        return sum(self.cluster.committed_ends(self.output, range(self.size.partitions)).values())

    def raw(self) -> Contestant:
        """The raw loop on the same input, with topics of its own."""
        return raw_contestant(
            self.cluster,
            self._folder,
            self.ids,
            f"raw-{self.name}",
            source=self.source,
            partitions=self.size.partitions,
        )


def per_event_us(marks: Sequence[tuple[int, float]], events: int) -> float:
    """CPU for each event after the warm-up.

    Args:
        marks: (records of the output so far, CPU seconds so far), rising; commit markers count as records, and are
            spread evenly.
        events: that were written.

    Raises:
        ValueError: everything came at once.
    """
    last_records, last_s = marks[-1]
    warm_records, warm_s = next(mark for mark in marks if mark[0] >= WARM_UP_SHARE * last_records)
    if warm_records == last_records:
        raise ValueError("all outputs came at once; write more events")
    return (last_s - warm_s) / (events * (last_records - warm_records) / last_records) * 1e6


def run(context: Context) -> list[Measure]:
    events = context.size(full=150_000, quick=40_000)
    sizes = {
        "base": Size(),
        "keys": Size(keys=context.size(full=1_000_000, quick=100_000)),
        "partitions": Size(partitions=64),
        "workers": Size(workers=4),
    }
    ours: dict[str, list[float]] = {name: [] for name in sizes}
    raw: dict[str, list[float]] = {"base": [], "keys": []}
    with EmbeddedBroker() as broker, ExitStack() as running:
        jobs: dict[str, Job] = {}
        workers: dict[str, list[Process]] = {}
        for name, size in sizes.items():
            context.note(f"starting {name}: {size}")
            jobs[name] = Job(f"grow{name}", size, broker.bootstrap, context.folder)
            workers[name] = jobs[name].start(running)
        raws = {name: jobs[name].raw() for name in raw}
        for name, job in jobs.items():
            context.note(f"warming up {name}")
            job.cpu_us(workers[name], events // 4)
        for name, contestant in raws.items():
            jobs[name].catch_up(contestant, events // 4)
        for number in context.rounds(full=5, quick=2):
            for name, job in jobs.items():
                context.note(f"round {number}: {name}")
                ours[name].append(job.cpu_us(workers[name], events))
                if name in raws:
                    drained = drain(job.cluster, raws[name], backlog=events, broker_pid=broker.pid)
                    raw[name].append(drained.worker_cpu_us)
    raw_growth = round(median(raw["keys"]) / median(raw["base"]), 2)
    return [
        BENCH.measure(
            f"growth_{name}",
            ours[name],
            unit="us CPU/event",
            raw=ours["base"],
            note=f"raw: {sizes['base']}",
            details={**asdict(sizes[name]), **({"growth_of_the_raw_loop": raw_growth} if name == "keys" else {})},
        )
        for name in ("keys", "partitions", "workers")
    ]


_TARGET: Final = at_most(FLAT, "ratio", "<= 1.1 x")
BENCH: Final = Bench(
    measures={
        "growth_keys": ("CPU of an event with 1,000,000 keys (100,000 quick) against 1,000", _TARGET),
        "growth_partitions": ("CPU of an event in 64 partitions against 4", _TARGET),
        "growth_workers": ("CPU of an event with 4 workers against one", _TARGET),
    },
    run=run,
    deadline_s=900,
    quick_deadline_s=240,
)
