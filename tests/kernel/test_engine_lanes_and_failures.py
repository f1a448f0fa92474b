"""Steps: in order per entity, never in each other's way, and every failure ends where it should."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choreo.kernel.engine import RETRY_BACKOFF_MS_MAX, SEEN_MAX
from choreo.kernel.values import EntityState, Failure, InputTopic, Settlement
from tests.kernel.rig import IN, INBOX, SECOND, Rig, steps_of


def ids(*offsets: int) -> list[str]:
    return [f"in/0/{offset}" for offset in offsets]


def done_ids(rig: Rig) -> list[str]:
    return [event_id for event_id, _ in steps_of(rig.commit())]


# -- lanes -------------------------------------------------------------------------------------------------------------


def test_a_slow_entity_blocks_nobody_and_keeps_its_own_order() -> None:
    rig = Rig()
    rig.send("call", "slow")
    rig.send("", "slow")
    rig.send("call", "slow")
    for number in range(5):
        rig.send("", f"e{number}")
    assert done_ids(rig) == ids(3, 4, 5, 6, 7)
    rig.answer()
    assert done_ids(rig) == ids(0, 1)
    rig.answer()
    assert done_ids(rig) == ids(2)
    assert rig.count("slow") == 3
    assert rig.engine.idle


def test_a_step_sees_the_rows_of_earlier_uncommitted_steps() -> None:
    rig = Rig()
    rig.send("")
    rig.pump()
    rig.send("")
    rig.pump()
    assert rig.count() == 0
    rig.commit()
    assert rig.count() == 2


def test_no_more_calls_are_in_flight_than_allowed() -> None:
    rig = Rig(in_flight=3)
    for number in range(10):
        rig.send("call call", f"e{number}")
    finished = 0
    while finished < 10:
        rig.pump()
        assert 0 < len(rig.calls) <= 3
        assert rig.engine.waiting == len(rig.calls)
        rig.answer()
        finished += len(steps_of(rig.commit()))
    assert rig.engine.idle


def test_a_lane_that_found_no_room_goes_on_when_there_is_some() -> None:
    rig = Rig(in_flight=1)
    rig.send("flaky call", "a")
    rig.send("", "a")
    rig.pump()
    rig.answer()  # fails, backs off
    rig.pump(50)
    rig.send("call", "b")
    rig.pump()
    rig.pump(200)  # the backoff of a is over, but b took the only place
    rig.answer("b")
    rig.answer("a")
    assert done_ids(rig) == ids(2, 0, 1)


def test_answers_of_dropped_steps_and_unknown_calls_are_ignored() -> None:
    rig = Rig()
    rig.send("call")
    rig.pump()
    call_id = next(iter(rig.calls))
    rig.engine.revoke([0])
    assert rig.engine.calls_to_cancel() == [call_id]
    rig.calls[call_id] = rig.calls.get(call_id)  # type: ignore[assignment]
    rig.engine.answer(call_id, None, rig.now_ms)  # type: ignore[arg-type]
    rig.engine.answer(99, None, rig.now_ms)  # type: ignore[arg-type]
    assert rig.engine.waiting == 0
    assert rig.engine.take_burst(rig.now_ms) is None


def test_a_call_waits_until_the_rows_of_its_own_entity_are_committed_and_no_others() -> None:
    rig = Rig()
    rig.calls_regardless = False
    for entity in ("a", "b"):
        rig.send("", entity)
    rig.send("call", "a")
    rig.send("call", "c")
    rig.pump()
    assert [call.arguments for call in rig.calls.values()] == ["c"]
    burst = rig.engine.take_burst(rig.now_ms)
    assert burst is not None
    rig.pump()
    assert [call.arguments for call in rig.calls.values()] == ["c"], "the burst is under way, not committed"
    rig.engine.put_back(burst)
    rig.pump()
    assert [call.arguments for call in rig.calls.values()] == ["c"]
    rig.commit()
    assert [call.arguments for call in rig.calls.values()] == ["c", "a"]


def test_a_call_of_a_lost_partition_that_was_not_started_yet_never_starts() -> None:
    rig = Rig()
    rig.send("call")
    rig.engine.pump(rig.now_ms)
    rig.engine.revoke([0])
    assert rig.engine.calls_to_start() == []


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_retryable_failure_backs_off_longer_each_time_then_becomes_a_dead_letter() -> None:
    rig = Rig(retries=4, retry_backoff_ms=100)
    rig.commit()
    rig.send("tired", "a")
    rig.send("", "a")
    rig.send("", "b")
    assert done_ids(rig) == ids(2)
    for wait_ms in (100, 200, 400, 800):
        assert rig.engine.wakes_at_ms(rig.now_ms) == rig.now_ms + wait_ms
        rig.pump(wait_ms - 1)
        assert rig.burst() is None
        rig.pump(1)
    assert steps_of(rig.commit()) == [("in/0/0", "dead CH0304"), ("in/0/1", "done")]
    assert rig.engine.statistics().retries == 4


def test_a_backoff_is_bounded() -> None:
    rig = Rig(retries=100, retry_backoff_ms=1_000)
    rig.commit()
    rig.send("tired")
    rig.pump()
    for _ in range(40):
        at_ms = rig.engine.wakes_at_ms(rig.now_ms)
        assert at_ms is not None
        assert at_ms - rig.now_ms <= RETRY_BACKOFF_MS_MAX
        rig.pump(at_ms - rig.now_ms)


def test_a_permanent_failure_is_a_dead_letter_at_once() -> None:
    rig = Rig()
    rig.send("broken")
    rig.send("")
    assert steps_of(rig.commit()) == [("in/0/0", "dead CH9003"), ("in/0/1", "done")]
    assert rig.count() == 1


def test_a_record_that_its_topic_would_refuse_is_its_steps_dead_letter() -> None:
    rig = Rig()
    rig.send("big")
    rig.send("")
    bursts = rig.commit()
    assert steps_of(bursts) == [("in/0/0", "dead CH0305"), ("in/0/1", "done")]
    assert rig.count() == 1


@pytest.mark.parametrize(
    ("key", "partition_of", "code"),
    [
        (None, None, "CH0206"),
        (b"\xff\xfe", None, "CH0206"),
        ("a", lambda key, partitions: 1, "CH0301"),
    ],
)
def test_an_input_whose_key_cannot_be_used_is_a_dead_letter(
    key: str | bytes | None, partition_of: Callable[[bytes, int], int] | None, code: str
) -> None:
    rig = Rig(partition_of=partition_of)
    rig.send("", key)
    bursts = rig.commit()
    assert steps_of(bursts) == [("in/0/0", f"dead {code}")]
    assert rig.engine.idle


def test_an_unreadable_decision_of_a_person_is_a_dead_letter() -> None:
    rig = Rig()
    rig.settlements[0] = Failure("CH0201", "no settlement", "DecodeError", False, False, "")
    rig.send(b"?", "a", topic=INBOX)
    assert steps_of(rig.commit()) == [("inbox/0/0", "dead CH0201")]


# -- dedupe ------------------------------------------------------------------------------------------------------------

WINDOW_MS = 1_000
DEDUPE = (InputTopic(IN, WINDOW_MS), InputTopic(INBOX, inbox=True))


@pytest.mark.parametrize(("later_ms", "ended"), [(0, "duplicate"), (WINDOW_MS, "duplicate"), (WINDOW_MS + 1, "done")])
def test_a_repetition_counts_as_one_within_the_window_by_kafkas_clock(later_ms: int, ended: str) -> None:
    rig = Rig(inputs=DEDUPE)
    rig.send("", id="x", at=5_000)
    rig.send("", id="x", at=5_000 + later_ms)
    assert steps_of(rig.commit()) == [("x", "done"), ("x", ended)]


def test_a_repetition_with_an_earlier_timestamp_counts_too() -> None:
    rig = Rig(inputs=DEDUPE)
    rig.send("", id="x", at=5_000)
    rig.send("", id="x", at=5_000 - WINDOW_MS)
    assert steps_of(rig.commit()) == [("x", "done"), ("x", "duplicate")]


def test_dedupe_is_per_entity_and_per_declared_topic() -> None:
    rig = Rig(inputs=(InputTopic(IN, WINDOW_MS), InputTopic(SECOND), InputTopic(INBOX, inbox=True)))
    rig.send("", "a", id="x")
    rig.send("", "b", id="x")
    rig.send("", "a", id="x", topic=SECOND)
    rig.reach_end(IN)
    rig.reach_end(SECOND)
    assert sorted(ended for _, ended in steps_of(rig.commit())) == ["done"] * 3


def test_an_entity_remembers_a_bounded_number_of_ids_within_the_window_only() -> None:
    rig = Rig(inputs=DEDUPE)
    for number in range(SEEN_MAX + 50):
        rig.send("", id=f"x{number}", at=5_000)
    rig.commit()
    assert len(_one_more(rig, at=5_001).seen) == SEEN_MAX
    assert len(_one_more(rig, at=5_001 + WINDOW_MS).seen) == 2  # the last one and itself


def _one_more(rig: Rig, at: int) -> EntityState:
    rig.send("", at=at)
    burst = rig.burst()
    assert burst is not None
    rig.committed(burst)
    return burst.states[0, "a"]


def test_a_repetition_of_an_event_that_failed_is_tried() -> None:
    rig = Rig(inputs=DEDUPE)
    rig.send("broken", id="x")
    rig.send("", id="x")
    rig.send("", id="x")
    assert steps_of(rig.commit()) == [("x", "dead CH9003"), ("x", "done"), ("x", "duplicate")]


# -- partitions --------------------------------------------------------------------------------------------------------


def test_records_before_the_position_or_of_foreign_partitions_are_ignored() -> None:
    rig = Rig(partitions=(0, 1))
    rig.send("", "k0")
    rig.engine.deliver([rig.delivery("", "k0", offset=0)])  # fetched before the seek
    rig.engine.deliver([rig.delivery("", "k2", number=7)])
    rig.engine.reach_end(IN, 7, 3)
    rig.engine.assign(2)
    rig.engine.deliver([rig.delivery("", "k2", number=2)])  # not restored yet
    rig.engine.reach_end(IN, 2, 3)
    assert done_ids(rig) == ids(0)
    assert {(IN, 2), (INBOX, 2)} <= rig.engine.paused()


def test_partitions_take_turns() -> None:
    rig = Rig(partitions=(0, 1))
    for _ in range(1_000):
        rig.send("", "k0", number=0)
        rig.send("", "k1", number=1)
    rig.engine.pump(rig.now_ms, 1_000)
    burst = rig.engine.take_burst(rig.now_ms)
    assert burst is not None
    numbers = [done.partition.number for done in burst.steps]
    assert 400 <= numbers.count(0) <= 600


def test_a_lost_partition_takes_everything_uncommitted_with_it_and_nothing_else() -> None:
    rig = Rig(partitions=(0, 1))
    rig.send("", "k0", number=0)
    rig.send("call", "x0", number=0)
    rig.send("flaky", "y0", number=0)
    rig.send("", "k1", number=1)
    rig.send("call", "x1", number=1)
    rig.pump()
    rig.engine.revoke([0])
    rig.engine.revoke([0])
    assert not rig.engine.owns(0)
    rig.pump(1_000)
    assert {call.arguments for call in rig.calls.values()} == {"x1"}
    assert [done.entity for burst in rig.commit() for done in burst.steps] == ["k1"]


def test_draining_finishes_what_has_started_and_starts_nothing() -> None:
    rig = Rig()
    rig.send("call", "a")
    rig.send("", "a")
    rig.pump()
    rig.engine.drain()
    rig.send("", "b")
    rig.pump()
    assert not rig.engine.settled
    assert rig.engine.wakes_at_ms(rig.now_ms) is None
    rig.answer()
    assert done_ids(rig) == ids(0)
    assert rig.engine.settled
    assert not rig.engine.idle  # the heir will find the rest


def test_a_redriven_event_runs_in_its_entitys_lane() -> None:
    rig = Rig()
    original = rig.send("broken", "a")
    rig.send("call", "a")
    rig.commit()
    rig.script.cured.add("in/0/0")
    rig.settle(Settlement("redrive", "a", -1, "me", "", original))
    rig.pump()
    assert steps_of(rig.commit()) == []
    rig.answer()
    assert done_ids(rig) == ids(1, 0)
    assert rig.engine.idle


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["", "call", "call call", "flaky", "broken"])), max_size=15
    ),
    st.randoms(use_true_random=False),
    st.sampled_from([1, 2, 100]),
)
@settings(max_examples=60, deadline=None)
def test_an_entitys_events_end_in_their_order_whatever_answers_first(
    events: list[tuple[str, str]], chance: random.Random, in_flight: int
) -> None:
    rig = Rig(in_flight=in_flight, retries=1)
    for entity, words in events:
        rig.send(words, entity)
    ended: list[tuple[str, str]] = []
    for _ in range(200):
        ended += steps_of(rig.commit())
        if rig.calls:
            rig.answer(rig.calls[chance.choice(list(rig.calls))].arguments)
        elif len(ended) == len(events):
            break
        else:
            rig.pump(1_000)
    places = [event_id for event_id, _ in ended]
    assert sorted(places) == sorted(f"{IN}/0/{number}" for number in range(len(events)))
    for entity in "abc":
        mine = [number for number, (one, _) in enumerate(events) if one == entity]
        assert [place for place in places if int(place.split("/")[2]) in mine] == [f"{IN}/0/{n}" for n in mine]
    assert rig.engine.idle
