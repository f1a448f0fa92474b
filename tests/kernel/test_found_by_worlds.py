"""Faults that the simulated worlds or a reading of the engine found. Each stays here as the shortest schedule."""

from __future__ import annotations

import pytest

import choreo.kernel.burst as burst_module
from choreo.errors import EngineError
from choreo.kernel.burst import BURST_BYTES_MAX
from choreo.kernel.engine import BUFFERED_BYTES_MAX, Refusals
from choreo.kernel.progress import METADATA_CHARS_MAX, Snapshot, encode_metadata
from choreo.kernel.restore import Ends, starting_point
from choreo.kernel.values import Envelope, InputTopic, Settlement, TimerRow
from tests.kernel.rig import IN, INBOX, SECOND, Rig, steps_of

ORIGIN = Envelope("set-by", "", 0, "set-by", "", 0, "", "", "")
DEDUPE = (InputTopic(IN, 1_000_000), InputTopic(INBOX, inbox=True))


def test_a_repeated_event_that_queued_behind_its_parked_original_is_handled_once() -> None:
    rig = Rig(inputs=DEDUPE)
    rig.send("park", id="twice")
    rig.send("park", id="twice")
    assert steps_of(rig.commit()) == [("twice", "parked 0"), ("twice", "parked 1")]
    rig.script.cured.add("twice")
    rig.retry()
    assert steps_of(rig.commit())[:2] == [("twice", "done"), ("twice", "duplicate")]
    assert rig.count() == 1


def test_a_dead_letter_sent_again_is_handled_although_its_id_was_seen() -> None:
    rig = Rig(inputs=DEDUPE)
    original = rig.send("broken", id="once")
    assert steps_of(rig.commit()) == [("once", "dead CH9003")]
    rig.script.cured.add("once")
    rig.settle(Settlement("redrive", "a", -1, "me", "", original))
    assert steps_of(rig.commit()) == [("once", "done")]


def test_a_dead_letter_sent_again_that_has_to_queue_is_handled_in_the_end() -> None:
    rig = Rig(inputs=DEDUPE)
    original = rig.send("broken", id="once")
    rig.send("park", id="stuck")
    rig.commit()
    rig.script.cured |= {"once", "stuck"}
    rig.settle(Settlement("redrive", "a", -1, "me", "", original))
    assert steps_of(rig.commit()) == [("once", "parked 1")]
    rig.retry()
    assert steps_of(rig.commit())[:2] == [("stuck", "done"), ("once", "done")]


def test_a_restart_does_not_fire_timers_ahead_of_events_that_were_under_way() -> None:
    rig = Rig()
    rig.send("timer", time=10)  # rings at 1,010
    rig.send("call cancel", time=20)
    rig.send("", "b", time=5_000)  # moves the event clock past the alarm, which queues behind the waiting step
    bursts = rig.commit()
    checkpoint = next(one for one in bursts[-1].checkpoints if one.topic == IN)
    assert checkpoint.low == 1
    assert checkpoint.done == ((2, 3),)
    heir = Rig()
    heir.engine.revoke([0])
    heir.engine.assign(0)
    timer = TimerRow("a", "alarm", 1_010, "t", ORIGIN)
    heir.restore(
        progress={IN: Snapshot(checkpoint.low, checkpoint.done)},
        event_time_ms=checkpoint.event_time_ms,
        timers=(timer,),
    )
    heir.pump()
    assert steps_of(heir.commit()) == []
    heir.send("call cancel", time=20)
    heir.send("", "b", time=5_000)  # finished before: skipped
    heir.pump()
    heir.answer()
    heir.reach_end()
    heir.reach_end(INBOX)
    assert steps_of(heir.commit()) == [("in/0/1", "done")]


def test_the_event_clock_that_was_committed_does_not_go_back_when_nothing_is_under_way() -> None:
    rig = Rig(inputs=(InputTopic(IN), InputTopic(SECOND), InputTopic(INBOX, inbox=True)))
    rig.send("", time=50)
    rig.send("", topic=SECOND, time=70)
    rig.reach_end(IN)
    rig.reach_end(SECOND)
    burst = rig.commit()[-1]
    assert {one.event_time_ms for one in burst.checkpoints} == {70}


