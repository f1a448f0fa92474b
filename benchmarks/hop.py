"""Latency of one exactly-once hop: event meant to be sent → worker's transaction → read_committed reader.

    python -m benchmarks.hop [--rounds 5] [--seconds 10] [--rates 200 1000] [--json FILE]

Feeder, worker and reader are processes of their own; the feeder keeps its times whatever happens (open loop). The raw
hop commits whatever it finds as soon as it finds it, which is the best commit interval at these rates (see
docs/benchmarks.md). Both workers run all the time; in each round one rate after the other goes to one, then to the
other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import hop_feed, hop_read
from benchmarks.feed import PaymentFeed
from benchmarks.figures import median, percentile
from benchmarks.hop_feed import Segment
from benchmarks.machine import REPOSITORY, header, load
from benchmarks.measure import Bench, Context, Measure, at_most
from benchmarks.processes import Process
from benchmarks.scoring import PARTITIONS, SOURCE, Contestant, Scoring
from choreo.runtime.broker import EmbeddedBroker

KEYS: Final = 1_000
RATES: Final = (200, 1_000)
AGENT: Final = "off_memory"
WARM_UP_S: Final = 1.0
"""Of each segment; its events count for nothing."""
READY_S: Final = 60.0
LAST_S: Final = 2.0

Note = Callable[[str], None]
Entrants = dict[str, tuple[Contestant, str]]
"""Name to worker and the topic it reads."""


@dataclass(frozen=True)
class HopRound:
    """Latencies of one segment."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    events: int


@dataclass(frozen=True)
class Hops:
    """All rounds: (contestant, rate) to its rounds."""

    rounds: dict[tuple[str, int], list[HopRound]]
    feeder_late_ms_max: float


def raw_and_ours(job: Scoring) -> Entrants:
    """The raw hop and a worker of choreo."""
    return {"raw": raw_hop(job, "raw-hop", wait_s=0.0), "choreo": (job.choreo(AGENT), SOURCE)}


def and_raw_with_progress(job: Scoring) -> Entrants:
    """As well: a raw hop that writes a record of its progress for each partition and transaction, as choreo does."""
    return {"raw-progress": raw_hop(job, "raw-hop-progress", wait_s=0.0, progress=True), **raw_and_ours(job)}


def raw_hop(job: Scoring, name: str, *, wait_s: float, progress: bool = False) -> tuple[Contestant, str]:
    """A raw loop with an input of its own."""
    source, journal = f"{name}.payments", f"{name}.journal" if progress else ""
    job.cluster.create([source, journal] if journal else [source], partitions=PARTITIONS)
    return job.raw(name, source=source, wait_s=wait_s, progress=journal), source


def measure(
    *,
    rounds: int,
    seconds: float,
    rates: Sequence[int],
    note: Note,
    make: Callable[[Scoring], Entrants] = raw_and_ours,
) -> Hops:
    """Runs everything on one broker.

    Args:
        make: the workers.

    Raises:
        RuntimeError: an output did not come, or came twice.
    """
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker, ExitStack() as running:
        job = Scoring(broker.bootstrap, Path(folder))
        entrants = make(job)
        plan = _plan(entrants, rounds=rounds, seconds=seconds, rates=rates)
        for contestant, source in entrants.values():
            running.enter_context(contestant.start())
            _wait_ready(job, contestant, source)
        seen_file, sent_file = Path(folder) / "seen.txt", Path(folder) / "sent.json"
        outputs = [contestant.output for contestant, _ in entrants.values()]
        environment = {"PYTHONPATH": str(REPOSITORY)}
        reader = Process(
            "reader",
            [sys.executable, "-m", "benchmarks.hop_read", broker.bootstrap, str(seen_file), *outputs],
            job.folder,
            environment,
        )
        with reader:
            given = {
                "bootstrap": broker.bootstrap,
                "schema_id": job.ids["Payment"],
                "keys": KEYS,
                "segments": [asdict(one) for one in plan],
            }
            _feed(given, sent_file, note)
            time.sleep(LAST_S)
        return _evaluate(
            list(entrants), [source for _, source in entrants.values()], hop_feed.read(sent_file), seen_file
        )


def _plan(entrants: Entrants, *, rounds: int, seconds: float, rates: Sequence[int]) -> list[Segment]:
    """Raw and choreo in turn, the first of them changing from round to round."""
    sources = [source for _, source in entrants.values()]
    plan: list[Segment] = []
    for number in range(rounds):
        order = sources if number % 2 == 0 else sources[::-1]
        plan += [Segment(source, rate, WARM_UP_S + seconds) for rate in rates for source in order]
    return plan


def _wait_ready(job: Scoring, contestant: Contestant, source: str) -> None:
    """Sends a few events of number 1 and on until an output is there; they count for nothing."""
    feed = PaymentFeed(job.bootstrap, source, job.ids["Payment"], keys=KEYS, seed=3, linger_ms=0)
    ends_s = time.monotonic() + READY_S
    while not sum(job.cluster.committed_ends(contestant.output, range(PARTITIONS)).values()):
        if time.monotonic() > ends_s:
            raise RuntimeError(f"{contestant.name} was not ready in {READY_S:.0f} s")
        feed.write(1, number=-1)
        time.sleep(0.2)


