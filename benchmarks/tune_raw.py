"""Trials of the raw loop's settings: which burst is fastest, which commit interval has the shortest hop.

    python -m benchmarks.tune_raw [--rounds 3] [--events 200000] [--seconds 5]

``benchmarks/raw_loop.py`` uses the best of them, so that choreo is held to the best loop and not to a convenient one.
The burst stays at what takes about 100 ms (Kafka Streams' commit interval for exactly-once): larger ones gain a few
per cent and delay every output.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import hop
from benchmarks.backlog import Drained, drain
from benchmarks.feed import PaymentFeed
from benchmarks.figures import median
from benchmarks.machine import load
from benchmarks.scoring import SOURCE, Scoring
from choreo.runtime.broker import EmbeddedBroker

THROUGHPUT: Final[dict[str, dict[str, Any]]] = {
    "burst 1,000": {"burst": 1_000},
    "burst 2,000": {"burst": 2_000},
    "burst 5,000": {"burst": 5_000},
    "burst 10,000 (used)": {},
    "burst 50,000": {"burst": 50_000},
    "linger 50 ms": {"producer": {"linger.ms": 50}},
    "lz4": {"producer": {"compression.type": "lz4"}},
    "queue of 1,000,000 messages": {"consumer": {"queued.min.messages": 1_000_000}},
}
WAITS_S: Final = {"at once (used)": 0.0, "5 ms": 0.005, "10 ms": 0.01, "20 ms": 0.02}
RATES: Final = (200, 1_000)
SEED: Final = 6


def throughput(rounds: int, events: int, status: Any) -> dict[str, list[Drained]]:
    found: dict[str, list[Drained]] = {}
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        job = Scoring(broker.bootstrap, Path(folder))
        feed = PaymentFeed(broker.bootstrap, SOURCE, job.ids["Payment"], keys=1_000, seed=SEED)
        loops = {name: job.raw(f"raw-{number}", **options) for number, (name, options) in enumerate(THROUGHPUT.items())}
        for number in range(1, rounds + 1):
            feed.write(events)
            for name, loop in loops.items():
                status.update(f"round {number} of {rounds}: {name}")
                found.setdefault(name, []).append(drain(job.cluster, loop, backlog=events, broker_pid=broker.pid))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune_raw", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    with console.status("starting") as status:
        drained = throughput(given.rounds, given.events, status)
        hops = hop.measure(
            rounds=given.rounds,
            seconds=given.seconds,
            rates=RATES,
            note=status.update,
            make=lambda job: {
                name: hop.raw_hop(job, f"raw-{number}", wait_s=wait_s)
                for number, (name, wait_s) in enumerate(WAITS_S.items())
            },
        )
    table = Table(title="raw loop, throughput")
    for title in ("", "events/s", "worker CPU µs"):
        table.add_column(title, justify="right" if title else "left")
    for name, found in drained.items():
        rate, cpu = median([one.per_s for one in found]), median([one.worker_cpu_us for one in found])
        table.add_row(name, f"{rate:,.0f}", f"{cpu:.1f}")
    console.print(table)
    table = Table(title="raw loop, one hop: milliseconds by how long a transaction waits for events")
    for title in ("", "events/s", "p50", "p99"):
        table.add_column(title, justify="right" if title else "left")
    for (name, rate), rounds in hops.rounds.items():
        p50, p99 = median([one.p50_ms for one in rounds]), median([one.p99_ms for one in rounds])
        table.add_row(name, f"{rate:,}", f"{p50:.1f}", f"{p99:.1f}")
    console.print(table)
    console.print(f"load average {load()}")


if __name__ == "__main__":
    main()