def test_an_aborted_burst_takes_the_committed_event_clock_back_with_it() -> None:
    rig = Rig()
    rig.send("", "a", time=50)
    rig.send("", "b", time=70)
    burst = rig.burst()
    assert burst is not None
    rig.engine.put_back(burst)
    rig.engine.revoke([0])
    rig.engine.assign(0)
    rig.restore()
    burst = rig.burst()
    assert burst is not None
    assert {one.event_time_ms for one in burst.checkpoints} == {-1}


def test_a_clock_that_jumps_back_delays_a_retry_by_its_backoff_at_most() -> None:
    rig = Rig()
    rig.send("flaky")
    rig.pump()
    rig.pump(-3_600_000)
    rig.pump(30_000)
    assert steps_of(rig.commit()) == [("in/0/0", "done")]


def test_a_clock_that_jumps_back_does_not_stop_the_merge() -> None:
    rig = Rig(inputs=(InputTopic(IN), InputTopic(SECOND), InputTopic(INBOX, inbox=True)), merge_wait_ms=100)
    rig.send("", time=50)
    rig.pump()
    rig.pump(-3_600_000)
    rig.pump(100)
    assert steps_of(rig.commit()) == [("in/0/0", "done")]


def test_a_clock_that_jumps_back_delays_a_timer_by_its_time_at_most() -> None:
    rig = Rig()
    rig.send("timer", time=10)
    rig.reach_end()
    rig.reach_end(INBOX)
    rig.commit()
    rig.pump(-3_600_000)
    rig.pump(1_001)
    assert [ended for _, ended in steps_of(rig.commit())] == ["done"]


