"""Many rounds, over several sittings if need be: a state file remembers what was done, a report sums it up."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import header
from tests.chaos.bank.child import play_apart
from tests.chaos.bank.faults import KINDS
from tests.chaos.bank.round import Result, spread

KILLS_PER_ROUND: Final = 50
"""Longer rounds hold more in memory to be judged; shorter ones spend their time on starting and stopping."""
STORES: Final = ("memory", "rocksdb")
STATE_FORMAT: Final = 1
BROKEN_OFF_MAX: Final = 3
"""Rounds whose own process died (see child.py), in a row; more are no accident."""
CHECKS: Final = (
    "I1 each event is decided once, each transfer ends once, each poisoned event is one dead letter",
    "I2 the money adds up at the end, and in each snapshot with what is in flight",
    "I3 changelog = fold = model; every row that a worker held = the model's",
    "I4 read_committed outputs = an independent model's, ordered per key, the same for two readers",
    "I5 no commit by a zombie, no offset goes back",
    "I6 after the last fault lag 0 and success in every partition",
    "I7 causation leads to the root, ids as computed independently",
    "I8 every planned fault fired",
)


@dataclass(frozen=True)
class Campaign:
    """What is to be done.

    Args:
        kills: of workers, over all rounds of the state file.
        seed: of the whole run.
        minutes: no new round is begun after so long; 0: no limit.
        folder: for the state file, the report, and what failing rounds leave.
        only: play this round again, and nothing else.
        nodes: of Kafka, 1 or 3.
    """

    kills: int
    seed: int
    minutes: float
    folder: Path
    only: int | None = None
    nodes: int = 1

    @property
    def parameters(self) -> dict[str, int]:
        return {"kills": self.kills, "seed": self.seed, "nodes": self.nodes}

    @property
    def state_file(self) -> Path:
        return self.folder / "chaos-state.json"

    @property
    def report_file(self) -> Path:
        return self.folder / "chaos.json"


def store_of(number: int) -> str:
    """Memory and RocksDB take turns."""
    return STORES[number % len(STORES)]


def replay_command(result: Result) -> str:
    """The one command that plays a round again."""
    nodes = "" if result.nodes == 1 else f" NODES={result.nodes}"
    return f"make chaos SEED={result.seed} ROUND={result.number} KILLS={result.asked}{nodes}"


def run(campaign: Campaign, *, resume: bool, tell: Callable[[str], None], done: Callable[[Result], None]) -> bool:
    """Plays rounds until enough kills were made, or a round failed, or time is up.

    Args:
        campaign: what is to be done.
        resume: go on where the state file ends; otherwise begin anew.
        tell: told in a few words what happens now.
        done: told about each finished round.

    Returns:
        Whether every round of the state file was right.
    """
    begun = time.monotonic()
    campaign.folder.mkdir(parents=True, exist_ok=True)
    if campaign.only is not None:
        result = _play(campaign, campaign.only, campaign.kills, tell)
        if result is not None:
            done(result)
        return result is not None and result.ok
    rounds = load(campaign.state_file) if resume else Rounds([], [])
    if not resume:
        campaign.state_file.unlink(missing_ok=True)
    in_a_row = 0
    while (made := rounds.kills) < campaign.kills and in_a_row < BROKEN_OFF_MAX:
        if campaign.minutes and time.monotonic() - begun > campaign.minutes * 60:
            break
        number = rounds.next_number(campaign.seed)
        result = _play(campaign, number, min(KILLS_PER_ROUND, campaign.kills - made), tell)
        in_a_row = in_a_row + 1 if result is None else 0
        if result is None:
            rounds.broken_off.append((campaign.seed, number))
        else:
            rounds.played.append(result)
        _write(campaign.state_file, rounds.as_json())
        _write(campaign.report_file, report(rounds, campaign.parameters))
        if result is not None:
            done(result)
            if not result.ok:
                break
    return in_a_row < BROKEN_OFF_MAX and rounds.ok


def _play(campaign: Campaign, number: int, kills: int, tell: Callable[[str], None]) -> Result | None:
    folder = campaign.folder / f"chaos-{campaign.seed}-{number}"
    return play_apart(
        folder,
        seed=campaign.seed,
        number=number,
        kills=kills,
        store=store_of(number),
        nodes=campaign.nodes,
        tell=tell,
    )


@dataclass(frozen=True)
class Rounds:
    """All rounds of all sittings.

    Args:
        played: rounds with a result.
        broken_off: (seed, number) of rounds whose own process died; they prove nothing, in either direction.
    """

    played: list[Result]
    broken_off: list[tuple[int, int]]

    @property
    def kills(self) -> int:
        return sum(result.kills for result in self.played)

    @property
    def ok(self) -> bool:
        return all(result.ok for result in self.played)

    def next_number(self, seed: int) -> int:
        numbers = [result.number for result in self.played if result.seed == seed]
        return max([0, *numbers, *(number for other, number in self.broken_off if other == seed)]) + 1

    def as_json(self) -> dict[str, Any]:
        return {
            "format": STATE_FORMAT,
            "rounds": [result.as_json() for result in self.played],
            "broken_off": self.broken_off,
        }


def load(file: Path) -> Rounds:
    """Rounds of earlier sittings; none if there is no file."""
    if not file.exists():
        return Rounds([], [])
    body = json.loads(file.read_text("utf-8"))
    assert body["format"] == STATE_FORMAT, f"{file.name} has format {body['format']}, expected {STATE_FORMAT}"
    names = {field.name for field in fields(Result)}
    played = [Result(**{name: value for name, value in one.items() if name in names}) for one in body["rounds"]]
    return Rounds(played, [(seed, number) for seed, number in body["broken_off"]])


def _write(file: Path, body: dict[str, Any]) -> None:
    """All or nothing: a sitting may end at any moment."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(body, indent=1) + "\n", "utf-8")
    fresh.replace(file)


