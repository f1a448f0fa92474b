"""Crashes, zombies and dangling transactions at every fault point, on both sides, in every kind of step.

A *kind* is a small calm world: fixed input, no chance in its schedule. It runs once to learn which points it passes how
often; then once for each of them and each *blow*: the worker that passes the point is struck right there. The world
heals, and everything is checked that is checked of any world.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import choreo.kernel.burst as burst_module
import choreo.kernel.engine as engine_module
import choreo.kernel.partition as partition_module
from tests.kernel.checks import Broken
from tests.kernel.plans import PLAIN_CHARS, Plan, inputs
from tests.kernel.points import Side
from tests.kernel.process import Process
from tests.kernel.world import World

HEIRS_REST_ROUNDS: Final = 40
"""Rounds after which others have taken over and committed."""
ALONE_ROUNDS: Final = 20
STARTED: Final = 3
"""Rounds after which workers have left the marks of their first restores; actions are counted from here."""
_MANY: Final = tuple(f"0 e{number} " for number in range(8))
_TIGHT: Final = {
    (engine_module, "BUFFERED_RECORDS_MAX"): 1,
    (burst_module, "METADATA_CHARS_MAX"): PLAIN_CHARS,
    (partition_module, "METADATA_CHARS_MAX"): PLAIN_CHARS,
}

_HEIR_ASKS: Final = ("restore marks", "before")

Action = Callable[[World], None]


@dataclass(frozen=True)
class Kind:
    """A kind of step, in the smallest world that has it."""

    plan: Plan
    strikes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # fault of a client: which times
    actions: Mapping[int, Action] = field(default_factory=dict)  # rounds after STARTED: what happens then


def _plan(*values: str, **more: object) -> Plan:
    plan = Plan(partitions=1, workers=2, inputs=inputs(1, None), retries=1, values=values)
    return replace(plan, **more)  # type: ignore[arg-type]


def _first(world: World) -> Process:
    """The worker that has something to lose."""
    owners = [process for process in world.workers.values() if process.owned]
    return (owners or list(world.workers.values()))[0]


def _stop(world: World) -> None:
    _stop_within(world, 10.0)


def _stop_at_once(world: World) -> None:
    """Its last revocation finds something to commit."""
    _stop_within(world, 0.0)


def _stop_within(world: World, seconds: float) -> None:
    process = _first(world)
    process.shell._drain_until = world.mono_s + seconds
    process.shell._stopping.set()


def _cut_off(world: World) -> None:
    world.group.expire(_first(world).instance)


def _send(*values: str) -> Action:
    def send(world: World) -> None:
        for value in values:
            world._send_fixed(value)

    return send


KINDS: Final[dict[str, Kind]] = {
    "an event": Kind(_plan("0 e1 plain", "0 e2 plain")),
    "an event with a row": Kind(_plan("0 e1 ", "0 e1 ", "0 e1 forget", "0 e1 "), actions={12: _send("0 e1 ")}),
    "an event that emits": Kind(_plan("0 e1 many", "0 e2 many"), actions={12: _send("0 e1 many")}),
    "a timer": Kind(
        _plan("0 e1 timer", "0 e2 timer", "0 e2 cancel", "0 e3 ", "0 e3 ", "0 e3 "), actions={12: _send("0 e1 timer")}
    ),
    "a timer that is restored": Kind(
        _plan("0 e1 timer", "0 e2 timer", "0 e2 "), actions={12: _send("0 e1 "), 9: _cut_off, 14: _send("0 e1 cancel")}
    ),
    "a call": Kind(_plan("0 e1 call", "0 e2 call call", "0 e1 call", "0 e2 "), actions={9: _send("0 e2 call")}),
    "a retry": Kind(_plan("0 e1 flaky", "0 e1 ", "0 e2 flaky call")),
    "a parked event": Kind(_plan("0 e1 park", "0 e1 ", "0 e2 park call", "0 e1 timer")),
    "a dead letter": Kind(_plan("0 e1 broken", "0 e2 tired", "0 e1 ", "0  ", "0 e3 big")),
    "a duplicate": Kind(_plan("0 e1 ", "0 e1 again", "0 e1 ", "0 e1 again", inputs=inputs(1, 10**12))),
    "a burst over partitions": Kind(_plan(*_MANY, partitions=4), actions={12: _send(*_MANY)}),
    "two topics": Kind(
        _plan("0 e1 ", "1 e1 ", "0 e1 call", "1 e1 timer", "0 e2 ", "1 e2 ", inputs=inputs(2, None)),
        actions={12: _send("1 e1 ", "0 e1 ")},
    ),
    "rows on disk": Kind(_plan("0 e1 ", "0 e2 ", rocksdb=True), actions={12: _send("0 e1 ", "0 e2 forget")}),
    "a refused record": Kind(_plan("0 e1 ", "0 e2 rejected", "0 e1 ")),
    "an aborted burst": Kind(
        _plan("0 e1 ", "0 e1 ", "0 e2 timer"),
        strikes={"commit aborted": (2, 4)},
        actions={number: _send("0 e1 ") for number in range(3, 11)},
    ),
    "a commit of unknown outcome": Kind(
        _plan("0 e1 ", "0 e2 park"), strikes={"commit unknown, committed": (2,), "commit unknown, not committed": (3,)}
    ),
    "an orderly stop": Kind(_plan("0 e1 call", "0 e2 "), actions={8: _send("0 e1 "), 9: _stop}),
    "a stop without patience": Kind(
        _plan("0 e1 call", "0 e2 "), actions={8: _send("0 e1 ", "0 e2 "), 9: _stop_at_once}
    ),
    "a lost membership": Kind(_plan("0 e1 call", "0 e2 call"), actions={8: _send("0 e1 "), 9: _cut_off}),
    "backpressure": Kind(_plan("0 e1 call", "0 e2 ", "0 e3 ", "0 e1 ", "0 e4 ", bounds=_TIGHT)),
    "a broken consumer": Kind(_plan("0 e1 "), strikes={"consumer error": (4,), "consumer broken": (8,)}),
    "partitions of nobody": Kind(_plan(*_MANY, partitions=4), strikes={"dies giving up": (1,)}),
    "an abandoned transaction": Kind(
        _plan("0 e1 ", "0 e2 "), actions={14: _send("0 e1 ")}, strikes={"dies committing": (2,)}
    ),
    "an old coordinator": Kind(
        _plan("0 e1 ", "0 e2 "), actions={12: _send("0 e1 ")}, strikes={"coordinator behind": (2, 4, 5)}
    ),
    "an old leader": Kind(
        _plan("0 e1 ", "0 e1 "),
        actions={12: _send("0 e1 ")},
        strikes={"leader behind": (4, 5), "reader behind": tuple(range(1, 25))},
    ),
}


class Missed(Broken):
    """The point was not passed so often: the blow never fell."""


class Target(NamedTuple):
    """Where a blow falls."""

    kind: str
    point: str
    side: Side
    count: int
    blow: str

    def __str__(self) -> str:
        return f"{self.kind}, {self.blow} {self.side} {self.point} (time {self.count})"


class Blow:
    """Strikes the process that passes a point for the nth time; later does what belongs to it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.struck: Process | None = None
        self._round = -1
        self._next = getattr(self, f"_{target.blow.replace(' ', '_')}")

    def trap(self, process: Process, name: str, side: Side, count: int) -> None:
        target = self.target
        if self.struck is None and (name, side, count) == target[1:4]:
            self.struck = process
            world = process.world
            world.busy_until = max(world.busy_until, world.round + ROUNDS[target.blow])
            if target.blow in ("crash", "takeover"):
                process.crash_wanted = True
            else:
                process.paused = True
            if target.blow != "crash":
                process.world.group.expire(process.instance)
        elif target.blow == "late" and self.struck not in (None, process) and (name, side) == _HEIR_ASKS:
            assert self.struck is not None
            self.struck.paused = False

    def each_round(self, world: World) -> None:
        if self.struck is not None:
            self._round += 1
            self._next(world, self.struck, self._round)

    def _crash(self, world: World, struck: Process, after: int) -> None:
        """Its supervisor starts it again, under the same name."""

    def _takeover(self, world: World, struck: Process, after: int) -> None:
        """Others take over, it comes back later."""

    def _zombie(self, world: World, struck: Process, after: int) -> None:
        """It stops past its session; others take over; it goes on as if nothing had happened."""
        if after == HEIRS_REST_ROUNDS:
            struck.paused = False

    def _late(self, world: World, struck: Process, after: int) -> None:
        """It stops past its session and goes on while its heir restores."""
        if after == HEIRS_REST_ROUNDS:
            struck.paused = False

    def _last_zombie(self, world: World, struck: Process, after: int) -> None:
        """As a zombie, but its heirs are gone again when it goes on: its group is empty."""
        if after == HEIRS_REST_ROUNDS:
            for process in list(world.workers.values()):
                if process is not struck:
                    world.crash(process)
                    world.group.expire(process.instance)
            world.no_restarts = True
            struck.paused = False
        if after == HEIRS_REST_ROUNDS + ALONE_ROUNDS:
            world.no_restarts = False

    def _dangling(self, world: World, struck: Process, after: int) -> None:
        """A zombie dies once its records are in the log, behind those of its heir; then its heir dies."""
        if after == HEIRS_REST_ROUNDS:
            world.trap = _die_after_flush(struck)
            struck.paused = False
        if after == HEIRS_REST_ROUNDS + ALONE_ROUNDS:
            struck.paused = False
            world.trap = None
            world._send_fixed("0 e9 ")
        if after == HEIRS_REST_ROUNDS + 2 * ALONE_ROUNDS:
            for process in list(world.workers.values()):
                if process.owned:
                    world.crash(process)
                    world.group.expire(process.instance)


