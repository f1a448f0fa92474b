"""What goes into one transaction, and what becomes of it."""

from __future__ import annotations

import random

import pytest

import choreo.kernel.burst as burst_module
from choreo.errors import EngineError
from choreo.kernel.burst import BURST_BYTES_MAX, IDLE_COMMIT_MS, OFFSETS_MAX, RECOMMIT_MS, Burst
from choreo.kernel.engine import BUFFERED_RECORDS_MAX, Refusals
from choreo.kernel.progress import Snapshot, decode_metadata
from choreo.kernel.values import InputTopic, TopicFacts
from tests.kernel.fakes import CHANGELOG, DEAD, DECISIONS, OUT
from tests.kernel.rig import IN, INBOX, SECOND, Rig, lows, steps_of


def entity_orders(bursts: list[Burst]) -> dict[str, list[int]]:
    orders: dict[str, list[int]] = {}
    for burst in bursts:
        for done in burst.steps:
            assert done.source is not None
            orders.setdefault(done.entity, []).append(done.source[1])
    return orders


def test_nothing_finished_makes_no_burst() -> None:
    rig = Rig()
    rig.commit()
    rig.send("call")
    assert rig.burst() is None


def test_offsets_are_committed_once_right_after_a_restore() -> None:
    """So that the metadata names the owner before anything else happens."""
    rig = Rig()
    burst = rig.burst()
    assert burst is not None
    assert burst.steps == []
    assert {(commit.topic, commit.offset) for commit in burst.offsets} == {(IN, 0), (INBOX, 0)}
    assert decode_metadata(0, burst.offsets[0].metadata)[1] == "group.w0"
    rig.committed(burst)
    assert rig.burst() is None


def test_every_burst_commits_all_topics_of_the_partitions_it_touches() -> None:
    """A burst of a timer alone is fenced by its offsets like any other."""
    rig = Rig(inputs=(InputTopic(IN), InputTopic(SECOND), InputTopic(INBOX, inbox=True)))
    rig.send("timer", time=10)
    rig.reach_end(IN)
    rig.reach_end(SECOND)
    rig.reach_end(INBOX)
    rig.commit()
    rig.pump(5_000)
    burst = rig.burst()
    assert burst is not None
    assert [(done.source, list(done.timers)) for done in burst.steps] == [(None, ["alarm"])]
    assert {(commit.topic, commit.partition) for commit in burst.offsets} == {(IN, 0), (SECOND, 0), (INBOX, 0)}
    assert len(burst.checkpoints) == 3


def test_checkpoints_say_what_the_offsets_say() -> None:
    rig = Rig()
    rig.send("call", "slow", time=50)
    rig.send("", "b", time=60)
    burst = rig.burst()
    assert burst is not None
    for commit, checkpoint in zip(burst.offsets, burst.checkpoints, strict=True):
        assert (commit.topic, commit.partition, commit.offset) == checkpoint[:3]
        assert decode_metadata(commit.offset, commit.metadata)[0] == Snapshot(checkpoint.low, checkpoint.done)


def test_only_the_last_version_of_a_row_is_written() -> None:
    rig = Rig()
    for _ in range(5):
        rig.send("")
    burst = rig.burst()
    assert burst is not None
    assert len(burst.steps) == 5
    assert len(burst.rows) == len(burst.states) == 1
    rig.committed(burst)
    assert rig.count() == 5


def test_progress_behind_markers_is_committed_after_a_while_without_steps() -> None:
    rig = Rig()
    rig.commit()
    rig.engine.reach_end(IN, 0, 40)
    assert rig.burst() is None
    rig.pump(IDLE_COMMIT_MS)
    assert lows(rig.commit()) == 40
    rig.pump(IDLE_COMMIT_MS)
    assert rig.burst() is None


def test_offsets_are_committed_daily_so_that_they_do_not_expire() -> None:
    rig = Rig()
    rig.commit()
    rig.pump(RECOMMIT_MS - 1)
    assert rig.burst() is None
    rig.pump(1)
    assert lows(rig.commit()) == 0


