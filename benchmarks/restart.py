"""How long a worker that was killed -9 takes to commit again, counted from the start of its process.

    python -m benchmarks --only restart [--quick]

A worker with 100,000 rows, a static name and some hundred events a second is killed and started again at once; its time
includes Python's imports, ending its own open transaction, joining and restoring. "Commits again" means: a reader at
read_committed has the first output that was written after the kill. The raw loop, killed in the same way, takes turns
with it: it restores the same rows into a dict. The parts come from the worker's log.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from benchmarks.feed import PaymentFeed
from benchmarks.figures import median
from benchmarks.machine import cpu_s
from benchmarks.measure import Bench, Context, Measure, at_most
from benchmarks.processes import Process
from benchmarks.rows import fill
from benchmarks.scoring import PARTITIONS, SOURCE, Contestant, Scoring
from choreo.runtime import kafka_config
from choreo.runtime.broker import EmbeddedBroker

ROWS: Final = 100_000
EVENTS_AT_ONCE, PAUSE_S = 30, 0.1
SETTLE_S: Final = 0.2
"""Between the kill and the look at the log's end: a commit that was on its way has arrived."""
RUNS_S: Final = 1.5
"""The worker that will be killed commits for this long, many transactions."""
STALLED_S: Final = 60.0
SEED: Final = 1

_LINE: Final = re.compile(r"^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})\].*?\] (.*)$")
PARTS: Final = (
    ("imports", "[^Worker]: Starting"),
    ("faust and preflight", "[^Worker]: Ready"),
    ("clients, join", "assigned partitions"),
    ("restore", "restored partition"),
)
"""Part and the line that ends it, the last of its kind; what is left until the output is seen is the first step, its
transaction, and the reader's poll."""


def parts(log: str, started_at_s: float, seen_at_s: float) -> dict[str, float]:
    """Seconds by part of one start.

    Args:
        log: of this start alone.
        started_at_s, seen_at_s: wall times of the start and of the first output.
    """
    found: dict[str, float] = {}
    last_s = started_at_s
    for part, text in PARTS:
        times = [
            datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()
            for match in map(_LINE.match, log.splitlines())
            if match is not None and text in match[2]
        ]
        if times:
            found[part] = round(max(times) - last_s, 3)
            last_s = max(times)
    found["first commit"] = round(seen_at_s - last_s, 3)
    return found


@contextmanager
def events(scoring: Scoring) -> Iterator[None]:
    """Some hundred events a second as long as the block runs, for random accounts.

    Raises:
        RuntimeError: Kafka refused some.
    """
    feed = PaymentFeed(scoring.bootstrap, SOURCE, scoring.ids["Payment"], keys=ROWS, seed=SEED)
    ended = threading.Event()
    failed: list[RuntimeError] = []

    def write() -> None:
        while not ended.wait(PAUSE_S):
            try:
                feed.write(EVENTS_AT_ONCE)
            except RuntimeError as error:
                failed.append(error)
                return

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join(STALLED_S)
    if failed:
        raise failed[0]


class Follower:
    """A reader of an output at read_committed, from the end that holds now."""

    def __init__(self, scoring: Scoring, topic: str) -> None:
        ends = scoring.cluster.committed_ends(topic, range(PARTITIONS))
        self._consumer = Consumer(kafka_config.reader(scoring.bootstrap, {}))
        self._consumer.assign([TopicPartition(topic, number, end) for number, end in ends.items()])

    def wait_first(self, worker: Process) -> float:
        """Wall time when the first record came."""
        deadline = time.monotonic() + STALLED_S
        while time.monotonic() < deadline:
            message = self._consumer.poll(0.05)
            if message is None:
                worker.require_alive()
            elif message.error() is None:
                return time.time()
            elif message.error().code() != KafkaError._PARTITION_EOF:
                raise KafkaException(message.error())
        raise RuntimeError(f"{worker.name} did not commit within {STALLED_S:g} s\n{worker.tail()}")

    def close(self) -> None:
        self._consumer.close()


def restarted(scoring: Scoring, contestant: Contestant) -> tuple[float, dict[str, float]]:
    """Seconds from the start of a process to its first output; their parts, and CPU seconds of all of its threads.

    Its predecessor was killed -9.
    """
    follower = Follower(scoring, contestant.output)
    with contestant.start() as worker:
        follower.wait_first(worker)
        time.sleep(RUNS_S)
        worker.kill()
        log_bytes = worker.log_file.stat().st_size
    follower.close()
    time.sleep(SETTLE_S)
    follower = Follower(scoring, contestant.output)
    started_at_s = time.time()
    with contestant.start() as worker:
        seen_at_s = follower.wait_first(worker)
        taken_cpu_s = cpu_s(worker.pid)
        worker.kill()
        log = worker.log_file.read_bytes()[log_bytes:].decode("utf-8", errors="replace")
    follower.close()
    return seen_at_s - started_at_s, {**parts(log, started_at_s, seen_at_s), "cpu": taken_cpu_s}


def summary(found: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, object]:
    """The slowest, and the median of each part."""
    names = [name for name in found[0][1] if all(name in one for _, one in found)]
    return {
        "slowest_s": round(max(taken_s for taken_s, _ in found), 2),
        "parts_s": {name: round(median([one[name] for _, one in found]), 2) for name in names},
    }


def run(context: Context) -> list[Measure]:
    found: dict[str, list[tuple[float, dict[str, float]]]] = {}
    with EmbeddedBroker() as broker:
        scoring = Scoring(broker.bootstrap, context.folder)
        contestants = [scoring.raw("raw"), scoring.choreo("off_memory"), scoring.choreo("off_rocksdb")]
        for one in contestants:
            context.note(f"writing {ROWS} rows for {one.name}")
            fill(broker.bootstrap, one.changelog, scoring.ids["Account"], ROWS, partitions=PARTITIONS)
        with events(scoring):
            for number in context.rounds(full=7, quick=3):
                for one in contestants:
                    context.note(f"round {number}: killing {one.name}")
                    found.setdefault(one.name, []).append(restarted(scoring, one))
    raw = [taken_s for taken_s, _ in found["raw"]]
    return [
        BENCH.measure(
            name,
            [taken_s for taken_s, _ in found[contestant]],
            unit="s",
            raw=raw,
            note="raw: the raw loop, restarted in the same way",
            details=summary(found[contestant]),
        )
        for name, contestant in (("restart_memory", "choreo-off-memory"), ("restart_rocksdb", "choreo-off-rocksdb"))
    ]


BENCH: Final = Bench(
    measures={
        "restart_memory": (
            f"first commit after kill -9 with {ROWS:,} rows in memory, from the start of the process",
            at_most(3.0, "value", "<= 3 s"),
        ),
        "restart_rocksdb": (
            f"first commit after kill -9 with {ROWS:,} rows in RocksDB, from the start of the process",
            at_most(2.0, "value", "<= 2 s"),
        ),
    },
    run=run,
    deadline_s=600,
    quick_deadline_s=240,
)
