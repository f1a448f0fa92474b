"""Parked events: what comes later queues behind them, durably, until a person decides."""

from __future__ import annotations

import pytest

import choreo.kernel.engine as engine_module
from choreo.kernel.values import Settlement
from tests.kernel.rig import Rig, steps_of


def parked_rig(*more: str) -> Rig:
    rig = Rig()
    rig.send("park", id="first")
    for number, value in enumerate(more):
        rig.send(value, id=f"later{number}")
    rig.commit()
    return rig


def test_later_events_of_the_entity_queue_behind_and_others_go_on() -> None:
    rig = Rig()
    rig.send("park", "a", id="first")
    rig.send("", "a", id="second")
    rig.send("", "b", id="other")
    bursts = rig.commit()
    assert steps_of(bursts) == [("first", "parked 0"), ("second", "parked 1"), ("other", "done")]
    assert bursts[-1].offsets[0].offset == 3
    rows = rig.engine.parked_rows()
    assert [(row.number, row.code, row.event_id) for row in rows] == [(0, "CH9004", "first"), (1, "CH0312", "second")]
    assert "first" in rows[1].reason


def test_a_retry_runs_them_in_order_before_what_came_later() -> None:
    rig = parked_rig("", "call")
    rig.script.cured.add("first")
    rig.retry()
    rig.send("", id="new")
    assert steps_of(rig.commit())[:2] == [("first", "done"), ("later0", "done")]
    rig.answer()
    assert [one for one in steps_of(rig.commit()) if one[1] != "nothing"] == [("later1", "done"), ("new", "done")]
    assert rig.engine.parked_rows() == []
    assert rig.count() == 4
    assert rig.engine.idle


def test_the_rows_of_settled_events_are_deleted_in_the_same_burst() -> None:
    rig = parked_rig("")
    rig.script.cured.add("first")
    rig.retry()
    burst = rig.burst()
    assert burst is not None
    assert burst.parked == {(0, "a", 0): None, (0, "a", 1): None}


def test_an_event_that_parks_again_stops_the_rest() -> None:
    rig = parked_rig("", "")
    rig.retry()
    rig.send("", id="new")
    assert steps_of(rig.commit()) == [("first", "parked 0"), ("inbox/0/0", "nothing"), ("new", "parked 3")]
    assert [row.number for row in rig.engine.parked_rows()] == [0, 1, 2, 3]
    assert rig.engine.idle


def test_a_later_one_that_parks_again_keeps_its_place() -> None:
    rig = parked_rig("park", "")
    rig.script.cured.add("first")
    rig.retry()
    assert steps_of(rig.commit())[:2] == [("first", "done"), ("later0", "parked 1")]
    assert [row.event_id for row in rig.engine.parked_rows()] == ["later0", "later1"]


def test_a_retry_that_fails_for_good_is_a_dead_letter() -> None:
    rig = Rig()
    rig.send("park broken", id="first")
    rig.send("", id="second")
    assert steps_of(rig.commit()) == [("first", "dead CH9003"), ("second", "done")]


def test_a_retried_event_that_fails_retryably_backs_off_and_holds_the_rest() -> None:
    rig = parked_rig("flaky", "")
    rig.script.cured.add("first")
    rig.retry()
    assert steps_of(rig.commit()) == [("first", "done")]
    rig.pump(100)
    assert steps_of(rig.commit())[:2] == [("later0", "done"), ("later1", "done")]


def test_a_dropped_event_is_a_dead_letter_that_says_who_and_why() -> None:
    rig = parked_rig("", "")
    rig.drop(1)
    bursts = rig.commit()
    assert steps_of(bursts)[0] == ("later0", "dead CH0312")
    letter = next(done.outcome.dead_letter for done in bursts[0].steps if done.outcome.dead_letter is not None)
    assert b"dropped by me: no use" in (letter.value or b"")
    assert [row.number for row in rig.engine.parked_rows()] == [0, 2]


def test_dropping_all_frees_the_entity() -> None:
    rig = parked_rig("", "")
    rig.drop()
    rig.send("", id="new")
    assert [ended for _, ended in steps_of(rig.commit())] == ["dead CH0312"] * 3 + ["nothing", "done"]
    assert rig.engine.parked_rows() == []


def test_decisions_about_nothing_are_finished_and_change_nothing() -> None:
    rig = Rig()
    rig.retry()
    rig.drop(5)
    bursts = rig.commit()
    assert [ended for _, ended in steps_of(bursts)] == ["nothing", "nothing"]
    assert rig.engine.idle


def test_a_redriven_event_queues_behind_parked_ones() -> None:
    rig = Rig()
    original = rig.send("broken", id="dead")
    rig.send("park", id="first")
    rig.commit()
    rig.script.cured.add("dead")
    rig.settle(Settlement("redrive", "a", -1, "me", "", original))
    assert steps_of(rig.commit()) == [("dead", "parked 1")]
    assert rig.engine.idle


def test_what_does_not_fit_behind_becomes_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "PARKED_MAX", 3)
    rig = parked_rig("", "")
    rig.send("", id="too much")
    assert steps_of(rig.commit()) == [("too much", "dead CH0313")]
    rig.retry()  # parks again although the entity is full: it keeps its own place
    assert steps_of(rig.commit())[0] == ("first", "parked 0")
    assert len(rig.engine.parked_rows()) == 3


def test_the_bound_is_a_thousand() -> None:
    assert engine_module.PARKED_MAX == 1_000


def test_parked_events_come_back_after_a_restart_and_hold_what_comes() -> None:
    rig = parked_rig("")
    heir = Rig(script=rig.script)
    heir.engine.revoke([0])
    heir.engine.assign(0)
    heir.restore(parked=tuple(reversed(rig.engine.parked_rows())))
    heir.send("", id="new")
    assert steps_of(heir.commit()) == [("new", "parked 2")]
    heir.script.cured.add("first")
    heir.retry()
    assert [event_id for event_id, ended in steps_of(heir.commit()) if ended == "done"] == ["first", "later0", "new"]


# -- timers ------------------------------------------------------------------------------------------------------------


def test_timers_of_a_parked_entity_are_held_until_it_is_free() -> None:
    rig = Rig()
    rig.send("timer", "a", id="sets", time=10)  # rings at 1,010
    rig.send("timer", "b", id="sets too", time=10)
    rig.send("park", "a", id="first", time=20)
    rig.commit()
    rig.send("", "c", id="later", time=2_000)
    assert len([one for one in steps_of(rig.commit()) if one[1] == "done"]) == 2  # b's timer and the event
    rig.script.cured.add("first")
    rig.retry("a")
    ended = [one for one in steps_of(rig.commit()) if one[1] == "done"]
    assert ended[0] == ("first", "done")
    assert len(ended) == 2, "then the timer fires"
    assert rig.count("a") == 3


def test_a_held_timer_that_is_cancelled_meanwhile_does_not_fire() -> None:
    rig = Rig()
    rig.send("timer", id="sets", time=10)
    rig.send("park cancel", id="first", time=20)
    rig.send("", "c", time=2_000)
    rig.commit()
    rig.script.cured.add("first")
    rig.retry()
    assert [one for one in steps_of(rig.commit()) if one[1] == "done"] == [("first", "done")]
    assert rig.engine.statistics().partitions[0].timers == 0
