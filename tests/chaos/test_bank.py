"""The small size of `make chaos`: two rounds of the bank, thirty kills, and every other fault at least once.

Everything that the rounds left in Kafka is judged by the eight invariants (docs/reliability.md). A round that fails
names the command that plays it again.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.chaos.bank.campaign import replay_command, store_of
from tests.chaos.bank.faults import KINDS
from tests.chaos.bank.round import Result, play
from tests.chaos.target import REPOSITORY

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]

SEED = 7
KILLS = 15
ROUNDS = (1, 2)


@cache
def played(number: int) -> Result:
    """A round, played once however many tests ask for it. Its folder stays if it failed."""
    folder: Path = REPOSITORY / "build" / f"chaos-test-{number}"
    return play(folder, seed=SEED, number=number, kills=KILLS, store=store_of(number))


@pytest.mark.parametrize("number", ROUNDS)
def test_a_round_of_the_bank_loses_and_repeats_nothing(number: int) -> None:
    result = played(number)
    assert result.ok, "\n".join([replay_command(result), *result.problems])
    assert result.kills >= KILLS


def test_every_kind_of_fault_fired() -> None:
    fired: Counter[str] = Counter()
    for number in ROUNDS:
        fired.update(played(number).fired)
    assert [kind for kind in KINDS if not fired[kind]] == []
    assert {store_of(number) for number in ROUNDS} == {"memory", "rocksdb"}
