"""How long a worker that was killed -9 takes to commit again, counted from the start of its process.

    python -m benchmarks.restart [KILLS] [memory|rocksdb]

The worker is ``faust -A agents.counter worker`` with a static name, under a load of some hundred events a second; its
time includes Python's imports, ending its own open transaction, joining and restoring. "Commits again" means: a reader
at read_committed has the first output that was written after the kill. Times depend on the machine and its load, which
are printed beside them; the promise is 3 s.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from choreo.runtime.broker import EmbeddedBroker
from tests.chaos import reader
from tests.chaos.project_copy import counting
from tests.chaos.run import Run

SEED = 1


def measure(kills: int, store: str) -> list[float]:
    """Seconds from each start to the first new output."""
    taken_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        target = counting(broker.bootstrap, Path(folder), "restart", store=store)
        with Run(target, seed=SEED, workers=1) as run:
            run.begin()
            (worker,) = run.workers
            client = reader.admin(broker.bootstrap)
            for _ in range(kills):
                run.progress_everywhere(20)
                assert worker.kill(), "the worker was not running"
                ends = reader.ends(client, target.output)
                started = time.monotonic()
                worker.start()
                run.follower.wait(
                    lambda ends=ends: any(run.follower.count_from(number, end) for number, end in ends.items()),
                    stalled_s=60,
                    why="the first output after a kill",
                )
                taken_s.append(time.monotonic() - started)
            run.healed()
            run.finish()
            run.stop_workers()
            run.report(faults=False).require()
    return taken_s


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    store = sys.argv[2] if len(sys.argv) > 2 else "memory"
    taken_s = sorted(measure(kills, store))
    load = os.getloadavg()[0]
    sys.stdout.write(
        f"restart after kill -9, {store}: median {statistics.median(taken_s):.2f} s, slowest {taken_s[-1]:.2f} s, "
        f"{sum(one <= 3 for one in taken_s)} of {kills} within 3 s ({os.cpu_count()} cores, load {load:.1f})\n"
    )


if __name__ == "__main__":
    main()
