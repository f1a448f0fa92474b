"""Exactly-once throughput of one worker against the raw loop, on one embedded Kafka.

    python -m benchmarks.throughput [--rounds 5] [--events 200000] [--keys 1000] [--only NAME …] [--json FILE]
    python -m benchmarks.throughput --profile [--native] [--only choreo-off-memory]

Four partitions; events, rows and outputs are Avro; the input carries the headers that ``choreo.Producer`` writes and
lies in Kafka before a worker starts. In each round every contestant does the whole of the round's input, one after the
other, the raw loop twice. Rates are read from Kafka (last stable offsets of the output) between the first commit after
the warm-up and the last commit; CPU from /proc over the same span. The machine is shared with the broker and with
whatever else runs: trust ratios of one run and CPU per event, not the absolute rates.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.backlog import Drained, drain
from benchmarks.feed import PaymentFeed
from benchmarks.figures import median, spread
from benchmarks.machine import header, load
from benchmarks.measure import Bench, Context, Measure, at_least
from benchmarks.processes import Process
from benchmarks.profile import Profile, Recording, py_spy, read
from benchmarks.scoring import AGENTS, PARTITIONS, SOURCE, Contestant, Scoring
from choreo.runtime.broker import EmbeddedBroker

RAW = "raw"
RAW_SAME_BYTES = "raw-same-bytes"
RAW_EVERY_ROW = "raw-every-row"
OURS = tuple(f"choreo-{agent.replace('_', '-')}" for agent in AGENTS)
NAMES = (RAW, RAW_SAME_BYTES, RAW_EVERY_ROW, *OURS, *peers.NAMES)
PEER_SHARE = {"quix": 2, "faust": 20}
"""Peers do the round's events divided by this: enough for some seconds."""
SEED = 1
RECORDING_S = 60.0

Note = Callable[[str], None]


@dataclass(frozen=True)
class Entrant:
    """A contestant, what it does in a round, and its own input if it can't read Avro."""

    name: str
    contestant: Contestant
    share: int = 1
    feed: PaymentFeed | None = None