def test_a_burst_carries_a_bounded_number_of_bytes() -> None:
    facts = {name: TopicFacts(4, 10**9) for name in (OUT, DEAD, DECISIONS, CHANGELOG)}
    rig = Rig(facts=facts)
    for number in range(12_000):
        rig.send("big", f"e{number}")
    while rig.engine.pump(rig.now_ms):
        pass
    assert rig.engine.statistics().finished_uncommitted * 2_000 < 2 * BURST_BYTES_MAX, "the engine stops in time"
    bursts = rig.commit()
    assert sum(len(burst.steps) for burst in bursts) == 12_000
    for burst in bursts:
        assert sum(done.size for done in burst.steps) <= BURST_BYTES_MAX


def test_a_single_outcome_above_the_bound_goes_alone() -> None:
    rig = Rig()
    for entity in "abc":
        rig.send("", entity)
    rig.pump()
    rig.engine._finished[1].size = BURST_BYTES_MAX + 1
    assert [len(burst.steps) for burst in rig.commit()] == [1, 1, 1]


@pytest.mark.parametrize("topics", [1, 2])
def test_a_commit_carries_a_bounded_number_of_offsets(topics: int) -> None:
    inputs = (*(InputTopic(name) for name in (IN, SECOND)[:topics]), InputTopic(INBOX, inbox=True))
    numbers = tuple(range(130))
    rig = Rig(inputs=inputs, partitions=numbers, partition_of=lambda key, count: int(key.split(b"-")[0]))
    for number in numbers:
        for repeat in range(3):
            rig.send("", f"{number}-{repeat % 2}", number=number)
        for topic in inputs:
            rig.reach_end(topic.name, number)
    bursts = rig.commit()
    assert all(len(burst.offsets) <= OFFSETS_MAX for burst in bursts)
    assert sum(len(burst.steps) for burst in bursts) == 390
    assert {commit.partition for burst in bursts for commit in burst.offsets} == set(numbers)
    for number in numbers:
        placed = [done.source for burst in bursts for done in burst.steps if done.partition.number == number]
        assert placed == [(IN, 0), (IN, 1), (IN, 2)]


# -- aborts ------------------------------------------------------------------------------------------------------------


def test_an_aborted_burst_goes_again_before_what_finished_later() -> None:
    rig = Rig()
    for _ in range(3):
        rig.send("", "a")
    burst = rig.burst()
    assert burst is not None
    rig.send("", "a")
    rig.pump()
    rig.engine.put_back(burst)
    again = rig.burst()
    assert again is not None
    assert [done.source for done in again.steps] == [(IN, offset) for offset in range(4)]
    rig.committed(again)
    assert rig.count() == 4
    assert lows([again]) == 4


def test_an_aborted_burst_leaves_out_partitions_that_were_lost_meanwhile() -> None:
    rig = Rig(partitions=(0, 1))
    rig.send("", "k0", number=0)
    rig.send("", "k1", number=1)
    burst = rig.burst()
    assert burst is not None
    rig.engine.revoke([0])
    rig.engine.put_back(burst)
    again = rig.burst()
    assert again is not None
    assert [done.entity for done in again.steps] == ["k1"]
    assert {commit.partition for commit in again.offsets} == {1}


def test_an_abort_takes_the_offsets_back() -> None:
    rig = Rig()
    rig.send("call", "slow")
    rig.send("", "b")
    rig.send("", "c")
    burst = rig.burst()
    assert burst is not None
    rig.engine.put_back(burst)
    partition = burst.partitions[0]
    assert partition.progress[IN].snapshot() == Snapshot(0, ())
    again = rig.burst()
    assert again is not None
    assert again.checkpoints[0].done == ((1, 3),)


def test_a_lost_partition_may_be_assigned_again_and_starts_from_its_restore() -> None:
    rig = Rig()
    rig.send("")
    burst = rig.burst()
    assert burst is not None
    rig.engine.revoke([0])
    rig.engine.assign(0)
    rig.restore()
    rig.engine.committed(burst, rig.now_ms)  # of the partition's earlier life
    assert rig.engine.statistics().partitions[0].lows[IN] == 0
    with pytest.raises(EngineError, match="assigned twice"):
        rig.engine.assign(0)


