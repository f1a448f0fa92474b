"""One round: a fresh Kafka, the bank at work, faults by a seed, then healing, then every record looked at."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import machine
from choreo.testing.checkers import Findings, Report
from tests.chaos import reader
from tests.chaos.bank import collect, faults
from tests.chaos.bank.evidence import AGENTS, READS, TABLES, TOPICS, Commit, Evidence
from tests.chaos.bank.invariants import judge
from tests.chaos.bank.watch import Snapshots
from tests.chaos.bank.world import Kill, Stalled, World, now_ms
from tests.chaos.workers import STOP_TIMEOUT_S

WARM_DECISIONS: Final = 30
"""Each agent decides so much before the first fault."""
SNAPSHOTS_MAX: Final = 60
"""Of a round are judged, evenly over its time."""
LOST: Final = ("I1 lost", "I1 transfer without end", "I1 no dead letter", "I4 output missing", "I4 never seen")
REPORT: Final = "report.txt"
REPEATED: Final = ("I1 decided twice", "I1 transfer ended twice", "I1 dead twice", "I4 output twice", "I4 seen twice")


@dataclass(frozen=True)
class Result:
    """What a round came to; goes into the state file as it is."""

    seed: int
    number: int
    store: str
    ok: bool
    asked: int  # kills that the round was to make; others come with slow keys
    kills: int
    fired: Mapping[str, int]
    planned: Mapping[str, int]
    transfers: int
    decisions: int
    events: int
    dead_letters: int
    duplicates: int
    lost: int
    repeated: int
    problems: tuple[str, ...]
    snapshots: int
    ledger_calls: int
    ledger_repeated: int
    fenced: int  # workers that an heir of their last life met; they say CH0306 and are started again
    crashes: int  # workers that librdkafka ended while a broker was away or just back
    recover_s: tuple[float, ...]  # kill → first commit of the partitions, undisturbed ones
    heal_s: float
    fault_s: float
    seconds: float
    decisions_per_s: float
    state_hash: str
    commit: str
    folder: str = ""
    nodes: int = 1

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def play(
    folder: Path,
    *,
    seed: int,
    number: int,
    kills: int,
    store: str,
    nodes: int = 1,
    tell: Callable[[str], None] = lambda _: None,
) -> Result:
    """Plays one round and judges it. The folder stays if something was wrong.

    Args:
        folder: of this round alone.
        seed: of the whole run.
        number: of the round; both together decide everything that chance decides.
        kills: how many ``kill -9`` of workers there are at least.
        store: ``memory`` or ``rocksdb``.
        nodes: of Kafka, 1 or 3.
        tell: told in a few words what happens now.
    """
    shutil.rmtree(folder, ignore_errors=True)
    begun = time.monotonic()
    stalled = ""
    heal_s = fault_s = 0.0
    started_ms = now_ms()
    with World(folder, seed=f"s{seed}r{number}", store=store, nodes=nodes, tell=tell) as world:
        healed: dict[tuple[str, int], int] = {}
        snapshots: Snapshots | None = None
        try:
            tell("first transfers")
            world.feeder.every_kind()
            world.feeder.start()
            world.wait_decided(WARM_DECISIONS)
            snapshots = world.snapshots()
            began = time.monotonic()
            world.wait(lambda: len(world.at_work()) == len(world.everyone()), "all workers to be at work")
            world.disturbed("start", AGENTS, started_ms, after_ms=5_000)
            faults.run(world, kills)
            fault_s = time.monotonic() - began
            tell("healing")
            began = time.monotonic()
            healed = _heal(world)
            heal_s = time.monotonic() - began
            tell("stopping")
            _stop(world)
        except Stalled as error:
            stalled = str(error)
            (folder / REPORT).write_text(stalled, "utf-8")
            for worker in world.everyone():
                worker.dump_threads()
        if snapshots is not None:
            snapshots.stop()
        tell("looking at every record")
        evidence = _evidence(world, healed, [] if snapshots is None else snapshots.taken)
    judgement = judge(evidence)
    report = judgement.report
    if stalled:
        report = _with_stall(report, stalled)
    result = Result(
        seed=seed,
        number=number,
        store=store,
        nodes=nodes,
        ok=report.ok,
        asked=kills,
        kills=world.fired[faults.KILL] + world.fired[faults.KILL_AT_START],
        fired=dict(world.fired),
        planned=dict(world.planned),
        transfers=report.inputs,
        decisions=len(evidence.decisions),
        events=report.outputs,
        dead_letters=report.dead_letters,
        duplicates=sum(decision.outcome == "duplicate" for decision in evidence.decisions),
        lost=sum(report.found(kind) for kind in LOST),
        repeated=sum(report.found(kind) for kind in REPEATED),
        problems=tuple(str(problem) for problem in report.problems),
        snapshots=len(evidence.snapshots),
        ledger_calls=len(evidence.calls),
        ledger_repeated=len(evidence.calls) - len({call.key for call in evidence.calls}),
        fenced=len(world.fenced),
        crashes=len(world.crashed),
        recover_s=tuple(recoveries(world.kills, evidence)),
        heal_s=round(heal_s, 2),
        fault_s=round(fault_s, 1),
        seconds=round(time.monotonic() - begun, 1),
        decisions_per_s=round(len(evidence.decisions) / fault_s, 1) if fault_s else 0.0,
        state_hash=judgement.state_hash,
        commit=machine.commit(),
        folder="" if report.ok else folder.name,
    )
    if report.ok:
        shutil.rmtree(folder)
    else:
        (folder / REPORT).write_text(f"{report}\n{stalled}\n", "utf-8")
    return result


def _heal(world: World) -> dict[tuple[str, int], int]:
    """The last fault is over: everything has to get on, and everything that was asked for has to be decided."""
    world.wait(lambda: len(world.at_work()) == len(world.everyone()), "all workers to be at work")
    healed = {
        (topic, partition): end
        for agent in AGENTS
        for topic in READS[agent]
        for partition, end in reader.ends(world.bootstrap, topic).items()
    }
    world.feeder.halt()
    world.feeder.touch()
    transfers = len(world.feeder.fed.committed)
    world.wait(lambda: world.watch.settled(transfers), f"everything that {transfers} transfers lead to")
    return healed


def _stop(world: World) -> None:
    """All workers end the polite way; each has to exit with 0."""
    world.held.update(world.everyone())
    for worker in world.everyone():
        worker.ask_to_stop()
    for worker in world.everyone():
        code = worker.wait_exit(STOP_TIMEOUT_S)
        if code != 0:
            world.ended.append(f"{worker.name} was told to stop and ended with {code}: {worker.tail(12)}")


def _evidence(world: World, healed: dict[tuple[str, int], int], snapshots: list[Any]) -> Evidence:
    bootstrap, wires = world.bootstrap, world.wires
    world.kafka.start()  # a stall may have left a broker away
    decisions = [collect.decision(record, wires) for record in reader.read(bootstrap, collect.DECISIONS_TOPIC)]
    patience = time.monotonic() + 10
    while len(world.watch.seen) < len(decisions) and time.monotonic() < patience:
        world.watch.poll()
        time.sleep(0.05)
    every = max(1, -(-len(snapshots) // SNAPSHOTS_MAX))
    return Evidence(
        fed=world.feeder.fed,
        events={topic: collect.events(bootstrap, topic, wires.events[topic]) for topic in TOPICS},
        changes={TABLES[agent]: collect.changes(bootstrap, agent, wires.rows[agent]) for agent in AGENTS},
        decisions=decisions,
        letters=collect.letters(bootstrap),
        committed=collect.committed(bootstrap),
        commits=collect.commits(bootstrap),
        snapshots=snapshots[::every],
        zombies=world.zombies,
        calls=collect.calls(world.ledger_file),
        disturbances=[*world.disturbances, *world.rebalances()],
        seen=list(world.watch.seen),
        healed=healed,
        planned=dict(world.planned),
        fired=dict(world.fired),
        ended=list(world.ended),
    )


def recoveries(kills: list[Kill], evidence: Evidence) -> list[float]:
    """Seconds from a kill to the first commit of the worker that was started at once in the victim's place.

    The commit with which a worker takes its partitions on does not count: it has to get on with one. Left out are
    kills into whose recovery another fault of this worker or of the whole agent fell.
    """
    moved = _progress(evidence.commits)
    faults_only = [one for one in evidence.disturbances if one.kind != "rebalance"]
    found = []
    for kill in kills:
        ends = (commit.at_ms for commit in moved if commit.owner == kill.owner and commit.at_ms > kill.at_ms)
        first = min(ends, default=None)
        if first is None:
            continue
        others = (
            one
            for one in faults_only
            if kill.agent in one.agents and one.worker in ("", kill.owner)
            if one.from_ms != kill.at_ms and one.from_ms < first and one.to_ms > kill.at_ms
        )
        if next(others, None) is None:
            found.append(round((first - kill.at_ms) / 1_000, 3))
    return found


def _progress(commits: list[Commit]) -> list[Commit]:
    """Commits that say something else than the one before them of the same partition."""
    last: dict[tuple[str, str, int], tuple[int, str]] = {}
    moved = []
    for commit in commits:
        place = (commit.group, commit.topic, commit.partition)
        if last.get(place) != (commit.offset, commit.metadata):
            moved.append(commit)
        last[place] = (commit.offset, commit.metadata)
    return moved


def _with_stall(report: Report, text: str) -> Report:
    """The report, with the stall before everything else."""
    findings = Findings()
    findings.add("stalled", text.partition("\n")[0])
    return Report(
        report.inputs,
        report.outputs,
        report.keys,
        report.dead_letters,
        report.faults,
        (*findings.problems(), *report.problems),
    )


def spread(seconds: list[float]) -> tuple[float, float]:
    """Median and 99th percentile; zeros if there is nothing."""
    if not seconds:
        return 0.0, 0.0
    ordered = sorted(seconds)
    return round(statistics.median(ordered), 2), round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2)