def _die_after_flush(struck: Process) -> Callable[[Process, str, Side, int], None]:
    def trap(process: Process, name: str, side: Side, count: int) -> None:
        if process is struck and (name, side) == ("flush", "after"):
            process.crash_wanted = True

    return trap


ROUNDS: Final = {
    "crash": 0,
    "takeover": 0,
    "late": 0,
    "zombie": HEIRS_REST_ROUNDS,
    "last zombie": HEIRS_REST_ROUNDS + ALONE_ROUNDS,
    "dangling": HEIRS_REST_ROUNDS + 2 * ALONE_ROUNDS,
}
"""How long a blow takes until all that belongs to it has happened."""
BLOWS: Final = tuple(ROUNDS)


def _world(kind: str, blow: Blow | None) -> World:
    chosen = KINDS[kind]
    world = World(0, plan=chosen.plan, trap=None if blow is None else blow.trap)
    world.planned_strikes = chosen.strikes

    def each_round(number: int) -> None:
        action = chosen.actions.get(number - STARTED)
        if action is not None and world.workers:
            action(world)
        if blow is not None:
            blow.each_round(world)

    world.each_round = each_round
    world.busy_until = STARTED + max(chosen.actions, default=0)
    return world


def calm(kind: str) -> World:
    """The kind without a blow, at rest."""
    world = _world(kind, None)
    world.run()
    return world


def targets(kind: str, *, counts: int) -> Iterator[Target]:
    """Every point the kind passes. ``counts``: of the times it is passed, the first, the last and some between."""
    for (name, side), total in calm(kind).hits.counts.items():
        times = {1 + round(step * (total - 1) / max(1, counts - 1)) for step in range(counts)}
        for count in sorted(times):
            for blow in BLOWS:
                yield Target(kind, name, side, count, blow)


def strike(target: Target) -> World:
    """The world with its blow, at rest, with all promises kept.

    Raises:
        Broken: a promise was not kept, or the blow never fell.
    """
    blow = Blow(target)
    world = _world(target.kind, blow)
    try:
        world.run()
    except Exception as error:
        raise Broken(f"{target}: {type(error).__name__}: {error}; replay: {replay(target)}") from error
    if blow.struck is None:
        raise Missed(f"{target}: the blow never fell; replay: {replay(target)}")
    return world


def replay(target: Target) -> str:
    return "python -m tests.kernel.sweep " + " ".join(f"'{part}'" for part in target)


if __name__ == "__main__":
    kind, point, side, count, blow = sys.argv[1:6]
    strike(Target(kind, point, "before" if side == "before" else "after", int(count), blow))