def report(rounds: Rounds, parameters: dict[str, Any]) -> dict[str, Any]:
    """What all rounds together amount to."""
    results = rounds.played
    fired: Counter[str] = Counter()
    for result in results:
        fired.update(result.fired)
    recover = [seconds for result in results for seconds in result.recover_s]
    median, p99 = spread(recover)
    kills = sum(result.kills for result in results)
    return {
        **header(parameters),
        "ok": all(result.ok for result in results),
        "rounds": len(results),
        "rounds_broken_off": rounds.broken_off,
        "workers_fenced_by_an_heir": sum(result.fenced for result in results),
        "workers_ended_by_librdkafka": sum(result.crashes for result in results),
        "seeds": sorted({result.seed for result in results}),
        "brokers": dict(Counter(str(result.nodes) for result in results)),
        "stores": dict(Counter(result.store for result in results)),
        "commits": sorted({result.commit for result in results}),
        "kills": kills,
        "kills_missed_rate_95": round(3 / kills, 5) if kills and all(result.ok for result in results) else None,
        "faults": {kind: fired[kind] for kind in KINDS},
        "transfers": sum(result.transfers for result in results),
        "decisions": sum(result.decisions for result in results),
        "events": sum(result.events for result in results),
        "dead_letters": sum(result.dead_letters for result in results),
        "duplicates_dropped": sum(result.duplicates for result in results),
        "snapshots": sum(result.snapshots for result in results),
        "ledger_calls": sum(result.ledger_calls for result in results),
        "ledger_calls_repeated": sum(result.ledger_repeated for result in results),
        "lost": sum(result.lost for result in results),
        "repeated": sum(result.repeated for result in results),
        "problems": [
            {"replay": replay_command(result), "commit": result.commit, "problems": list(result.problems)}
            for result in results
            if not result.ok
        ],
        "checks": list(CHECKS),
        "kill_to_first_commit_s": {"median": median, "p99": p99, "of": len(recover)},
        "heal_s_max": max((result.heal_s for result in results), default=0.0),
        "seconds": round(sum(result.seconds for result in results), 1),
        "seconds_per_kill": round(sum(result.seconds for result in results) / kills, 2) if kills else None,
        "decisions_per_s": round(
            sum(result.decisions for result in results) / max(1.0, sum(result.fault_s for result in results)), 1
        ),
        "by_round": [
            {
                "seed": result.seed,
                "round": result.number,
                "store": result.store,
                "kills": result.kills,
                "ok": result.ok,
                "state_hash": result.state_hash[:16],
                "seconds": result.seconds,
            }
            for result in results
        ],
    }
