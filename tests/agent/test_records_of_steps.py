"""Every step leaves a decision that explains it; what cannot be handled leaves a dead letter with its bytes."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.agent.as_json import JSON_CHARS_MAX, as_json
from choreo.agent.context import Context
from choreo.agent.decision import DecisionWriter
from choreo.agent.tool import tool
from choreo.errors import EngineError
from choreo.kernel.envelope import parse_headers
from choreo.kernel.validate import record_bytes
from choreo.kernel.values import Answer, Delivery, Failure, InputTopic, Outcome, Trigger
from tests.agent.world import (
    NOW_MS,
    AircraftState,
    Airport,
    DelayRisk,
    FlightDeparted,
    World,
    decoded,
    fired,
)

LATE = FlightDeparted(tail_number="N1", dep_delay_minutes=45)
FAILED = Failure("CH0303", "it broke", "ValueError", False, False, "agents/x.py:3 in track")


@tool(effect="read")
async def weather_at(airport: str, hours: int = 2) -> str:
    return "clear"


def world(**agent: Any) -> World:
    made = World(agent=agent)

    @made.definition.on(FlightDeparted)
    async def track(event: FlightDeparted, ctx: Context) -> None:
        row = ctx.row(AircraftState)
        row.flights += 1
        ctx.lookup(Airport, "JFK")
        ctx.lookup(Airport, "XXX")
        sky = await ctx.call(weather_at, "JFK")
        if sky == "refuse":
            raise ValueError(sky)
        if sky == "ask":
            ctx.park("which one?")
        ctx.emit(DelayRisk(tail_number=event.tail_number, minutes=row.flights))
        ctx.timer("close", at=ctx.meta.time + timedelta(hours=1))

    @made.definition.on_timer("close")
    async def close(ctx: Context) -> None:
        ctx.park("late")

    made.state.references["airports", "JFK"] = (made.encode(Airport(iata="JFK", city="New York")), 17)
    return made


def decision(outcome: Outcome) -> dict[str, Any]:
    assert outcome.decision is not None
    return decoded("Decision", outcome.decision.value)


def test_a_decision_explains_the_step() -> None:
    made = world()
    made.commit(first := made.event(LATE), made.run(first, Answer("clear", None)))
    headers = (("ce_id", b"e2"), ("ce_causationid", b"e1"), ("ce_correlationid", b"root"), ("ce_choreohop", b"1"))
    outcome = made.run(made.event(LATE, headers=headers), Answer("fog", None, NOW_MS + 5, 37))
    value = decision(outcome)
    before, after = value["rows"][0]["before"], value["rows"][0]["after"]
    assert (made.decode(AircraftState, before).flights, made.decode(AircraftState, after).flights) == (1, 2)
    (call,) = value["calls"]
    assert (call["tool"], json.loads(call["arguments"])) == ("weather_at", {"airport": "JFK", "hours": 2})
    assert (json.loads(call["answer"]), call["error"], call["duration_ms"]) == ("fog", None, 37)
    assert value["references"] == [
        {"table": "airports", "key": "JFK", "offset": 17},
        {"table": "airports", "key": "XXX", "offset": -1},
    ]
    assert value["sources"] == [{"table": "aircraft", "event_id": first.envelope.event_id}]
    (emitted,) = value["emits"]
    assert emitted["event_id"] == dict(outcome.emits[0].headers)["ce_id"].decode()
    assert (emitted["topic"], emitted["type"], emitted["key"]) == ("delay-risks", "logistics.DelayRisk", "N1")
    assert [one["name"] for one in value["timers_set"]] == ["close"]
    assert (value["entity"], value["sequence"], value["outcome"], value["kind"]) == ("N1", 2, "done", "event")
    assert (value["topic"], value["partition"], value["offset"]) == ("flights", 2, 1)
    assert (value["event_id"], value["causation_id"], value["correlation_id"]) == ("e2", "e1", "root")
    assert (value["event_type"], value["hop"]) == ("logistics.FlightDeparted", 2)
    assert value["traceparent"] == dict(outcome.emits[0].headers)["traceparent"].decode()
    assert value["at"] == datetime.fromtimestamp(NOW_MS / 1000, UTC)


def test_a_decision_is_keyed_by_the_entity_in_the_topologys_topic() -> None:
    made = world()
    record = made.run(made.event(LATE), Answer("clear", None)).decision
    assert record is not None
    assert (record.topic, record.key, record.partition) == ("logistics.decisions", b"N1", None)
    headers = dict(record.headers)
    assert headers["ce_type"] == b"choreo.Decision"
    assert headers["ce_id"].decode() == decoded("Decision", record.value)["id"]


def test_audit_brief_keeps_neither_rows_nor_answers_and_off_keeps_nothing() -> None:
    brief = world(audit="brief")
    value = decision(brief.run(brief.event(LATE), Answer("fog", None)))
    assert [(row["table"], row["before"], row["after"]) for row in value["rows"]] == [("aircraft", None, None)]
    assert value["calls"][0]["answer"] is None
    off = world(audit="off")
    outcome = off.run(off.event(LATE), Answer("fog", None))
    assert outcome.decision is None
    assert outcome.rows
    assert off.runner.dead_letter(off.event(LATE), FAILED, off.state, NOW_MS).decision is None


def test_without_decisions_no_topic_for_them_is_needed() -> None:
    assert DecisionWriter(world(audit="off").runner.bindings, None) is not None
    with pytest.raises(EngineError, match=r"logistics\.decisions"):
        DecisionWriter(world(audit="full").runner.bindings, None)


def test_a_failed_step_tells_what_it_had_seen() -> None:
    made = world()
    trigger = made.event(LATE)
    failed = made.advance(trigger, Answer("refuse", None))
    assert isinstance(failed, Failure)
    outcome = made.runner.dead_letter(trigger, failed, made.state, NOW_MS)
    value = decision(outcome)
    assert (value["outcome"], value["code"]) == ("dead_letter", "CH0303")
    assert "refuse" in value["message"]
    assert json.loads(value["calls"][0]["answer"]) == "refuse"
    assert (value["rows"], value["emits"], value["timers_set"]) == ([], [], [])
    assert decision(made.runner.dead_letter(trigger, failed, made.state, NOW_MS))["calls"] == [], "only once"


def test_a_dead_letter_keeps_the_original_bytes_and_the_reason() -> None:
    made = world()
    trigger = made.event(b"\x00garbage", headers=(("ce_id", b"e1"), ("x", b"\xff"), ("x", b"2")))
    trigger.attempt = 3
    record = made.runner.dead_letter(trigger, FAILED, made.state, NOW_MS).dead_letter
    assert record is not None
    assert (record.topic, record.partition, record.key) == ("logistics.aircraft-tracker.dead-letters", 2, b"N1")
    value = decoded("DeadLetter", record.value)
    assert trigger.delivery is not None
    original = value["original"]
    assert (original["topic"], original["partition"], original["offset"]) == ("flights", 2, 0)
    assert (original["key"], original["value"]) == (b"N1", b"\x00garbage")
    assert [(one["name"], one["value"]) for one in original["headers"]] == list(trigger.delivery.headers)
    assert (value["code"], value["message"], value["error_type"], value["attempts"]) == (
        "CH0303",
        "it broke",
        "ValueError",
        4,
    )
    assert (value["entity"], value["event_id"], value["agent"], value["stub"]) == (
        "N1",
        "e1",
        "aircraft_tracker",
        False,
    )


def test_a_dead_letter_too_large_for_its_topic_is_a_stub_with_the_digest() -> None:
    made = world()
    made.message_bytes_max = 5_000
    payload = bytes(10_000)
    record = made.runner.dead_letter(made.event(payload), FAILED, made.state, NOW_MS).dead_letter
    assert record is not None
    assert record_bytes(record.key, record.value, record.headers) <= 5_000
    value = decoded("DeadLetter", record.value)
    assert (value["stub"], value["original"]["value"]) == (True, None)
    assert value["digest"] == hashlib.sha256(payload).hexdigest()
    assert value["original"]["offset"] == 0


def test_a_dead_letter_without_a_readable_key_has_no_entity() -> None:
    made = world()
    for key in (None, b"\xff\xfe"):
        outcome = made.runner.dead_letter(made.event(LATE, key=key), FAILED, made.state, NOW_MS)
        assert outcome.dead_letter is not None
        assert outcome.dead_letter.key == key
        assert decoded("DeadLetter", outcome.dead_letter.value)["entity"] is None
        assert decision(outcome)["sequence"] == 0


def test_a_parked_event_keeps_its_bytes() -> None:
    made = world()
    trigger = made.event(LATE)
    failed = made.advance(trigger, Answer("ask", None))
    assert isinstance(failed, Failure)
    assert failed.park
    outcome = made.runner.park(trigger, failed, 4, made.state, NOW_MS)
    assert outcome.parked is not None
    assert outcome.parked._replace(delivery=trigger.delivery) == outcome.parked
    assert (outcome.parked.number, outcome.parked.reason, outcome.parked.entity) == (4, "which one?", "N1")
    assert decision(outcome)["outcome"] == "parked"
    assert outcome.dead_letter is None


def test_a_timer_that_is_parked_becomes_a_dead_letter_with_its_name() -> None:
    made = world()
    (timer,) = made.run(made.event(LATE), Answer("clear", None)).timers
    failed = made.advance(trigger := fired(timer))
    assert isinstance(failed, Failure)
    outcome = made.runner.park(trigger, failed, 0, made.state, NOW_MS)
    assert outcome.dead_letter is not None
    original = decoded("DeadLetter", outcome.dead_letter.value)["original"]
    assert (original["offset"], original["value"]) == (-1, None)
    assert original["headers"] == [{"name": "choreo_timer", "value": b"close"}]
    value = decision(outcome)
    assert (value["kind"], value["timer"], value["topic"], value["event_id"]) == (
        "timer",
        "close",
        None,
        timer.timer_id,
    )


def test_a_duplicate_leaves_its_decision_only() -> None:
    made = world()
    outcome = made.runner.duplicate(made.event(LATE), made.state, NOW_MS)
    assert decision(outcome)["outcome"] == "duplicate"
    assert outcome == Outcome(decision=outcome.decision)


@given(
    st.one_of(st.none(), st.binary(max_size=40)),
    st.one_of(st.none(), st.binary(max_size=40)),
    st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=9)), max_size=4),
    st.integers(-(2**63), 2**63 - 1),
    st.builds(Failure, st.just("CH0303"), st.text(), st.text(), st.booleans(), st.booleans(), st.text()),
)
def test_any_input_can_become_a_dead_letter(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], timestamp_ms: int, failure: Failure
) -> None:
    made = WORLD
    delivery = Delivery("flights", 3, 9, timestamp_ms, key, value, headers)
    envelope = parse_headers(delivery, InputTopic("flights"))
    trigger = Trigger("event", (key or b"").decode(errors="replace"), delivery, envelope)
    outcome = made.runner.dead_letter(trigger, failure, made.state, NOW_MS)
    assert outcome.dead_letter is not None
    original = decoded("DeadLetter", outcome.dead_letter.value)["original"]
    assert (original["key"], original["value"], original["timestamp_ms"]) == (key, value, timestamp_ms)
    assert decision(outcome)["code"] == "CH0303"


WORLD = world()


def test_a_decision_too_large_for_its_topic_leaves_out_rows_and_answers() -> None:
    made = world()
    made.message_bytes_max = 4_000
    outcome = made.run(made.event(LATE), Answer("x" * 10_000, None))
    value = decision(outcome)
    assert (value["calls"][0]["answer"], value["rows"][0]["after"]) == (None, None)
    made = world()
    made.message_bytes_max = 1_060
    value = decision(made.run(made.event(LATE), Answer("clear", None)))
    assert (value["calls"], value["rows"], value["event_id"] != "") == ([], [], True)


def test_a_decision_that_choreo_could_not_read_leaves_out_the_lists() -> None:
    made = World()

    @made.definition.on(FlightDeparted)
    async def track(event: FlightDeparted, ctx: Context) -> None:
        ctx.row(AircraftState).flights += 1
        for number in range(20_000):
            ctx.lookup(Airport, f"{number}\ud800")

    outcome = made.run(made.event(LATE))
    value = decision(outcome)
    assert (value["references"], value["rows"], value["outcome"]) == ([], [], "done")
    assert len(outcome.rows) == 1


def test_keys_that_are_no_text_are_kept_with_question_marks() -> None:
    made = World()

    @made.definition.on(FlightDeparted)
    async def track(event: FlightDeparted, ctx: Context) -> None:
        ctx.lookup(Airport, "J\ud800K")

    value = decision(made.run(made.event(LATE)))
    assert value["references"] == [{"table": "airports", "key": "J?K", "offset": -1}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": datetime(2013, 1, 1, tzinfo=UTC)}, '{"a":"2013-01-01T00:00:00+00:00"}'),
        (timedelta(seconds=90), "90.0"),
        ({3, 1, 2}, "[1,2,3]"),
        (b"\xff", '"ff"'),
        (LATE, '{"tail_number":"N1","dep_delay_minutes":45}'),
        ("\ud800", '"?"'),
        ({(1, 2): 3}, "{}"),
    ],
)
def test_answers_are_kept_as_json(value: Any, expected: str) -> None:
    assert as_json(value) == expected


def test_a_huge_answer_is_cut_and_marked() -> None:
    kept = json.loads(as_json("x" * JSON_CHARS_MAX))
    assert kept["chars"] == JSON_CHARS_MAX + 2
    assert len(kept["cut"]) == 1_000
