"""Offsets in the metadata: whatever an owner commits, at any moment, the next owner can read and continue from."""

from __future__ import annotations

import random

import pytest

from choreo.errors import EngineError
from choreo.kernel.progress import Progress, Snapshot, decode_metadata, encode_metadata
from choreo.kernel.restore import Ends, starting_point
from choreo.kernel.values import Checkpoint

OWNER = "group.worker-0"


def _handed_over(progress: Progress) -> Snapshot:
    snapshot = progress.snapshot()
    read, owner = decode_metadata(snapshot.low, encode_metadata(snapshot, OWNER))
    assert owner == OWNER
    assert read == snapshot
    return read


def test_commit_in_the_middle_of_a_range_the_last_owner_finished_can_be_read() -> None:
    progress = Progress(0, ((1, 5_000),))
    for offset in range(2_000):  # one batch of the consumer ends inside the range
        progress.deliver(offset)
    progress.finish(0)
    assert _handed_over(progress) == Snapshot(5_000, ())


@pytest.mark.parametrize("seed", range(30))
def test_owners_in_a_row_finish_every_offset_exactly_once(seed: int) -> None:
    chance = random.Random(seed)
    end = 300
    void = {offset for offset in range(end) if chance.random() < 0.1}  # markers and aborted records
    finished: set[int] = set()  # committed
    handed_over = Snapshot(0, ())
    for _ in range(2_000):
        progress = Progress(*handed_over)
        at, open_offsets, now_finished = handed_over.low, [], set()
        for _ in range(chance.randrange(1, 60)):
            action = chance.random()
            if action < 0.5 and at < end:
                if at not in void and progress.deliver(at):
                    assert at not in finished
                    open_offsets.append(at)
                at += 1
                if at == end:
                    progress.reach_end(end)
            elif action < 0.9 and open_offsets:
                offset = open_offsets.pop(chance.randrange(len(open_offsets)))
                progress.finish(offset)
                now_finished.add(offset)
            else:  # a commit; then perhaps the end of this owner
                handed_over = _handed_over(progress)
                finished |= now_finished
                now_finished = set()
                done = {offset for start, stop in handed_over.done for offset in range(start, stop)}
                assert not {*range(handed_over.low), *done} - void - finished
                assert not finished - done - set(range(handed_over.low))
        if handed_over.low == end:
            break
    assert finished == set(range(end)) - void


def test_a_topic_made_again_under_its_old_name_stops_the_partition() -> None:
    checkpoint = Checkpoint("in", 0, 50, (), -1, 0, topic_id="old")
    with pytest.raises(EngineError) as raised:
        starting_point("in/0", Snapshot(50, ()), checkpoint, Ends(0, 400), "earliest", "new")
    assert raised.value.code == "CH0307"
    assert "deleted and made again" in raised.value.message
    assert starting_point("in/0", Snapshot(50, ()), checkpoint, Ends(0, 400), "earliest", "old").low == 50