@dataclass
class Results:
    """Rounds by name (both raw ones under ``raw``), and why a peer has none."""

    rounds: dict[str, list[Drained]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def entrants(job: Scoring, wanted: Sequence[str], keys: int, absent: dict[str, str], note: Note) -> list[Entrant]:
    """In the order of a round: choreo's between the raw ones."""
    raw_options: dict[str, dict[str, Any]] = {
        RAW: {},
        RAW_SAME_BYTES: {"headers": "all"},
        RAW_EVERY_ROW: {"rows": "event"},
    }
    chosen = [Entrant(name, job.raw(name, **options)) for name, options in raw_options.items() if name in wanted]
    chosen += [Entrant(name, job.choreo(agent)) for name, agent in zip(OURS, AGENTS, strict=True) if name in wanted]
    if RAW in wanted:
        chosen.insert((len(chosen) + 2) // 2, Entrant(RAW, job.raw("raw-again")))
    for name in peers.NAMES:
        if name not in wanted:
            continue
        source, output = f"{name}.payments", f"{name}.scored"
        note(f"environment of {name}")
        try:
            peer = peers.contestant(name, job.bootstrap, job.folder, source=source, output=output)
        except peers.AbsentPeerError as error:
            absent[name] = f"{name} cannot be installed here: {error}"
            continue
        job.cluster.create([source, output], partitions=PARTITIONS)
        feed = PaymentFeed(job.bootstrap, source, None, keys=keys, seed=SEED)
        chosen.append(Entrant(name, peer, PEER_SHARE[name], feed))
    return chosen


def measure(wanted: Sequence[str], *, rounds: Iterable[int], events: int, keys: int, note: Note) -> Results:
    """Runs the rounds.

    Args:
        wanted: contestants by name.
        rounds: numbers of the rounds.
        events: of each round.
        keys: accounts.
        note: shows progress.

    Raises:
        RuntimeError: a contestant stalled, or the rows of ours or of the raw loop count other payments than there are.
    """
    results = Results()
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        job = Scoring(broker.bootstrap, Path(folder))
        feed = PaymentFeed(broker.bootstrap, SOURCE, job.ids["Payment"], keys=keys, seed=SEED)
        chosen = entrants(job, wanted, keys, results.absent, note)
        for number in rounds:
            note(f"round {number}: writing {events} events")
            feed.write(events)
            for one in chosen:
                backlog = events // one.share
                if one.feed is not None:
                    one.feed.write(backlog)
                drained = drain(job.cluster, one.contestant, backlog=backlog, broker_pid=broker.pid)
                results.rounds.setdefault(one.name, []).append(drained)
                note(f"round {number}: {one.contestant.name} {drained.per_s:,.0f}/s")
        require_same_rows(
            {one.contestant.name: job.rows(one.contestant) for one in chosen if one.feed is None},
            feed.sent_by_account(),
        )
    return results


def require_same_rows(found: Mapping[str, Mapping[str, Mapping[str, Any]]], sent: Mapping[str, int]) -> None:
    """Every contestant counted every payment exactly once, and came to the same rows.

    Raises:
        RuntimeError: one did not; its figures mean nothing.
    """
    first: Mapping[str, Mapping[str, Any]] | None = None
    for name, rows in found.items():
        counted = {account: row["payments"] for account, row in rows.items()}
        if counted != dict(sent):
            raise RuntimeError(f"{name} counted {sum(counted.values())} payments, {sum(sent.values())} were written")
        first = rows if first is None else first
        if rows != first:
            raise RuntimeError(f"{name} and {next(iter(found))} came to different rows")


def summary(found: dict[str, list[Drained]]) -> dict[str, dict[str, Any]]:
    """What the table and the JSON file show, by contestant."""
    raw_per_s = median([one.per_s for one in found[RAW]]) if RAW in found else None
    raw_thread_us = median([one.thread_cpu_us for one in found[RAW]]) if RAW in found else None
    made: dict[str, dict[str, Any]] = {}
    for name, drained in found.items():
        rates = [one.per_s for one in drained]
        made[name] = {
            "events_per_s": round(median(rates)),
            "ratio": None if raw_per_s is None else round(median(rates) / raw_per_s, 3),
            "spread": round(spread(rates), 2),
            "rounds": [round(rate) for rate in rates],
            "thread_cpu_us_per_event": round(median([one.thread_cpu_us for one in drained]), 2),
            "raw_thread_cpu_share": None
            if raw_thread_us is None
            else round(raw_thread_us / median([one.thread_cpu_us for one in drained]), 3),
            "worker_cpu_us_per_event": round(median([one.worker_cpu_us for one in drained]), 2),
            "broker_cpu_us_per_event": round(median([one.broker_cpu_us for one in drained]), 2),
            "first_commit_s": round(median([one.first_commit_s for one in drained]), 2),
        }
    return made


def run(context: Context) -> Iterator[Measure]:
    """The measures of the table."""
    results = measure(
        [name for name in NAMES if name != RAW_EVERY_ROW or not context.quick],
        rounds=context.rounds_in_time(full=5, quick=2),
        events=context.size(full=200_000, quick=40_000),
        keys=1_000,
        note=context.note,
    )
    found = results.rounds
    made = summary(found)
    for agent in AGENTS:
        contestant = f"choreo-{agent.replace('_', '-')}"
        yield BENCH.measure(
            f"throughput_{agent}",
            [one.per_s for one in found[contestant]],
            unit="events/s",
            raw=[one.per_s for one in found[RAW]],
            note="tracing off; ratio to the raw loop with one header and a row per account and transaction",
            details={
                "ours": made[contestant],
                "raw": made[RAW],
                "raw_same_bytes": made[RAW_SAME_BYTES],
                "raw_every_row": made.get(RAW_EVERY_ROW),
            },
        )
    best = [one.per_s for one in found["choreo-off-memory"]]
    for peer in peers.NAMES:
        name = f"throughput_against_{peer}"
        if peer in results.absent:
            yield BENCH.skip(name, results.absent[peer])
            continue
        yield BENCH.measure(
            name,
            best,
            unit="events/s",
            raw=[one.per_s for one in found[peer]],
            note=f"raw and ratio: {peer} {peers.version(peer)}, exactly once, JSON; decisions off, memory store",
            details={peer: made[peer]},
        )


BENCH = Bench(
    measures={
        "throughput_off_memory": (
            "exactly-once events/s, one worker, decisions off, memory store",
            at_least(0.6, "ratio", "≥ 0.6 × raw"),
        ),
        "throughput_off_rocksdb": ("the same, RocksDB store", at_least(0.4, "ratio", "≥ 0.4 × raw")),
        "throughput_brief_memory": (
            "exactly-once events/s, one worker, decisions brief, memory store",
            at_least(0.45, "ratio", "≥ 0.45 × raw"),
        ),
        "throughput_brief_rocksdb": ("the same, RocksDB store", at_least(0.4, "ratio", "≥ 0.4 × raw")),
        "throughput_against_quix": (
            "exactly-once events/s, decisions off, against Quix Streams",
            at_least(2, "ratio", "≥ 2 × Quix Streams"),
        ),
        "throughput_against_faust": (
            "exactly-once events/s, decisions off, against plain Faust",
            at_least(15, "ratio", "≥ 15 × Faust"),
        ),
    },
    run=run,
    deadline_s=1_500,
    quick_deadline_s=240,
)


def show(console: Console, made: dict[str, dict[str, Any]]) -> None:
    table = Table(title="exactly-once throughput, one worker")
    for title in (
        "",
        "events/s",
        "÷ raw",
        "spread",
        "thread CPU µs",
        "raw's ÷ it",
        "worker CPU µs",
        "broker CPU µs",
        "first commit s",
    ):
        table.add_column(title, justify="left" if not title else "right")
    for name, one in made.items():
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
        table.add_row(
            name,
            f"{one['events_per_s']:,}",
            ratio,
            f"{one['spread']:.0%}",
            f"{one['thread_cpu_us_per_event']:.1f}",
            "" if one["raw_thread_cpu_share"] is None else f"{one['raw_thread_cpu_share']:.2f}",
            f"{one['worker_cpu_us_per_event']:.1f}",
            f"{one['broker_cpu_us_per_event']:.1f}",
            f"{one['first_commit_s']:.2f}",
        )
    console.print(table)


def profile(console: Console, name: str, *, events: int, keys: int, native: bool, top: int, out: Path) -> None:
    """Runs one contestant under py-spy and prints where its time goes, in microseconds of CPU per event."""
    tool = py_spy()
    if tool is None:
        raise SystemExit("py-spy is not installed: pip install py-spy")
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"profile-{name}.txt"
    recordings: list[Recording] = []

    def attach(worker: Process) -> None:
        recordings.append(Recording(tool, worker.pid, file, native=native))

    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        job = Scoring(broker.bootstrap, Path(folder))
        feed = PaymentFeed(broker.bootstrap, SOURCE, job.ids["Payment"], keys=keys, seed=SEED)
        (entrant,) = (
            one for one in entrants(job, (name,), keys, {}, lambda _: None) if one.contestant.name != "raw-again"
        )
        (entrant.feed or feed).write(events // entrant.share)
        drained = drain(
            job.cluster, entrant.contestant, backlog=events // entrant.share, broker_pid=broker.pid, on_warm=attach
        )
        for recording in recordings:
            recording.wait(RECORDING_S)
    show(console, summary({name: [drained]}))
    thread = "choreo-engine" if name.startswith("choreo") else "MainThread"
    print_profile(console, read(file, thread), event_us=drained.thread_cpu_us, top=top)
    console.print(f"samples: {file} (one stack per line; any flame graph tool reads it)")


def print_profile(console: Console, found: Profile, *, event_us: float, top: int) -> None:
    """Self time by function, then the time spent below each function."""
    if not found.samples:
        raise SystemExit("py-spy recorded nothing of that thread")
    for title, counts in (("self time", found.self_samples), ("with what it calls", found.under_samples)):
        table = Table(title=f"{title}: µs of the thread's CPU per event, of {event_us:.1f}")
        table.add_column("µs", justify="right")
        table.add_column("share", justify="right")
        table.add_column("function", overflow="fold")
        for function, count in counts.most_common(top):
            share = count / found.samples
            table.add_row(f"{share * event_us:.2f}", f"{share:.1%}", function)
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=200_000, help="of each round")
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--profile", action="store_true", help="py-spy on the first NAME of --only instead of rounds")
    parser.add_argument("--native", action="store_true", help="with --profile: C functions too")
    parser.add_argument("--top", type=int, default=40, help="with --profile: functions to print")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    if given.profile:
        name = given.only[0] if len(given.only) < len(NAMES) else "choreo-off-memory"
        profile(
            console,
            name,
            events=given.events,
            keys=given.keys,
            native=given.native,
            top=given.top,
            out=Path("build/bench"),
        )
        return
    status = console.status("starting") if sys.stdout.isatty() else None

    def note(text: str) -> None:
        if status is not None:
            status.update(text)

    before = load()
    if status is not None:
        status.start()
    try:
        results = measure(
            given.only, rounds=range(1, given.rounds + 1), events=given.events, keys=given.keys, note=note
        )
    finally:
        if status is not None:
            status.stop()
    made = summary(results.rounds)
    show(console, made)
    for why in results.absent.values():
        console.print(f"skipped: {why}")
    console.print(f"load average {before} before, {load()} after; {given.rounds} rounds of {given.events} events")
    if given.json is not None:
        parameters = {"rounds": given.rounds, "events": given.events, "keys": given.keys, "partitions": 4}
        result = {
            **header(parameters),
            "load": {"before": before, "after": load()},
            "contestants": made,
            "absent": results.absent,
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