# -- refused records ---------------------------------------------------------------------------------------------------


def test_a_refused_burst_is_committed_step_by_step_until_the_culprit_is_found() -> None:
    refusals = Refusals()
    committed: list[int] = []
    ended: list[str] = []
    for _ in range(5):
        rig = Rig(refusals=refusals)
        rig.engine.revoke([0])
        rig.engine.assign(0)
        rig.restore(progress={IN: Snapshot(len(committed), ())})
        for offset in range(len(committed), 6):
            rig.send("rejected" if offset == 3 else "", f"e{offset}", offset=offset)
        while (burst := rig.burst()) is not None:
            if any(record.value == b"rejected" for record in burst.records):
                rig.engine.refuse_burst(burst)
                break
            rig.committed(burst)
            committed += [done.source[1] for done in burst.steps if done.source]
            ended += [how for _, how in steps_of([burst])]
        else:
            break
    assert committed == list(range(6))
    assert ended == ["done"] * 3 + ["dead CH0305"] + ["done"] * 2
    assert refusals.singles == 0


def test_a_refused_burst_without_steps_ends_the_worker() -> None:
    rig = Rig()
    burst = rig.burst()
    assert burst is not None
    with pytest.raises(EngineError):
        rig.engine.refuse_burst(burst)


# -- back pressure -----------------------------------------------------------------------------------------------------


def test_inputs_pause_at_a_number_of_records_and_resume_at_half_of_it() -> None:
    rig = Rig()
    rig.send("call", "a")
    for _ in range(BUFFERED_RECORDS_MAX):
        rig.send("call", "a")
    assert rig.engine.paused() == {(IN, 0), (INBOX, 0)}
    while rig.engine.statistics().partitions[0].buffered > BUFFERED_RECORDS_MAX // 2:
        assert rig.engine.paused()
        rig.pump()
        rig.answer()
        rig.commit()
    assert rig.engine.paused() == set()


def test_inputs_pause_when_the_map_of_finished_offsets_grows_long() -> None:
    rig = Rig(in_flight=10_000)
    gap = 10**9
    for number in range(1_400):
        rig.send("call" if number % 2 else "", f"e{number}", offset=number * gap)
    rig.commit()
    assert rig.engine.paused(), "far fewer records than the bound, but long gaps between them"
    while rig.calls:
        rig.answer()
    rig.commit()
    assert rig.engine.paused() == set()


def test_steps_that_wait_for_room_in_the_map_do_not_make_empty_bursts() -> None:
    """A worker that gives a partition up commits until there is no burst left."""
    rig = Rig(in_flight=10_000)
    for number in range(1_200):
        rig.send("call" if number % 2 == 0 else "", f"e{number}", offset=number * 10**9)
    bursts = rig.commit()
    assert len(bursts) < 5
    assert rig.engine.statistics().finished_uncommitted > 0
    rig.answer("e0")
    assert rig.commit()


def test_finished_offsets_that_do_not_fit_are_held_back_in_lane_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burst_module, "METADATA_CHARS_MAX", 60)
    chance = random.Random(7)
    rig = Rig(in_flight=10_000)
    total = 300
    for offset in range(total):
        rig.send("call" if chance.random() < 0.7 else "", f"e{chance.randrange(80)}", offset=offset * 1_000)
    bursts: list[Burst] = []
    rig.pump()
    while rig.calls:
        call_id = chance.choice(list(rig.calls))
        rig.answer(rig.calls[call_id].arguments)
        if chance.random() < 0.3:
            burst = rig.burst()
            if burst is not None:
                if chance.random() < 0.3:
                    rig.engine.put_back(burst)
                else:
                    rig.committed(burst)
                    bursts.append(burst)
    for _ in range(total):
        burst = rig.burst()
        if burst is None:
            break
        rig.committed(burst)
        bursts.append(burst)
    assert all(len(commit.metadata) <= 60 for burst in bursts for commit in burst.offsets)
    orders = entity_orders(bursts)
    assert sum(map(len, orders.values())) == total
    assert all(order == sorted(order) for order in orders.values())
    assert rig.engine.idle
