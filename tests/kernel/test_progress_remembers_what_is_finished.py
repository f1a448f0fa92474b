"""Offsets: finished ones stay finished, void ones never hold anything up, and the metadata says it all."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from choreo.errors import EngineError
from choreo.kernel.partition import RUN_CHARS_MAX
from choreo.kernel.progress import (
    METADATA_CHARS_MAX,
    Progress,
    Snapshot,
    decode_metadata,
    encode_metadata,
)

OWNER = "shop.recovery.worker-0"
BROKER_LIMIT_CHARS = 4_095


def finished_in(snapshot: Snapshot, end: int) -> set[int]:
    return {*range(snapshot.low), *(offset for start, stop in snapshot.done for offset in range(start, stop))} & set(
        range(end)
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    """Delivered offsets with gaps, which of them finish (in that order), and which of those are reopened."""
    gaps = draw(st.lists(st.integers(0, 3), min_size=1, max_size=30))
    offsets, at = [], 0
    for gap in gaps:
        at += gap
        offsets.append(at)
        at += 1
    finishing = draw(st.permutations(offsets))[: draw(st.integers(0, len(offsets)))]
    reopened = draw(st.lists(st.sampled_from(finishing), unique=True)) if finishing else []
    return offsets, finishing, reopened


@given(st.lists(st.integers(0, 60_000), max_size=60, unique=True), st.lists(st.integers(0, 59), max_size=20))
@settings(max_examples=200, deadline=None)
def test_no_change_lengthens_the_metadata_by_more_than_one_run(finishing: list[int], reopened: list[int]) -> None:
    progress = Progress(0)
    numbers = {}
    for number, offset in enumerate(sorted({*finishing, *range(0, 60_000, 1_000)})):
        progress.deliver(offset)
        numbers[offset] = number + 1
    chars, changes = len(encode_metadata(progress.snapshot(), "")), progress.changes
    steps = [("finish", offset) for offset in finishing]
    steps += [("reopen", finishing[at]) for at in dict.fromkeys(reopened) if at < len(finishing)]
    for what, offset in steps:
        if what == "finish":
            progress.finish(offset)
        else:
            progress.reopen([(offset, numbers[offset])])
        assert len(encode_metadata(progress.snapshot(), "")) <= chars + RUN_CHARS_MAX * (progress.changes - changes)


@given(histories(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_snapshot_equals_a_set_of_finished_offsets(
    history: tuple[list[int], list[int], list[int]], end: bool
) -> None:
    offsets, finishing, reopened = history
    progress = Progress(0)
    numbers = {}
    for offset in offsets:
        assert progress.deliver(offset)
    for offset in finishing:
        numbers[offset] = progress.delivery_number(offset)
        progress.finish(offset)
    progress.reopen((offset, numbers[offset]) for offset in reopened)
    finished = set(finishing) - set(reopened)
    position = offsets[-1] + 1
    if end:
        position += 2  # markers at the end of the log
        progress.reach_end(position)
    snapshot = progress.snapshot()
    open_offsets = set(offsets) - finished
    assert progress.low == snapshot.low == min(open_offsets, default=position)
    assert progress.unfinished == len(open_offsets)
    said = finished_in(snapshot, position)
    assert not said & open_offsets
    assert finished <= said
    starts = [edge for pair in snapshot.done for edge in pair]
    assert starts == sorted(set(starts)), "ranges ascend and do not touch"
    assert all(start > snapshot.low for start, _ in snapshot.done)


@given(histories(), histories())
@settings(max_examples=200, deadline=None)
def test_an_heir_skips_exactly_what_was_finished(
    first: tuple[list[int], list[int], list[int]], second: tuple[list[int], list[int], list[int]]
) -> None:
    offsets, finishing, _ = first
    progress = Progress(0)
    for offset in offsets:
        progress.deliver(offset)
    for offset in finishing:
        progress.finish(offset)
    heir = Progress(*progress.snapshot())
    again = [offset for offset in offsets if offset >= heir.low and heir.deliver(offset)]
    assert set(again) == set(offsets) - set(finishing)
    finished_later = [offset for offset in second[1] if offset in again]
    for offset in finished_later:
        heir.finish(offset)
    said = finished_in(heir.snapshot(), offsets[-1] + 1)
    assert set(finishing) | set(finished_later) <= said
    assert not said & (set(again) - set(finished_later))


def test_commit_markers_do_not_freeze_the_group() -> None:
    """A transactional producer wrote 200 transactions of one record: every second offset is a marker."""
    progress = Progress(0)
    for offset in range(0, 400, 2):
        progress.deliver(offset)
        progress.finish(offset)
        assert progress.snapshot() == Snapshot(offset + 1, ())
    progress.reach_end(400)
    assert progress.snapshot() == Snapshot(400, ())


def test_markers_behind_a_slow_event_do_not_let_the_map_grow() -> None:
    progress = Progress(0)
    progress.deliver(0)
    for offset in range(2, 40_000, 2):
        progress.deliver(offset)
        progress.finish(offset)
    assert progress.snapshot() == Snapshot(0, ((1, 39_999),))
    assert len(encode_metadata(progress.snapshot(), OWNER)) < 50


def test_an_end_that_lies_behind_the_position_changes_nothing() -> None:
    progress = Progress(0)
    progress.deliver(7)
    progress.reach_end(3)
    assert progress.position == 8


def test_an_offset_delivered_twice_is_an_error_of_the_shell() -> None:
    progress = Progress(5)
    progress.deliver(5)
    with pytest.raises(EngineError, match="delivered again"):
        progress.deliver(5)


snapshots = st.builds(
    lambda low, edges: Snapshot(
        low, tuple(zip([low + edge for edge in edges[::2]], [low + edge for edge in edges[1::2]], strict=True))
    ),
    st.integers(0, 2**53),
    st.lists(st.integers(1, 20_000), unique=True, max_size=60).map(sorted).map(lambda x: x[: len(x) // 2 * 2]),
)


@given(snapshots, st.text(max_size=60))
@settings(max_examples=300, deadline=None)
@example(Snapshot(0, ((1, 2),)), "")
def test_metadata_says_what_was_written(snapshot: Snapshot, owner: str) -> None:
    assert decode_metadata(snapshot.low, encode_metadata(snapshot, owner)) == (snapshot, owner)


def test_metadata_takes_the_shorter_form() -> None:
    dense = Snapshot(0, tuple((offset, offset + 1) for offset in range(1, 2_500, 2)))
    sparse = Snapshot(0, ((10**9, 10**9 + 5),))
    assert len(encode_metadata(dense, OWNER)) < 500  # bits: 2,500 / 8 bytes
    assert len(encode_metadata(sparse, OWNER)) < 60  # runs: a bitset would have 125 MB
    for snapshot in (dense, sparse):
        assert decode_metadata(snapshot.low, encode_metadata(snapshot, OWNER))[0] == snapshot


def test_the_bound_leaves_room_below_the_brokers_limit() -> None:
    assert METADATA_CHARS_MAX < BROKER_LIMIT_CHARS
    with pytest.raises(EngineError):
        encode_metadata(Snapshot(0, ()), "o" * 256)


def test_a_plain_commit_of_another_tool_is_read_as_an_offset() -> None:
    assert decode_metadata(7, "") == (Snapshot(7, ()), "")


def packed(*body: int) -> str:
    return "1" + base64.b64encode(bytes(body)).decode().rstrip("=")


@pytest.mark.parametrize(
    "metadata",
    [
        "2AAAA",
        "hello",
        "1",
        "1*",
        "1ä",
        packed(5, 65),  # the owner is cut off
        packed(1, 0xFF),  # the owner is not UTF-8
        packed(0, 2),  # a form nobody wrote
        packed(0, 0, 1),  # half a run
        packed(0, 0, 0x80),  # half a number
        packed(0, 0, 0, 5),  # a run that begins at low
        packed(0, 0, 5, 0),  # an empty run
        packed(0, 0, *[0xFF] * 12, 1, 1),  # a number of more than 64 bits
        packed(0, 1, 1),  # low itself is finished
    ],
)
def test_metadata_that_is_not_ours_stops_the_partition(metadata: str) -> None:
    with pytest.raises(EngineError) as caught:
        decode_metadata(0, metadata)
    assert caught.value.code == "CH0307"


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda body: packed(*body)))
@settings(max_examples=500, deadline=None)
def test_any_metadata_is_progress_or_ch0307(metadata: str) -> None:
    try:
        snapshot, _ = decode_metadata(100, metadata)
    except EngineError as error:
        assert error.code == "CH0307"
    else:
        edges = [edge for pair in snapshot.done for edge in pair]
        assert snapshot.low == 100
        assert edges == sorted(edges)
        assert not edges or edges[0] > 100
