"""How fast a table is read back from its changelog, and that RocksDB reads only what it lacks.

    python -m benchmarks --only restore [--quick]

Memory: the runtime's own ``Restorer`` on 1,000,000 rows (200,000 with --quick) in 4 partitions, in a process of its
own, against a plain consumer with the same settings that reads the same topic into a dict of key and value, and does
nothing else. Both take turns. The clock starts with the request and stops when the last partition is handed over.

RocksDB: a whole restore; again after a clean stop; and after ``kill -9`` of a process that had stored rows without
closing its files, with more rows written meanwhile. What counts is the number of rows read.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.machine import REPOSITORY
from benchmarks.measure import Bench, Context, Measure, at_least, at_most
from benchmarks.rows import fill
from benchmarks.scoring import PARTITIONS, SOURCE, TOPOLOGY, Scoring
from choreo.runtime import kafka_config
from choreo.runtime.broker import EmbeddedBroker
from choreo.runtime.facts import read_facts
from choreo.runtime.records import InternalRecords
from choreo.runtime.restore import RestoreConfig, Restorer, RestoreResult
from choreo.runtime.stores.memory import MemoryStore
from choreo.topology import names

LATE_ROWS: Final = 10_000
"""Written while no worker runs: what RocksDB lacks."""
PROCESS_S: Final = 300.0
INSTANCE: Final = "bench"


@dataclass(frozen=True)
class Job:
    """What a child process does.

    Args:
        what: ``raw`` or ``choreo``.
        agent: of the scoring job; names the table.
        store: ``memory`` or ``rocksdb``.
        hold: after the restore the process waits to be killed instead of closing its stores.
    """

    what: str
    bootstrap: str
    agent: str
    store: str
    state_dir: str
    hold: bool = False

    @property
    def changelog(self) -> str:
        return names.changelog(TOPOLOGY, self.agent, f"accounts_{self.agent}")


# -- in the child ----------------------------------------------------------------------------------------------------


def plain_read(job: Job) -> dict[str, float]:
    """The baseline: a consumer, a dict, nothing else."""
    consumer = Consumer(kafka_config.reader(job.bootstrap, {}))
    kept: dict[bytes, bytes] = {}
    started_s = time.perf_counter()
    consumer.assign([TopicPartition(job.changelog, number, 0) for number in range(PARTITIONS)])
    left = PARTITIONS
    rows = 0
    while left:
        for message in consumer.consume(10_000, 0.1):
            error = message.error()
            if error is None:
                kept[message.key()] = message.value()
                rows += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                left -= 1
            else:
                raise KafkaException(error)
    taken_s = time.perf_counter() - started_s
    consumer.close()
    return {"seconds": taken_s, "read": rows, "rows": len(kept)}


def restorer(job: Job) -> Restorer:
    """The runtime's own, as a worker makes it."""
    internal = {
        kind: make(TOPOLOGY, job.agent)
        for kind, make in (
            ("journal", names.journal),
            ("timers", names.timers),
            ("parked", names.parked),
            ("settled", names.settled),
        )
    }
    inputs = (SOURCE, internal["settled"])
    facts = read_facts(
        AdminClient(kafka_config.admin(job.bootstrap, {})),
        job.bootstrap,
        [*inputs, job.changelog, internal["journal"], internal["timers"], internal["parked"]],
    )
    table = f"accounts_{job.agent}"
    config = RestoreConfig(
        bootstrap=job.bootstrap,
        security={},
        group=names.group(TOPOLOGY, job.agent),
        owner=names.transactional_id(TOPOLOGY, job.agent, INSTANCE),
        inputs=inputs,
        changelogs={table: job.changelog},
        stores={table: job.store},
        journal=internal["journal"],
        timers=internal["timers"],
        parked=internal["parked"],
        start="earliest",
        state_dir=Path(job.state_dir),
        facts=facts,
    )
    # The group has no members, so anybody may commit.
    outsider = Consumer({**kafka_config.reader(job.bootstrap, {}), "group.id": config.group})
    return Restorer(
        config,
        InternalRecords(),
        lambda _: True,
        lambda: time.time_ns() // 1_000_000,
        lambda places: outsider.commit(offsets=places, asynchronous=True),
    )


def restore(job: Job) -> tuple[dict[str, float], list[RestoreResult]]:
    """Restores all partitions; figures, and what was handed over."""
    one = restorer(job)
    read: dict[int, int] = {}
    started_s = time.perf_counter()
    one.request(1, tuple(range(PARTITIONS)))
    results: list[RestoreResult] = []
    while len(results) < PARTITIONS:
        result = one.results.get(timeout=PROCESS_S)
        if isinstance(result, BaseException):
            raise result
        if result.error is not None:
            raise result.error
        results.append(result)
        read[result.number] = result.rows_read
    taken_s = time.perf_counter() - started_s
    one.stop()
    return {"seconds": taken_s, "read": sum(read.values())}, results