def test_a_slow_entity_does_not_pause_its_partition_however_much_flows_past_it() -> None:
    rig = Rig()
    rig.send("call", "slow")
    large = b" " * (BUFFERED_BYTES_MAX // 8)
    for _ in range(20):
        rig.send(large, "quick")
        rig.commit()
        assert rig.engine.paused() == set()


def test_finished_offsets_that_do_not_fit_go_when_the_lowest_one_of_all_is_finished() -> None:
    """One step at a time, the highest first: each alone leaves a map that is too long, until the lowest goes."""
    refusals = Refusals(singles=10**6)
    rig = Rig(refusals=refusals, in_flight=10_000)
    gap = 10**9  # between offsets: what a long aborted transaction leaves
    for number in range(1_200):
        rig.send("call", f"e{number}", offset=number * gap)
    rig.pump()
    order = [f"e{number}" for number in range(1_199, 0, -2)] + [f"e{number}" for number in range(0, 1_200, 2)]
    for entity in order:
        rig.answer(entity)
    for _ in range(1_300):
        burst = rig.engine.take_burst(rig.now_ms)
        if burst is None:
            break
        assert all(len(commit.metadata) <= METADATA_CHARS_MAX for commit in burst.offsets)
        rig.committed(burst)
    assert rig.engine.statistics().committed == 1_200


def test_a_large_step_that_does_not_fit_lets_the_others_pass() -> None:
    rig = Rig(in_flight=10_000)
    gap = 10**9
    for number in range(1_200):
        rig.send("call", f"e{number}", offset=number * gap)
    rig.pump()
    for number in range(1_199, -1, -2):
        rig.answer(f"e{number}")
        for done in rig.engine._finished:
            done.size = BURST_BYTES_MAX  # each fills a burst of its own
    for number in range(0, 1_200, 2):
        rig.answer(f"e{number}")
    rig.commit()
    assert rig.engine.statistics().committed == 1_200


def test_finished_ranges_past_the_end_of_the_log_are_somebody_elses_log() -> None:
    with pytest.raises(EngineError) as caught:
        starting_point("in/0", Snapshot(5, ((7, 20),)), None, Ends(0, 10), "earliest")
    assert caught.value.code == "CH0307"


def test_nothing_wants_to_run_at_once_while_all_calls_are_taken() -> None:
    """The shell would poll without waiting: a processor burnt for as long as the calls last."""
    rig = Rig(in_flight=1)
    rig.commit()
    rig.send("flaky", "b")
    rig.pump()
    rig.send("call", "a")
    rig.send("", "c")
    rig.pump()
    rig.pump(1_000)  # b's backoff is over
    assert len(rig.calls) == 1
    assert rig.engine.wakes_at_ms(rig.now_ms) is None
    rig.answer()
    assert [event for event, _ in steps_of(rig.commit())] == ["in/0/1", "in/0/0", "in/0/2"]


def test_a_redriven_event_of_another_entity_is_refused() -> None:
    rig = Rig()
    original = rig.delivery("", "b")
    rig.settle(Settlement("redrive", "a", -1, "me", "", original))
    assert [ended for _, ended in steps_of(rig.commit())] == ["dead CH0206"]
    assert rig.count("b") == 0


def test_a_redrive_without_an_original_retries_nothing() -> None:
    rig = Rig()
    rig.send("park", id="stuck")
    rig.commit()
    rig.script.cured.add("stuck")
    rig.settle(Settlement("redrive", "a", -1, "me", "", None))
    assert [ended for _, ended in steps_of(rig.commit())] == ["dead CH0206"]
    assert [row.number for row in rig.engine.parked_rows()] == [0]


@pytest.mark.parametrize("how", ["timer", "parked"])
def test_a_refused_step_of_a_timer_or_a_parked_event_becomes_a_dead_letter(how: str) -> None:
    refusals = Refusals()
    first = Rig(refusals=refusals)
    _with_a_step_without_source(first, how)
    burst = first.burst()
    assert burst is not None
    assert burst.steps[0].source is None
    first.engine.refuse_burst(burst)
    if len(burst.steps) > 1:
        again = Rig(refusals=refusals)
        _with_a_step_without_source(again, how)
        burst = again.burst()
        assert burst is not None
        again.engine.refuse_burst(burst)
    heir = Rig(refusals=refusals)
    _with_a_step_without_source(heir, how)
    assert steps_of(heir.commit())[0][1] == "dead CH0305"
    assert heir.engine.parked_rows() == []
    assert refusals == Refusals()


def _with_a_step_without_source(rig: Rig, how: str) -> None:
    if how == "timer":
        rig.engine.revoke([0])
        rig.engine.assign(0)
        rig.restore(event_time_ms=10, timers=(TimerRow("a", "alarm", 5, "t", ORIGIN),))
    else:
        singles, rig.engine._refusals.singles = rig.engine._refusals.singles, 0
        rig.send("park", id="stuck")
        rig.commit()
        rig.engine._refusals.singles = singles
        rig.script.cured.add("stuck")
        rig.retry()


def test_a_refused_step_is_found_alone_although_the_offset_map_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of parked events stand before the settlement that holds the map back: they all went into one burst, which
    was refused, and again, for ever (world 869 of 207eedb)."""
    refusals = Refusals()
    rig = Rig(refusals=refusals)
    rig.send("park call", id="stuck0")
    rig.send("park", id="stuck1")
    rig.pump()
    rig.answer()
    rig.commit()
    rig.script.cured |= {"stuck0", "stuck1"}
    refusals.singles = 10
    full = len(encode_metadata(Snapshot(0, ()), rig.engine._config.owner))
    monkeypatch.setattr(burst_module, "METADATA_CHARS_MAX", full)
    rig.retry()  # waits for its call
    rig.drop(entity="c")  # finished above it, and there is no room to say so
    assert rig.burst() is None
    rig.calls.update(rig.engine.calls_to_start(regardless=True))
    rig.answer()
    bursts = rig.commit()
    assert [len(burst.steps) for burst in bursts] == [1] * 4
    assert rig.engine.parked_rows() == []
