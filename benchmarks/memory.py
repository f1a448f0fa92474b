"""What a row costs in memory, and what a worker needs for millions of rows in RocksDB.

    python -m benchmarks --only memory [--quick]

The stores by themselves, each in a process of its own: resident memory before and after. ``memory_entity`` fills the
memory store, ``memory_rocksdb`` writes 5,000,000 rows (1,000,000 with --quick) into the stores of four partitions and
then reads rows at random. The whole worker: ``memory_worker`` is what resident memory grows by with more rows, restored
and then met by random events, over a table that fills librdkafka's queues already (32 MB in every worker);
``memory_worker_rocksdb`` is all of such a worker.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.feed import PaymentFeed
from benchmarks.machine import REPOSITORY
from benchmarks.measure import Bench, Context, Measure, at_most
from benchmarks.raw_loop import prefix, schema_of
from benchmarks.rows import account_name, account_row, fill
from benchmarks.scoring import PARTITIONS, SOURCE, Contestant, Scoring
from choreo.kernel.packed import pack
from choreo.runtime.broker import EmbeddedBroker
from choreo.runtime.stores.memory import MemoryStore
from choreo.runtime.stores.rocksdb import RocksStore

BURST: Final = 1_000
READS: Final = 200_000
PROCESS_S: Final = 900.0
BASE_ROWS: Final = 150_000
DRAINED_S: Final = 120.0
LOOK_S: Final = 0.05
SEED: Final = 1
MIB: Final = 2**20
ROCKSDB_MB_MAX: Final = 400


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def bytes_allowed(avro_bytes: float) -> float:
    """The promise for one entity."""
    return 3 * avro_bytes + 200


# -- the stores, in a child ------------------------------------------------------------------------------------------


def packed_rows(low: int, high: int) -> list[tuple[str, bytes | None]]:
    """Rows as a restore hands them to a store: packed with the id of the event that shaped them."""
    schema, start = schema_of("Account"), prefix(1_000)
    return [(account_name(n), pack(f"{n:032x}", account_row(n, schema, start))) for n in range(low, high)]


def memory_store(rows: int) -> dict[str, float]:
    """Bytes for each row, from resident memory."""
    packed_rows(0, BURST)
    store = MemoryStore()
    before = resident_bytes()
    avro = 0
    for low in range(0, rows, BURST):
        writes = packed_rows(low, min(low + BURST, rows))
        avro += sum(len(packed) - 33 - 5 for _, packed in writes if packed is not None)
        store.apply(writes, None, 0)
    assert len(store) == rows
    return {"bytes": (resident_bytes() - before) / rows, "avro": avro / rows}


def rocksdb_stores(rows: int, folder: str) -> dict[str, float]:
    """Resident memory of the whole process while it writes and after reading at random."""
    stores = [
        RocksStore(Path(folder) / str(number), topic_id="t", log_end=rows, tombstones_kept_ms=86_400_000, now_ms=1)
        for number in range(PARTITIONS)
    ]
    highest = 0
    written_s = time.perf_counter()
    for low in range(0, rows, BURST):
        stores[low // BURST % PARTITIONS].apply(packed_rows(low, low + BURST), low + BURST, 1)
        if low % (100 * BURST) == 0:
            highest = max(highest, resident_bytes())
    written_s = time.perf_counter() - written_s
    chance = random.Random(SEED)
    read_s = time.perf_counter()
    for _ in range(READS):
        number = chance.randrange(rows)
        assert stores[number // BURST % PARTITIONS].get(account_name(number)) is not None
    read_s = time.perf_counter() - read_s
    after = resident_bytes()
    for store in stores:
        store.close()
    return {
        "mb": max(highest, after) / MIB,
        "mb_while_writing": round(highest / MIB),
        "mb_after_reads": round(after / MIB),
        "rows_written_per_s": round(rows / written_s),
        "rows_read_per_s": round(READS / read_s),
    }


CHILDREN: Final[dict[str, Callable[..., dict[str, float]]]] = {"memory": memory_store, "rocksdb": rocksdb_stores}


def in_child(what: str, *arguments: Any) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", what, json.dumps(arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        timeout=PROCESS_S,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


# -- the worker ------------------------------------------------------------------------------------------------------


def worker_bytes(scoring: Scoring, contestant: Contestant, *, keys: int, events: int) -> int:
    """Resident memory of a worker that has restored its table and handled events for random keys."""
    numbers = range(PARTITIONS)
    before = scoring.cluster.committed_ends(contestant.output, numbers)
    PaymentFeed(scoring.bootstrap, SOURCE, scoring.ids["Payment"], keys=keys, seed=keys).write(events)
    deadline = time.monotonic() + DRAINED_S
    with contestant.start() as worker:
        while True:
            ends = scoring.cluster.committed_ends(contestant.output, numbers)
            if sum(ends.values()) - sum(before.values()) >= events:
                return resident_bytes(worker.pid)
            worker.require_alive()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{contestant.name} did not handle {events} events\n{worker.tail()}")
            time.sleep(LOOK_S)


def through_worker(context: Context) -> list[Measure]:
    rows = context.size(full=1_000_000, quick=200_000)
    events = context.size(full=50_000, quick=20_000)
    with EmbeddedBroker() as broker:
        scoring = Scoring(broker.bootstrap, context.folder)
        memory, rocksdb = scoring.choreo("off_memory"), scoring.choreo("off_rocksdb")
        account = scoring.ids["Account"]
        context.note(f"a worker with {BASE_ROWS} rows in memory")
        fill(broker.bootstrap, memory.changelog, account, BASE_ROWS, partitions=PARTITIONS)
        small = worker_bytes(scoring, memory, keys=BASE_ROWS, events=events)
        context.note(f"writing {rows} rows")
        avro = fill(broker.bootstrap, memory.changelog, account, rows, partitions=PARTITIONS, first=BASE_ROWS)
        context.note(f"a worker with {rows} more rows in memory")
        large = worker_bytes(scoring, memory, keys=BASE_ROWS + rows, events=events)
        context.note(f"writing {rows} rows")
        fill(broker.bootstrap, rocksdb.changelog, account, rows, partitions=PARTITIONS)
        context.note(f"a worker with {rows} rows in RocksDB")
        on_disk = worker_bytes(scoring, rocksdb, keys=rows, events=events)
    each = (large - small) / rows
    return [
        BENCH.measure(
            "memory_worker",
            [each],
            unit="B",
            raw=[bytes_allowed(avro)],
            note="raw: the bytes that are allowed",
            details={"rows": rows, "avro_bytes": avro, "mb_small": small // MIB, "mb_large": large // MIB},
        ),
        BENCH.measure("memory_worker_rocksdb", [on_disk / MIB], unit="MiB", details={"rows": rows}),
    ]


def run(context: Context) -> list[Measure]:
    rows = context.size(full=1_000_000, quick=200_000)
    found: list[dict[str, float]] = []
    for number in context.rounds(full=5, quick=2):
        context.note(f"memory store, round {number}: {rows} rows")
        found.append(in_child("memory", rows))
    allowed = bytes_allowed(found[0]["avro"])
    entity = BENCH.measure(
        "memory_entity",
        [one["bytes"] for one in found],
        unit="B",
        raw=[allowed],
        note="raw: the bytes that are allowed",
        details={"rows": rows, "avro_bytes": round(found[0]["avro"], 1)},
    )
    many = context.size(full=5_000_000, quick=1_000_000)
    context.note(f"RocksDB: writing {many} rows")
    on_disk = in_child("rocksdb", many, str(context.folder / "stores"))
    rocksdb = BENCH.measure("memory_rocksdb", [on_disk.pop("mb")], unit="MiB", details={"rows": many, **on_disk})
    return [entity, rocksdb, *through_worker(context)]


_ENTITY_TARGET: Final = at_most(1.0, "ratio", "<= 3 x Avro bytes + 200 B")
_ROCKSDB_TARGET: Final = at_most(ROCKSDB_MB_MAX, "value", f"<= {ROCKSDB_MB_MAX} MB")
BENCH: Final = Bench(
    measures={
        "memory_entity": ("memory of one row in the memory store", _ENTITY_TARGET),
        "memory_rocksdb": ("memory of a process with millions of rows in RocksDB", _ROCKSDB_TARGET),
        "memory_worker": ("what a worker's memory grows by for each row", _ENTITY_TARGET),
        "memory_worker_rocksdb": ("memory of a worker with its rows in RocksDB", _ROCKSDB_TARGET),
    },
    run=run,
    deadline_s=900,
    quick_deadline_s=240,
)

if __name__ == "__main__":
    sys.stdout.write(json.dumps(CHILDREN[sys.argv[1]](*json.loads(sys.argv[2]))) + "\n")
