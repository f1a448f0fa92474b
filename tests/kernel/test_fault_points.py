"""A worker may die, or be thought dead, before and after each fault point in each kind of step.

The fast tier strikes at every point on both sides in one kind of step each; the rest of ``make test`` in every kind.
A failure names the command that replays it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import cycle

import pytest

from tests.kernel.checks import Broken
from tests.kernel.points import POINTS, SIDES, Side
from tests.kernel.sweep import BLOWS, KINDS, Target, calm, strike, targets

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def passed() -> dict[tuple[str, Side], dict[str, int]]:
    """Point and side to the kinds that pass it, and how often."""
    found: dict[tuple[str, Side], dict[str, int]] = {}
    for kind in KINDS:
        for place, count in calm(kind).hits.counts.items():
            found.setdefault(place, {})[kind] = count
    return found


def test_each_point_is_passed_on_both_sides_by_some_kind_of_step(
    passed: dict[tuple[str, Side], dict[str, int]],
) -> None:
    missed = {(name, side) for name in POINTS for side in SIDES} - set(passed)
    assert not missed, sorted(missed)


@pytest.mark.parametrize("blow", BLOWS)
def test_a_blow_at_each_point_breaks_nothing(blow: str, passed: dict[tuple[str, Side], dict[str, int]]) -> None:
    struck: Counter[tuple[str, Side]] = Counter()
    for target in _one_kind_each(blow, passed):
        strike(target)
        struck[target.point, target.side] += 1
    assert set(struck) == set(passed)


def _one_kind_each(blow: str, passed: dict[tuple[str, Side], dict[str, int]]) -> Iterator[Target]:
    """The kinds take turns, so that each has its points."""
    turns = cycle(range(len(KINDS)))
    for (name, side), kinds in passed.items():
        kind = sorted(kinds)[(next(turns) + BLOWS.index(blow)) % len(kinds)]
        yield Target(kind, name, side, (kinds[kind] + 1) // 2, blow)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_blow_at_any_point_in_each_kind_of_step_breaks_nothing(kind: str) -> None:
    struck = [strike(target) for target in targets(kind, counts=1)]
    assert len(struck) == len(BLOWS) * len(calm(kind).hits.counts)


def test_an_heir_ends_the_transaction_that_a_dead_worker_left_open() -> None:
    assert calm("an abandoned transaction").faults["ends transaction of"]


def test_a_blow_that_does_not_fall_is_noticed() -> None:
    with pytest.raises(Broken, match="the blow never fell"):
        strike(Target("an event", "park", "before", 1, "crash"))