def child(job: Job) -> None:
    if job.what == "raw":
        figures = plain_read(job)
    else:
        figures, results = restore(job)
        figures["rows"] = sum(len(s) for r in results for s in r.stores.values() if isinstance(s, MemoryStore))
        if job.hold:
            sys.stdout.write(json.dumps(figures) + "\n")
            sys.stdout.flush()
            signal.pause()
        for result in results:
            for store in result.stores.values():
                store.close()
    sys.stdout.write(json.dumps(figures) + "\n")


# -- in the parent ---------------------------------------------------------------------------------------------------


@contextmanager
def started(job: Job) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.restore", json.dumps(asdict(job))],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(PROCESS_S)


def run(job: Job) -> dict[str, float]:
    """Figures of a child process; with ``hold`` it is killed -9 as soon as it has printed them."""
    with started(job) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not job.hold:
            process.wait(PROCESS_S)
        if not line:
            raise RuntimeError(f"a restore failed: {job}")
        figures: dict[str, float] = json.loads(line)
        return figures


def measure(context: Context) -> Iterator[Measure]:
    rows = context.size(full=1_000_000, quick=200_000)
    with EmbeddedBroker() as broker:
        scoring = Scoring(broker.bootstrap, context.folder)
        yield _memory(scoring, rows, context)
        yield from _rocksdb(scoring, rows, context)


def _memory(scoring: Scoring, rows: int, context: Context) -> Measure:
    job = Job("choreo", scoring.bootstrap, "off_memory", "memory", "")
    context.note(f"writing {rows} rows")
    bytes_each = fill(scoring.bootstrap, job.changelog, scoring.ids["Account"], rows, partitions=PARTITIONS)
    raw: list[float] = []
    ours: list[float] = []
    for number in context.rounds(full=5, quick=3):
        for one, into in ((replace(job, what="raw"), raw), (job, ours)):
            context.note(f"memory, round {number}: {one.what}")
            found = run(one)
            if found["rows"] != rows or found["read"] != rows:
                raise RuntimeError(f"{one.what} read {found}, {rows} rows were written")
            into.append(rows / found["seconds"])
    details = {"rows": rows, "avro_bytes_of_a_row": bytes_each}
    return BENCH.measure("restore_memory", ours, unit="rows/s", raw=raw, note="raw: a plain reader", details=details)


def _rocksdb(scoring: Scoring, rows: int, context: Context) -> Iterator[Measure]:
    job = Job("choreo", scoring.bootstrap, "off_rocksdb", "rocksdb", str(context.folder / "state"))
    account = scoring.ids["Account"]
    context.note(f"writing {rows} rows")
    fill(scoring.bootstrap, job.changelog, account, rows, partitions=PARTITIONS)
    context.note("RocksDB: from nothing")
    whole = run(job)
    yield BENCH.measure("restore_rocksdb", [rows / whole["seconds"]], unit="rows/s", details={"rows": whole["read"]})
    stopped: list[float] = []
    killed: list[float] = []
    seconds: list[float] = []
    for number in context.rounds(full=5, quick=2):
        context.note(f"RocksDB, round {number}: after a clean stop")
        stopped.append(run(job)["read"])
        fill(scoring.bootstrap, job.changelog, account, LATE_ROWS, partitions=PARTITIONS)
        context.note(f"RocksDB, round {number}: killed when its last rows are stored, and started again")
        taken = run(replace(job, hold=True))["read"]
        if taken != LATE_ROWS:
            raise RuntimeError(f"{taken} rows were read where {LATE_ROWS} were missing")
        fill(scoring.bootstrap, job.changelog, account, LATE_ROWS, partitions=PARTITIONS, first=rows)
        after = run(job)
        killed.append(after["read"] - LATE_ROWS)
        seconds.append(round(after["seconds"], 2))
    yield BENCH.measure("restore_rocksdb_stopped", stopped, unit="rows", raw=[rows], note="raw: all rows")
    yield BENCH.measure(
        "restore_rocksdb_killed",
        killed,
        unit="rows",
        raw=[rows],
        note="raw: all rows",
        details={"rows it lacked": LATE_ROWS, "seconds": seconds},
    )


BENCH: Final = Bench(
    measures={
        "restore_memory": ("rows read back into memory", at_least(200_000, "value", ">= 200,000 rows/s")),
        "restore_rocksdb": ("rows read back into RocksDB, from nothing", None),
        "restore_rocksdb_stopped": (
            "rows that RocksDB reads again after a clean stop",
            at_most(0, "value", "only what it lacks: 0 rows"),
        ),
        "restore_rocksdb_killed": (
            "rows that RocksDB reads after kill -9 beyond those written meanwhile",
            at_most(0, "value", "only what it lacks: 0 rows"),
        ),
    },
    run=measure,
    deadline_s=600,
    quick_deadline_s=240,
)

if __name__ == "__main__":
    child(Job(**json.loads(sys.argv[1])))
