"""Simulated worlds keep the promises, whatever happens in them, and come to rest once the faults end.

CHOREO_SIM_SEED=17 pytest tests/kernel/test_worlds.py runs one world; ``python -m tests.kernel.world --seed 17`` tells
what happens in it; ``make sim SEEDS=0-20000`` runs as many as wanted.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cache
from typing import NamedTuple

import pytest

from tests.kernel.points import POINTS, SIDES, Side
from tests.kernel.world import HEAL_ROUNDS_MAX, World, run_world

pytestmark = pytest.mark.sim

SEEDS = 500
FAST_SEEDS = 150
BLOCK = 50
FAULTS = {
    # of processes
    "crash",
    "crash and session expired",
    "dies giving up",
    "pause",
    "continue",
    "stop",
    "stopped",
    "stopped within a transaction past its session",
    "started twice",
    "start",
    # of the group and its callbacks
    "session expired",
    "cut off from its group",
    "lost",
    "displaced",
    "displaced by nobody",
    "fenced",
    "zombie begins",
    "refused: rebalancing",
    "refused: unknown member",
    "joins again",
    # of the bus
    "commit aborted",
    "commit unknown, committed",
    "commit unknown, not committed",
    "commit acknowledged late",
    "commit fails for good, committed",
    "commit fails for good, not committed",
    "abort not acknowledged",
    "offsets not sent",
    "offsets refused",
    "offsets acknowledged late",
    "record not acknowledged",
    "flush took too long",
    "queue full",
    "transaction timed out",
    "read again",
    "slow partition",
    "consumer error",
    "consumer broken",
    "assignment refused",
    "cluster away",
    "coordinator moves",
    "leader moves",
    # of time
    "clock jumps forward",
    "clock jumps back",
    # of people
    "retry",
    "drop",
    "redrive",
}


class Block(NamedTuple):
    """What some worlds together met."""

    faults: Counter[str]
    hits: Counter[tuple[str, Side]]
    crashed_at: Counter[tuple[str, Side]]
    rounds: int


@cache
def block(first: int) -> Block:
    found = Block(Counter(), Counter(), Counter(), 0)
    for seed in range(first, first + BLOCK):
        found = add(found, run_world(seed))
    return found


def add(found: Block, world: World) -> Block:
    return Block(
        found.faults + world.faults,
        found.hits + world.hits.counts,
        found.crashed_at + world.crashed_at,
        max(found.rounds, *world.rounds.values()),
    )


def _blocks() -> list[object]:
    return [
        pytest.param(first, id=f"{first}-{first + BLOCK}", marks=pytest.mark.slow if first >= FAST_SEEDS else ())
        for first in range(0, SEEDS, BLOCK)
    ]


@pytest.mark.skipif("CHOREO_SIM_SEED" in os.environ, reason="one world was asked for")
@pytest.mark.parametrize("first", _blocks())
def test_worlds_keep_the_promises(first: int) -> None:
    block(first)


@pytest.mark.skipif("CHOREO_SIM_SEED" not in os.environ, reason="no world was asked for")
def test_the_world_that_was_asked_for() -> None:
    run_world(int(os.environ["CHOREO_SIM_SEED"]))


@pytest.mark.slow
def test_every_fault_happens_and_every_point_is_passed() -> None:
    met = [block(first) for first in range(0, SEEDS, BLOCK)]
    faults = sum((one.faults for one in met), Counter[str]())
    hits = sum((one.hits for one in met), Counter[tuple[str, Side]]())
    assert not FAULTS - set(faults), "these faults did not happen"
    assert not {(name, side) for name in POINTS for side in SIDES} - set(hits), "these points were not passed"


@pytest.mark.slow
def test_worlds_rest_soon_after_the_faults_end() -> None:
    assert max(block(first).rounds for first in range(0, SEEDS, BLOCK)) < HEAL_ROUNDS_MAX // 2


def test_a_world_is_its_seed() -> None:
    first, second = run_world(3), run_world(3)
    assert first.faults == second.faults
    assert first.hits.counts == second.hits.counts
    assert (first.now_ms, first.mono_s) == (second.now_ms, second.mono_s)
