"""Decisions of usual steps are filled into templates; byte for byte they are those written the long way."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.agent import decision
from choreo.agent.context import Context
from choreo.agent.decision import DecisionWriter
from choreo.kernel.values import Outcome, OutRecord, TopicFacts
from tests.agent.world import (
    NOW_MS,
    AircraftState,
    DelayRisk,
    FlightDeparted,
    Rerouted,
    World,
    decoded,
)

FACTS = TopicFacts(4, 1_048_576)


class LongWay(DecisionWriter):
    def _usual(self, *_: Any) -> OutRecord | None:
        return None


class Act(NamedTuple):
    """What one step does."""

    row: str  # nothing, read, change, delete
    emits: tuple[str, ...]
    headers: tuple[tuple[str, bytes], ...]
    flights: int


IDS = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=60).map(str.encode)
NAMES = ["ce_id", "ce_type", "ce_correlationid", "ce_causationid", "tracestate", "baggage"]
TIMES = st.datetimes().map(lambda at: f"{at.isoformat()}Z".encode())
ACTS = st.builds(
    Act,
    st.sampled_from(["nothing", "read", "change", "delete"]),
    st.lists(st.sampled_from(["risk", "long risk", "reroute"]), max_size=4).map(tuple),
    st.dictionaries(st.sampled_from(NAMES), IDS).flatmap(
        lambda known: st.one_of(st.none(), TIMES).map(
            lambda time: (*known.items(), *((("ce_time", time),) if time else ()), ("ce_choreohop", b"11"))
        )
    ),
    st.integers(-(2**31), 2**31 - 1),
)


def world(audit: str, key: str) -> tuple[World, list[Act], list[Context]]:
    made = World(agent={"audit": audit, "writes": ("delay-risks", "reroutes")})
    script: list[Act] = []
    contexts: list[Context] = []

    @made.definition.on(FlightDeparted)
    async def track(event: FlightDeparted, ctx: Context) -> None:
        contexts.append(ctx)
        act = script[-1]
        if act.row != "nothing":
            row = ctx.row(AircraftState)
            if act.row == "change":
                row.flights = act.flights
            if act.row == "delete":
                ctx.delete(AircraftState)
        for one in act.emits:
            minutes = 10**9 if one == "long risk" else 1
            ctx.emit(Rerouted(tail_number=key) if one == "reroute" else DelayRisk(tail_number=key, minutes=minutes))

    return made, script, contexts


def both_ways(made: World, act: Act, script: list[Act], contexts: list[Context], key: str) -> tuple[Any, Any]:
    script.append(act)
    event = FlightDeparted(tail_number=key, dep_delay_minutes=45)
    trigger = made.event(event, key=key.encode(), headers=act.headers)
    outcome = made.run(trigger)
    changes = Outcome(outcome.rows, outcome.emits)
    long_way = LongWay(made.runner.bindings, FACTS).write(
        "done", trigger, made.state, NOW_MS, ctx=contexts[-1], changes=changes
    )
    made.commit(trigger, outcome)
    return outcome.decision, long_way


@given(st.sampled_from(["full", "brief"]), IDS.map(bytes.decode), st.lists(ACTS, min_size=1, max_size=6))
def test_a_filled_decision_is_the_one_written_the_long_way(audit: str, key: str, acts: list[Act]) -> None:
    made, script, contexts = world(audit, key)
    for act in acts:
        usual, long_way = both_ways(made, act, script, contexts, key)
        assert usual == long_way
        assert decoded("Decision", usual.value)["outcome"] == "done"


def test_usual_steps_do_use_templates() -> None:
    made, script, contexts = world("full", "N1")
    for number in range(5):
        both_ways(made, Act("change", ("risk",), (), number + 1), script, contexts, "N1")
    assert len(made.runner._decisions._templates) == 2, "with and without a row before"


def test_a_sender_cannot_spoil_a_template_with_its_marks() -> None:
    made, script, contexts = world("full", "N1")
    headers = (("ce_id", b"place 0"), ("ce_type", b"place 5"), ("ce_correlationid", b"place 9"))
    usual, long_way = both_ways(made, Act("change", ("risk",), headers, 1), script, contexts, "place 1")
    assert usual == long_way
    assert len(made.runner._decisions._templates) == 1


def test_without_a_template_decisions_are_written_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision, "TEMPLATES_MAX", 1)
    made, script, contexts = world("full", "N1")
    for emits in (("risk",), ("reroute",), ("risk", "reroute"), ("risk",) * 40):
        usual, long_way = both_ways(made, Act("nothing", emits, (), 0), script, contexts, "N1")
        assert usual == long_way
        assert len(decoded("Decision", usual.value)["emits"]) == len(emits)
    assert len(made.runner._decisions._templates) == 1


def test_a_decision_too_long_to_pass_unchecked_is_written_the_long_way() -> None:
    made, script, contexts = world("full", key := "N" * 20_000)
    acts = [Act("change", ("risk",), (), number) for number in range(3)]
    ways = [both_ways(made, act, script, contexts, key) for act in acts]
    assert all(usual == long_way for usual, long_way in ways)
    limit = made.runner._decisions._encoder.unchecked_bytes
    assert any(len(usual.value) > limit for usual, _ in ways)
