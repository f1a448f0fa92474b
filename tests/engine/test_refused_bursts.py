"""A record that the broker refuses for good: the step that made it becomes a dead letter, the others go through."""

from __future__ import annotations

import pytest

from choreo.errors import EngineError
from choreo.kernel.burst import Burst
from choreo.kernel.engine import Engine, Refusals
from tests.engine.fake_agent import CountingRunner, delivery, engine, own

NOW_MS = 10_000


def _lives(values: list[bytes], refused: set[bytes], refusals: Refusals) -> tuple[list[bytes], int]:
    """Engines one after another against a broker that refuses what came of some values."""
    committed: list[bytes] = []
    for life in range(1, 20):
        runner = CountingRunner()
        one = engine(runner, refusals)
        own(one)
        one.deliver([delivery(offset, value, b"k%d" % offset) for offset, value in enumerate(values)])
        one.pump(NOW_MS)
        committed.clear()
        if _committed(one, refused, committed):
            return committed, life
    raise AssertionError("never came to an end")


def _committed(one: Engine, refused: set[bytes], committed: list[bytes]) -> bool:
    while (burst := one.take_burst(NOW_MS)) is not None:
        if any(value.split(b"=")[0] in refused for value in _emitted(burst)):
            one.refuse_burst(burst)
            return False
        committed += [record.value or b"" for record in burst.records]
        one.committed(burst, NOW_MS)
    return True


def _emitted(burst: Burst) -> list[bytes]:
    return [record.value or b"" for record in burst.records if record.topic == "out"]


@pytest.mark.parametrize("refused", [{b"v3"}, {b"v0", b"v4"}, {b"v9"}, {b"v1", b"v2", b"v3"}])
def test_only_steps_whose_records_are_refused_become_dead_letters(refused: set[bytes]) -> None:
    values = [b"v%d" % number for number in range(10)]
    committed, lives = _lives(values, refused, Refusals())
    assert sorted(committed) == sorted(value if value in refused else value + b"=1" for value in values)
    assert lives <= len(refused) + 2


def test_refused_dead_letter_ends_the_worker() -> None:
    refusals = Refusals()
    for attempt in range(2):
        one = engine(refusals=refusals)
        own(one)
        one.deliver([delivery(0)])
        one.pump(NOW_MS)
        burst = one.take_burst(NOW_MS)
        assert burst is not None
        if attempt == 0:
            one.refuse_burst(burst)
        else:
            with pytest.raises(EngineError):
                one.refuse_burst(burst)
