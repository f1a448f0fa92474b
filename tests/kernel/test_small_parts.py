"""Merge, timers, packed rows, validation: each by itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choreo.kernel import event_clock
from choreo.kernel.event_clock import EventClock, Reached
from choreo.kernel.merge import Merge
from choreo.kernel.packed import ID_BYTES_MAX, pack, unpack
from choreo.kernel.timers import OUTDATED_MIN, Timers
from choreo.kernel.validate import BATCH_OVERHEAD_BYTES, first_violation, record_bytes
from choreo.kernel.values import Envelope, Outcome, OutRecord, RowWrite, TimerRow, TopicFacts

ORIGIN = Envelope("o", "", 0, "o", "", 0, "", "", "")


# -- merge -------------------------------------------------------------------------------------------------------------


def drained(merge: Merge[str], now_ms: int) -> list[str]:
    found = []
    while (item := merge.release(now_ms)) is not None:
        found.append(item)
    return found


def test_inputs_merge_by_event_time_and_keep_the_order_of_each() -> None:
    merge: Merge[str] = Merge(["a", "b"], 100)
    for topic, time_ms in (("a", 10), ("a", 5), ("a", 30), ("b", 7), ("b", 20)):
        merge.add(topic, time_ms, f"{topic}{time_ms}")
    merge.reach_end("a")
    merge.reach_end("b")
    assert drained(merge, 0) == ["b7", "a10", "a5", "b20", "a30"]
    assert merge.drained


def test_a_head_waits_for_a_topic_that_may_have_more_but_not_longer_than_the_bound() -> None:
    merge: Merge[str] = Merge(["a", "b"], 100)
    merge.add("a", 10, "a10")
    assert drained(merge, 1_000) == []
    assert merge.waits_until_ms == 1_100
    assert drained(merge, 1_099) == []
    assert drained(merge, 1_100) == ["a10"]
    assert merge.waits_until_ms is None


def test_a_topic_that_is_known_to_be_empty_holds_nobody_up() -> None:
    merge: Merge[str] = Merge(["a", "b"], 100)
    merge.reach_end("b")
    merge.add("a", 10, "a10")
    assert drained(merge, 0) == ["a10"]
    assert not merge.drained  # the end of a was not seen
    merge.add("b", 5, "b5")
    merge.reach_end("a")
    assert drained(merge, 0) == ["b5"]
    assert not merge.drained


def test_one_topic_never_waits() -> None:
    merge: Merge[str] = Merge(["a"], 100)
    merge.add("a", 10, "a10")
    assert drained(merge, 0) == ["a10"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_nothing_is_lost_in_a_merge(added: list[tuple[str, int]]) -> None:
    merge: Merge[tuple[str, int, int]] = Merge("abc", 10)
    for number, (topic, time_ms) in enumerate(added):
        merge.add(topic, time_ms, (topic, time_ms, number))
    found = []
    for now_ms in range(0, 1_000, 5):
        while (item := merge.release(now_ms)) is not None:
            found.append(item)
    assert sorted(found, key=lambda item: item[2]) == [(*one, number) for number, one in enumerate(added)]
    for topic in "abc":
        numbers = [number for name, _, number in found if name == topic]
        assert numbers == sorted(numbers)


# -- timers ------------------------------------------------------------------------------------------------------------


def timer(at_ms: int, entity: str = "e", name: str = "n", timer_id: str = "") -> TimerRow:
    return TimerRow(entity, name, at_ms, timer_id or f"{entity}{name}{at_ms}", ORIGIN)


def test_timers_are_due_in_the_order_of_their_times() -> None:
    timers = Timers([timer(30, "c"), timer(10, "a")])
    timers.set(timer(20, "b"))
    assert [timers.due(25), timers.due(25), timers.due(25)] == [timer(10, "a"), timer(20, "b"), None]
    assert timers.next_at_ms() == 30


def test_a_timer_that_is_set_again_replaces_the_first_even_where_it_was_handed_out() -> None:
    timers = Timers()
    timers.set(timer(10))
    assert timers.due(10) == timer(10)
    timers.set(timer(20))
    assert not timers.is_set(timer(10))
    assert timers.due(15) is None
    assert timers.due(20) == timer(20)
    assert len(timers) == 1


def test_a_cancelled_timer_is_never_due() -> None:
    timers = Timers([timer(10)])
    assert timers.cancel("e", "n")
    assert not timers.cancel("e", "n")
    assert timers.due(100) is None
    assert len(timers) == 0


def test_a_timer_is_handed_out_once_and_again_when_handed_back() -> None:
    timers = Timers([timer(10)])
    assert timers.due(10) == timer(10)
    assert timers.due(10) is None
    timers.hand_back(timer(10))
    assert timers.due(10) == timer(10)
    timers.cancel("e", "n")
    timers.hand_back(timer(10))
    assert timers.due(10) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "cancel", "due", "settle", "back"]), st.sampled_from("ab"), st.integers(0, 9)
        ),
        max_size=60,
    )
)
@settings(max_examples=300, deadline=None)
def test_timers_behave_like_a_dictionary(actions: list[tuple[str, str, int]]) -> None:
    timers = Timers()
    model: dict[str, TimerRow] = {}
    out: list[TimerRow] = []
    for number, (action, entity, at_ms) in enumerate(actions):
        if action == "set":
            row = timer(at_ms, entity, timer_id=str(number))
            timers.set(row)
            model[entity] = row
            out = [one for one in out if one.entity != entity]
        elif action == "cancel":
            assert timers.cancel(entity, "n") == (entity in model)
            model.pop(entity, None)
            out = [one for one in out if one.entity != entity]
        elif action == "due":
            waiting = [row for row in model.values() if row not in out and row.at_ms <= at_ms]
            found = timers.due(at_ms)
            if not waiting:
                assert found is None
            else:
                assert found is not None
                assert found.at_ms == min(row.at_ms for row in waiting)
                out.append(found)
        elif out and action == "settle":
            row = out.pop()
            timers.cancel(row.entity, row.name)
            del model[row.entity]
        elif out:
            timers.hand_back(out.pop())
        assert len(timers) == len(model)
    waiting = [row.at_ms for row in model.values() if row not in out]
    assert timers.next_at_ms() == min(waiting, default=None)


# -- event clock -------------------------------------------------------------------------------------------------------


def test_the_clock_stood_elsewhere_before_an_unfinished_input() -> None:
    clock = EventClock(Reached(5, 1))
    clock.move("a", 0, Reached(10, 2))
    clock.move("b", 0, Reached(20, 3))
    clock.move("a", 2, Reached(30, 4))
    assert clock.before({"a": 3, "b": 1}) == Reached(30, 4)
    assert clock.before({"a": 2, "b": 1}) == Reached(20, 3)
    assert clock.before({"a": 1, "b": 1}) == Reached(20, 3)
    assert clock.before({"a": 3, "b": 0}) == Reached(10, 2)
    assert clock.before({"a": 0, "b": 1}) == Reached(5, 1)
    clock.forget("a", 1, lambda: [2])
    clock.forget("c", 9, lambda: [])
    assert clock.before({"a": 1, "b": 0}) == Reached(10, 2)


# -- packed rows -------------------------------------------------------------------------------------------------------


@given(st.text(max_size=60), st.binary(max_size=60))
@settings(deadline=None)
def test_a_row_and_its_provenance_come_back(event_id: str, value: bytes) -> None:
    assert unpack(pack(event_id, value)) == (event_id, value)


def test_a_long_id_is_cut_the_row_is_not() -> None:
    event_id, value = unpack(pack("ä" * 200, b"row"))
    assert value == b"row"
    assert len(event_id.encode(errors="replace")) <= ID_BYTES_MAX + 3
    assert event_id.startswith("ä" * 127)


# -- validation --------------------------------------------------------------------------------------------------------

FACTS = {"out": TopicFacts(4, 1_000), "log": TopicFacts(4, 2_000)}


def violation(outcome: Outcome, entity: str = "e") -> str | None:
    found = first_violation(outcome, entity, FACTS, {"t": "log"})
    return None if found is None else found.code


def emitted(value_bytes: int, partition: int | None = None, headers: tuple[tuple[str, bytes], ...] = ()) -> Outcome:
    return Outcome(emits=[OutRecord("out", partition, b"k", b"x" * value_bytes, headers)])


def test_a_record_at_its_limit_passes_and_one_byte_more_does_not() -> None:
    room = 1_000 - record_bytes(b"k", b"", ())
    assert violation(emitted(room)) is None
    assert violation(emitted(room + 1)) == "CH0305"


def test_headers_count() -> None:
    room = 1_000 - record_bytes(b"k", b"", (("h", b"v"),))
    assert violation(emitted(room, headers=(("h", b"v"),))) is None
    assert violation(emitted(room, headers=(("h", b"vv"),))) == "CH0305"


def test_a_row_is_measured_against_its_changelog() -> None:
    room = 2_000 - record_bytes(b"e", b"", ())
    assert violation(Outcome(rows=[RowWrite("t", b"x" * room, ())])) is None
    assert violation(Outcome(rows=[RowWrite("t", b"x" * (room + 1), ())])) == "CH0305"
    assert violation(Outcome(rows=[RowWrite("t", b"x" * room, ())]), entity="longer") == "CH0305"
    assert violation(Outcome(rows=[RowWrite("t", None, ())])) is None


@pytest.mark.parametrize(("partition", "code"), [(None, None), (0, None), (3, None), (4, "CH0301"), (-1, "CH0301")])
def test_a_partition_must_exist(partition: int | None, code: str | None) -> None:
    assert violation(emitted(1, partition)) == code


def test_the_overhead_covers_a_batch_of_one_record() -> None:
    assert BATCH_OVERHEAD_BYTES >= 61 + 30  # batch header and record framing of Kafka's format 2


# -- against brute force -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_merge_of_what_is_all_there_takes_the_earliest_head(added: list[tuple[str, int]]) -> None:
    merge: Merge[tuple[str, int, int]] = Merge("abc", 10)
    queues: dict[str, list[tuple[str, int, int]]] = {"a": [], "b": [], "c": []}
    for number, (topic, time_ms) in enumerate(added):
        merge.add(topic, time_ms, (topic, time_ms, number))
        queues[topic].append((topic, time_ms, number))
    for topic in "abc":
        merge.reach_end(topic)
    expected = []
    while any(queues.values()):
        first = min((queue for queue in queues.values() if queue), key=lambda queue: queue[0][1])
        expected.append(first.pop(0))
    found = [merge.release(0) for _ in added]
    assert [item and item[1] for item in found] == [item[1] for item in expected]
    assert found == expected
    assert merge.release(0) is None
    assert merge.drained


@given(st.lists(st.integers(0, 30), max_size=30), st.data())
@settings(max_examples=200, deadline=None)
def test_the_clock_before_an_input_is_the_highest_time_of_those_before_it(
    times: list[int], data: st.DataObject
) -> None:
    """Of one topic. With several, what another topic's finished inputs moved stays moved: they are not read again."""
    clock = EventClock(Reached(-1, 0))
    for offset, time_ms in enumerate(times):
        if time_ms > clock.now.event_time_ms:
            clock.move("a", offset, Reached(time_ms, time_ms))
    lows = data.draw(st.lists(st.integers(0, len(times)), min_size=1).map(sorted))  # of what may be unfinished
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_clock, "MOVERS_MIN", data.draw(st.integers(0, 40)))
        clock.forget("a", lows[0], lambda: lows)
    for low in lows:
        assert clock.before({"a": low}).event_time_ms == max(times[:low], default=-1)


def test_one_slow_input_does_not_make_the_clock_remember_all_that_follow() -> None:
    clock = EventClock(Reached(-1, 0))
    for offset in range(1, 20 * event_clock.MOVERS_MIN):
        clock.move("a", offset, Reached(offset, 0))
        if offset % 100 == 0:
            clock.forget("a", 0, lambda: [0])
    assert len(clock._movers["a"]) <= event_clock.MOVERS_MIN + 100
    assert clock.before({"a": 0}) == Reached(-1, 0)


def test_timers_set_anew_with_every_event_leave_nothing_behind() -> None:
    timers = Timers()
    for number in range(10_000):
        timers.set(TimerRow("e", "idle", number, str(number), ORIGIN))
        timers.set(TimerRow("f", "idle", number, f"f{number}", ORIGIN), held=True)
    assert len(timers.heap) <= 2 * len(timers) + OUTDATED_MIN
    assert timers.next_at_ms() == 9_999


def test_what_comes_while_nothing_is_read_is_unread() -> None:
    merge: Merge[int] = Merge("a", 10)
    merge.reach_end("a")
    merge.pause()
    assert not merge.drained
    merge.reach_end("a")
    assert merge.drained
