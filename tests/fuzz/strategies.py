"""The inputs of a target for Hypothesis: the format's own changes by seed, and edits that shrink well."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from random import Random
from typing import Final
from zlib import crc32

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.changes import BINARY
from tests.fuzz.target import MEMORY_BYTES_MAX, Target, promised

COUNTED_EACH: Final = 8
"""One case of so many is also counted for memory, which takes some times longer."""

Edit = tuple[int, int, bytes]
_EDITS: Final = st.lists(
    st.tuples(st.integers(0, 2**16), st.integers(0, 12), st.binary(max_size=6) | st.sampled_from(BINARY)),
    min_size=1,
    max_size=4,
)


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Valid inputs after changes, and a few that never were any."""

    def changed(number: int) -> bytes:
        chance = Random(number)
        return target.change(chance.choice(target.seeds), chance)

    own = st.integers(0, 2**32 - 1).map(changed)  # one draw: most of a case's time is Hypothesis's own
    edited = st.tuples(st.sampled_from(target.seeds), _EDITS).map(_edited)
    return st.one_of(own, own, own, own, own, edited, st.binary(max_size=80))


def _edited(drawn: tuple[bytes, list[Edit]]) -> bytes:
    data = bytearray(drawn[0])
    for place, left_out, put_in in drawn[1]:
        at = place % (len(data) + 1)
        data[at : at + left_out] = put_in
    return bytes(data)


def fuzzing(target: Target, cases: int, *, shrink: bool = True) -> Callable[[], None]:
    """A test of a target: its found inputs, then so many cases; the same ones in every run.

    A failure prints the input, shrunk; ``found`` is where it then stays.
    """

    def judge(data: bytes) -> None:
        if crc32(data) % COUNTED_EACH:  # by the input, not by chance: a failure must fail again
            target.check(data)
            return
        tracemalloc.start()
        try:
            target.check(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        promised(peak <= MEMORY_BYTES_MAX, f"{peak} bytes were allocated")

    test = given(data=inputs(target))(judge)
    for data in target.found:
        test = example(data=data)(test)
    return settings(
        max_examples=cases,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )(test)
