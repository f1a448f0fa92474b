"""What one ``kill -9`` does to plain Faust with ``exactly_once``, and to choreo: the reason for an engine of our own.

    python -m benchmarks.faust_kill [--events 20000] [--engines faust choreo] [--json FILE]

One worker, 200 accounts, a table counter and one output per event. The input lies in Kafka; when a third of the outputs
is committed the worker is killed and started again at once. It has done when every event has its output, or when
nothing new was committed for ``STALLED_S``. Then everything is read at read_committed, from outside:

- *lost*: events without an output although the group's committed offset is past them: nobody will read them again;
- *left*: events without an output that are still to be read;
- *repeated*: outputs beyond the first of an event;
- *wrong counters*: accounts whose newest changelog row does not count the events that were sent for them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from fastavro import schemaless_reader
from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.feed import PaymentFeed
from benchmarks.machine import header, load
from benchmarks.measure import Bench, Context, Measure, at_most
from benchmarks.raw_loop import PREFIX_BYTES, schema_of
from benchmarks.scoring import PARTITIONS, SOURCE, TOPOLOGY, Contestant, Scoring
from choreo.runtime.broker import EmbeddedBroker
from choreo.topology import names

KEYS: Final = 200
KILL_SHARE: Final = 1 / 3
START_S: Final = 90.0
STALLED_S: Final = 120.0
"""Without a new output it counts as stalled: Faust was seen to come back after a minute."""
QUIET_S: Final = 3.0
"""After the number of outputs that was expected: repeated ones may follow."""
LOOK_S: Final = 0.05
SEED: Final = 4
ENGINES: Final = ("faust", "choreo")

Note = Callable[[str], None]


@dataclass(frozen=True)
class Counted:
    """What is true after one kill."""

    events: int
    lost: int
    left: int
    repeated: int
    wrong_counters: int
    accounts: int
    committed_at_kill: int
    resumed_s: float | None  # from the restart to the next committed output; None: never
    stalled: bool  # gave up waiting for the missing outputs

    @property
    def faults(self) -> int:
        return self.lost + self.left + self.repeated + self.wrong_counters


def measure(engine: str, *, events: int, note: Note) -> Counted:
    """Kills one worker once.

    Raises:
        AbsentPeerError: Faust cannot be installed here.
        RuntimeError: the worker did nothing before it could be killed.
    """
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        job = Scoring(broker.bootstrap, Path(folder))
        contestant, source, schema_id, group = _contestant(engine, job)
        feed = PaymentFeed(broker.bootstrap, source, schema_id, keys=KEYS, seed=SEED)
        note(f"{engine}: writing {events} events")
        feed.write(events)

        def outputs() -> int:
            return sum(job.cluster.committed_ends(contestant.output, range(PARTITIONS)).values())

        with contestant.start() as worker:
            note(f"{engine}: working")
            ends_s = time.monotonic() + START_S
            while outputs() < events * KILL_SHARE:
                worker.require_alive()
                if time.monotonic() > ends_s:
                    raise RuntimeError(f"{engine} was too slow to be killed at work\n{worker.tail()}")
                time.sleep(LOOK_S)
            worker.kill()
            at_kill = outputs()
        with contestant.start():
            resumed_s, stalled = _wait_done(outputs, at_kill, events, lambda text: note(f"{engine}: {text}"))
        note(f"{engine}: reading what it did")
        return _count(job, engine, contestant, source, group, feed, events, at_kill, resumed_s, stalled)


def _contestant(engine: str, job: Scoring) -> tuple[Contestant, str, int | None, str]:
    """Worker, its input, the schema of that (None: JSON), its group."""
    if engine == "choreo":
        return job.choreo("off_memory"), SOURCE, job.ids["Payment"], names.group(TOPOLOGY, "off_memory")
    source, output = f"{engine}.payments", f"{engine}.scored"
    found = peers.contestant(engine, job.bootstrap, job.folder, source=source, output=output)
    job.cluster.create([source, output], partitions=PARTITIONS)
    return replace(found, changelog="faust-peer-accounts-changelog"), source, None, "faust-peer"


def _wait_done(outputs: Callable[[], int], at_kill: int, events: int, note: Note) -> tuple[float | None, bool]:
    """Seconds until it went on, and whether it stopped short."""
    started_s = since_s = time.monotonic()
    seen, resumed_s = at_kill, None
    while True:
        now, at_s = outputs(), time.monotonic()
        if now != seen:
            seen, since_s = now, at_s
            note(f"{now} outputs and commit markers after the restart")
            if resumed_s is None:
                resumed_s = at_s - started_s
        still_s = at_s - since_s
        if still_s > STALLED_S:
            return resumed_s, True
        if resumed_s is not None and seen >= events and still_s > max(QUIET_S, resumed_s):
            return resumed_s, False
        time.sleep(LOOK_S)


def _count(
    job: Scoring,
    engine: str,
    contestant: Contestant,
    source: str,
    group: str,
    feed: PaymentFeed,
    events: int,
    at_kill: int,
    resumed_s: float | None,
    stalled: bool,
) -> Counted:
    everything = dict.fromkeys(range(PARTITIONS), 0)
    decode = _decoder("PaymentScored", json_values=engine != "choreo")
    outputs = Counter(decode(one.value())["number"] for one in job.cluster.read(contestant.output, everything))
    decode_row = _decoder("Account", json_values=engine != "choreo")
    rows: dict[bytes, int] = {}
    for one in job.cluster.read(contestant.changelog, everything):
        rows[one.key().strip(b'"')] = decode_row(one.value())["payments"]
    counters = {name.encode(): count for name, count in feed.sent_by_account().items()}
    decode_event = _decoder("Payment", json_values=engine != "choreo")
    done = job.cluster.committed_offsets(group)
    lost = left = 0
    for one in job.cluster.read(source, everything):
        if decode_event(one.value())["number"] not in outputs:
            if one.offset() < done.get((source, one.partition()), 0):
                lost += 1
            else:
                left += 1
    return Counted(
        events=events,
        lost=lost,
        left=left,
        repeated=sum(outputs.values()) - len(outputs),
        wrong_counters=sum(rows.get(name, 0) != count for name, count in counters.items()),
        accounts=len(counters),
        committed_at_kill=at_kill,
        resumed_s=None if resumed_s is None else round(resumed_s, 1),
        stalled=stalled and left > 0,
    )


def _decoder(schema: str, *, json_values: bool) -> Callable[[bytes], dict[str, Any]]:
    if json_values:
        return lambda data: dict(json.loads(data))
    parsed = schema_of(schema)

    def decode(data: bytes) -> dict[str, Any]:
        value: Any = schemaless_reader(BytesIO(data[PREFIX_BYTES:]), parsed, None)
        return dict(value)

    return decode


def run(context: Context) -> Iterator[Measure]:
    """One kill each."""
    events = context.size(full=20_000, quick=6_000)
    for engine in ENGINES:
        name = f"kill_{engine}"
        if engine == "faust" and context.quick:
            yield BENCH.skip(name, "Faust's recovery alone takes more than a minute: in full runs only")
            continue
        try:
            counted = measure(engine, events=events, note=context.note)
        except peers.AbsentPeerError as error:
            yield BENCH.skip(name, f"{engine} cannot be installed here: {error}")
            continue
        note = "lost + left + repeated + wrong counters after one kill -9 of one worker"
        if engine == "faust":
            note = f"faust-streaming {peers.version('faust')}, processing_guarantee=exactly_once; {note}"
        yield BENCH.measure(name, [counted.faults], unit="faults", note=note, details=asdict(counted))


BENCH = Bench(
    measures={
        "kill_faust": ("plain Faust, exactly_once: faults after one kill -9", None),
        "kill_choreo": ("choreo: faults after one kill -9", at_most(0, "value", "0")),
    },
    run=run,
    deadline_s=500,
    quick_deadline_s=90,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faust_kill", description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    before = load()
    found: dict[str, Counted] = {}
    with console.status("starting") as status:
        for engine in given.engines:
            found[engine] = measure(engine, events=given.events, note=status.update)
    table = Table(title=f"one kill -9 among {given.events:,} events, one worker")
    for title in ("", "lost", "left", "repeated", "wrong counters", "went on after", "stalled"):
        table.add_column(title, justify="right" if title else "left")
    for engine, one in found.items():
        table.add_row(
            engine,
            f"{one.lost:,}",
            f"{one.left:,}",
            f"{one.repeated:,}",
            f"{one.wrong_counters} of {one.accounts}",
            "never" if one.resumed_s is None else f"{one.resumed_s:.1f} s",
            "yes" if one.stalled else "no",
        )
    console.print(table)
    if given.json is not None:
        result = {
            **header({"events": given.events, "keys": KEYS, "kills": 1}),
            "load": {"before": before, "after": load()},
            "engines": {engine: asdict(one) for engine, one in found.items()},
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
