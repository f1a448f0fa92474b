"""How ``make test`` fuzzes a target: always the same inputs, by the format's own changes and by Hypothesis."""

from __future__ import annotations

import tracemalloc
from random import Random
from typing import Final
from zlib import crc32

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.changes import BINARY
from tests.fuzz.target import MEMORY_BYTES_MAX, BrokenPromiseError, Target, promised
from tests.fuzz.watch import Watch

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
    own = st.integers(0, 2**32 - 1).map(lambda number: changed_by(target, number))
    edited = st.tuples(st.sampled_from(target.seeds), _EDITS).map(_edited)
    return st.one_of(own, own, edited, edited, st.binary(max_size=80))


def changed_by(target: Target, number: int) -> bytes:
    """The input of that number; the same one everywhere."""
    chance = Random(f"{target.name} {number}")
    return target.change(chance.choice(target.seeds), chance)


def _edited(drawn: tuple[bytes, list[Edit]]) -> bytes:
    data = bytearray(drawn[0])
    for place, left_out, put_in in drawn[1]:
        at = place % (len(data) + 1)
        data[at : at + left_out] = put_in
    return bytes(data)


def fuzz(target: Target, cases: int) -> None:
    """Found inputs, then so many cases of the format's own changes; the same ones in every run.

    Raises:
        BrokenPromiseError: with the smallest input that was found for each way in which a promise broke.
    """
    watch = Watch(target, seconds_max=None, limit_memory=False, counted_each=COUNTED_EACH)
    for data in target.found:
        watch.case(data)
    for number in range(cases):
        watch.case(changed_by(target, number))
    if watch.seen.failures:
        watch.shrink()
        shown = [f"{one.kind}: {one.message}; input {one.data[:500]!r}" for one in watch.seen.failures.values()]
        raise BrokenPromiseError("\n".join([f"{target.name}, `found` is where these inputs then stay:", *shown]))


def fuzz_with_hypothesis(target: Target, cases: int) -> None:
    """The same with Hypothesis, which needs a millisecond a case, goes other ways and shrinks better."""

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
    settings(
        max_examples=cases,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )(test)()