def _feed(given: dict[str, Any], file: Path, note: Note) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.hop_feed", json.dumps(given), str(file)],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    last = ""
    try:
        for line in process.stderr:
            last = line.rstrip()
            note(last)
        if process.wait(READY_S) != 0:
            raise RuntimeError(f"the feeder failed: {last}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(READY_S)


def _evaluate(names: list[str], sources: list[str], sent: list[hop_feed.Sent], seen_file: Path) -> Hops:
    """Latencies from what the feeder meant and the reader saw."""
    arrived: list[dict[int, int]] = [{} for _ in names]
    for one in hop_read.read(seen_file):
        if one.number < 0:
            continue  # sent before everybody was ready
        if one.number in arrived[one.topic]:
            raise RuntimeError(f"{names[one.topic]}: the output of payment {one.number} came twice")
        arrived[one.topic][one.number] = one.at_ns
    found: dict[tuple[str, int], list[HopRound]] = {}
    for segment in sent:
        index = sources.index(segment.segment.topic)
        rate = segment.segment.rate_per_s
        numbers = range(segment.first_number, segment.first_number + segment.segment.events)
        missing = [number for number in numbers if number not in arrived[index]]
        if missing:
            raise RuntimeError(f"{names[index]} at {rate}/s: {len(missing)} outputs did not come, first {missing[0]}")
        latencies_ms = [
            (arrived[index][number] - segment.meant_ns(number)) / 1e6 for number in numbers[int(WARM_UP_S * rate) :]
        ]
        found.setdefault((names[index], rate), []).append(
            HopRound(
                percentile(latencies_ms, 0.5), percentile(latencies_ms, 0.99), max(latencies_ms), len(latencies_ms)
            )
        )
    return Hops(found, max(segment.late_ms_max for segment in sent))


def run(context: Context) -> Iterator[Measure]:
    """The measures of the table."""
    hops = measure(
        rounds=len(context.rounds(full=5, quick=2)),
        seconds=context.size(full=10, quick=5),
        rates=RATES,
        note=context.note,
    )
    for rate in RATES:
        raw, ours = hops.rounds["raw", rate], hops.rounds["choreo", rate]
        for share in ("p50", "p99"):
            yield BENCH.measure(
                f"hop_{rate}_{share}",
                [float(getattr(one, f"{share}_ms")) for one in ours],
                unit="ms",
                raw=[float(getattr(one, f"{share}_ms")) for one in raw],
                note="from the moment the event was meant to be sent to the read_committed reader",
                details={
                    "events_per_round": ours[0].events,
                    "max_ms": round(max(one.max_ms for one in ours), 1),
                    "raw_max_ms": round(max(one.max_ms for one in raw), 1),
                    "feeder_late_ms_max": round(hops.feeder_late_ms_max, 2),
                },
            )


BENCH = Bench(
    measures={
        f"hop_{rate}_{share}": (
            f"one exactly-once hop at {rate:,} events/s, {share}",
            at_most(bound, "ratio", f"≤ {bound:g} × raw"),
        )
        for rate in RATES
        for share, bound in (("p50", 1.5), ("p99", 2.0))
    },
    run=run,
    deadline_s=600,
    quick_deadline_s=150,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hop", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each rate and worker in a round")
    parser.add_argument("--rates", type=int, nargs="+", default=list(RATES))
    parser.add_argument("--progress", action="store_true", help="beside a raw hop that records its progress, too")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    before = load()
    with console.status("starting") as status:
        hops = measure(
            rounds=given.rounds,
            seconds=given.seconds,
            rates=given.rates,
            note=status.update,
            make=and_raw_with_progress if given.progress else raw_and_ours,
        )
    table = Table(title="one exactly-once hop, milliseconds (median of the rounds)")
    for title in ("", "events/s", "p50", "÷ raw", "p99", "÷ raw", "max"):
        table.add_column(title, justify="right" if title else "left")
    for (name, rate), found in sorted(hops.rounds.items(), key=lambda item: item[0][1]):
        raw = hops.rounds["raw", rate]
        p50, p99 = median([one.p50_ms for one in found]), median([one.p99_ms for one in found])
        table.add_row(
            name,
            f"{rate:,}",
            f"{p50:.1f}",
            f"{p50 / median([one.p50_ms for one in raw]):.2f}",
            f"{p99:.1f}",
            f"{p99 / median([one.p99_ms for one in raw]):.2f}",
            f"{max(one.max_ms for one in found):.0f}",
        )
    console.print(table)
    console.print(
        f"load average {before} before, {load()} after; the feeder was late by {hops.feeder_late_ms_max:.1f} ms at most"
    )
    if given.json is not None:
        result = {
            **header({"rounds": given.rounds, "seconds": given.seconds, "rates": given.rates}),
            "load": {"before": before, "after": load()},
            "hops": [
                {"worker": name, "rate": rate, "rounds": [asdict(one) for one in found]}
                for (name, rate), found in hops.rounds.items()
            ],
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
