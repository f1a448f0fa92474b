"""The driver runs agents as a live worker does, deterministically, and says what went wrong."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from choreo.agent.context import Context
from choreo.errors import ChoreoError, ToolError
from choreo.kernel.ids import event_id
from choreo.kernel.partitioner import murmur2_partition
from choreo.runtime.project import Project
from choreo.testing import TopologyDriver
from tests.agent.world import AircraftState, Airport, DelayRisk, FlightDeparted, Rerouted, RiskCount
from tests.testing.logistics import aircraft_tracker, recovery

T = datetime(2013, 1, 1, 10, tzinfo=UTC)


def driver(project: Project, **options: Any) -> TopologyDriver:
    return TopologyDriver("topologies/logistics.yaml", project=project, **options)


def departed(tail_number: str, minutes: int) -> FlightDeparted:
    return FlightDeparted(tail_number=tail_number, dep_delay_minutes=minutes)


def test_one_agent_takes_events_and_leaves_events_and_rows(project: Project) -> None:
    one = driver(project, agents=[aircraft_tracker.app])
    one.send(departed("N1", 45))
    assert one.read(DelayRisk) == [DelayRisk(tail_number="N1", minutes=45)]
    assert one.read(DelayRisk) == [], "read already"
    row = one.row(AircraftState, "N1")
    assert row is not None
    assert (row.flights, row.delay_minutes) == (1, 45)
    assert one.row(AircraftState, "N2") is None
    assert one.row(RiskCount, "N1") is None, "that agent doesn't run"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_whole_topology_runs_until_it_is_quiet(project: Project, seed: int) -> None:
    whole = driver(project, seed=seed)
    for tail_number in ("N1", "N2", "N1"):
        whole.send(departed(tail_number, 45))
    assert whole.read(Rerouted) == [Rerouted(tail_number="N1")]
    assert whole.row(RiskCount, "N1") is None, "deleted"
    assert whole.row(RiskCount, "N2") == RiskCount(tail_number="N2", risks=1)
    assert [one.tail_number for one in whole.read(FlightDeparted)] == ["N1", "N2", "N1"]


def test_the_same_test_twice_gives_the_same_bytes(project: Project) -> None:
    def run() -> Any:
        one = driver(project)
        for number in range(20):
            one.send(departed(f"N{number % 3}", 20 + number), at=T + timedelta(minutes=number))
        one.advance(timedelta(hours=2))
        return {topic: one.bus.history(topic)[0] for topic in one.bus.topics}

    assert run() == run()


def test_causes_are_linked_across_agents(project: Project) -> None:
    whole = driver(project)
    first = whole.send(departed("N1", 45))
    whole.send(departed("N1", 46))
    tracked, counted = [one for one in whole.decisions() if one["event_id"] == first or one["causation_id"] == first]
    assert (tracked["agent"], counted["agent"]) == ("aircraft_tracker", "recovery")
    assert counted["event_id"] == event_id("logistics", "aircraft_tracker", first, 0)
    assert counted["correlation_id"] == tracked["correlation_id"] == first
    assert (tracked["hop"], counted["hop"]) == (1, 2)
    assert counted["traceparent"][:35] == tracked["traceparent"][:35]
    last = whole.decisions()[-1]
    assert last["sources"] == [{"table": "risks", "event_id": counted["event_id"]}]


def test_event_time_moves_virtual_time_and_fires_timers_on_the_way(project: Project) -> None:
    one = driver(project, agents=["aircraft_tracker"])
    one.send(departed("N1", 0), at=T)
    assert one.clock.now == T
    one.send(departed("N2", 0), at=T + timedelta(minutes=59))
    assert one.read(DelayRisk) == []
    one.send(departed("N3", 0), at=T + timedelta(hours=3))
    assert [risk.tail_number for risk in one.read(DelayRisk)] == ["N1", "N2"]
    one.send(departed("N4", 0), at=T)
    assert one.clock.now == T + timedelta(hours=3), "a late event doesn't turn time back"


def test_advancing_fires_timers_once_at_their_time(project: Project) -> None:
    one = driver(project, agents=["aircraft_tracker"])
    one.send(departed("N1", 0), at=T)
    one.advance(timedelta(minutes=30))
    one.send(departed("N1", 1))
    one.advance(timedelta(minutes=59))
    assert one.read(DelayRisk) == [], "set anew by the second flight"
    one.advance(timedelta(minutes=1))
    assert one.read(DelayRisk) == [DelayRisk(tail_number="N1", minutes=999)]
    one.advance(timedelta(days=30))
    assert one.read(DelayRisk) == []


def test_tools_answer_what_the_test_says_and_pure_ones_run(project: Project) -> None:
    one = driver(project, agents=["aircraft_tracker"])
    one.load(Airport(iata="JFK", city="New York"))
    assert one.row(Airport, "JFK") == Airport(iata="JFK", city="New York")
    one.answer(aircraft_tracker.weather_at, "fog", "clear")
    one.send(departed("N1", 200))
    one.send(departed("N1", 201))
    assert [risk.minutes for risk in one.read(DelayRisk)] == [400, 201]
    one.answer("weather_at", "fog")
    one.answer("doubled", 7)
    one.send(departed("N1", 200))
    assert one.read(DelayRisk) == []
    with pytest.raises(ToolError, match=r"weather_at\(city='New York'\) has no answer"):
        one.send(departed("N1", 202))


def test_a_failing_tool_is_tried_again_in_virtual_time(project: Project) -> None:
    one = driver(project, agents=["aircraft_tracker"])
    one.load(Airport(iata="JFK", city="New York"))
    one.answer("weather_at", ConnectionError("gone"), "fog")
    one.send(departed("N1", 200))
    assert one.read(DelayRisk) == []
    one.advance(timedelta(seconds=1))
    assert [risk.minutes for risk in one.read(DelayRisk)] == [400]


@pytest.mark.parametrize("error", [ZeroDivisionError(), SystemExit(3), StopIteration()])
def test_a_pure_tool_that_fails_does_so_in_the_handler(
    project: Project, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    @functools.wraps(aircraft_tracker.doubled.function)
    async def failing(n: int) -> int:
        raise error

    monkeypatch.setattr(aircraft_tracker.doubled, "function", failing)
    one = driver(project, agents=["aircraft_tracker"], strict=False)
    one.load(Airport(iata="JFK", city="New York"))
    one.answer("weather_at", "fog")
    one.send(departed("N1", 200))
    (letter,) = one.dead_letters()
    assert letter["code"] == "CH0401"


def test_a_timer_that_sets_itself_at_once_for_ever_ends_the_test(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def again(ctx: Context) -> None:
        ctx.timer("silent", at=ctx.meta.time)

    monkeypatch.setitem(aircraft_tracker.app.definition.timers, "silent", again)
    monkeypatch.setattr("choreo.testing.driver.SETTLE_STEPS_MAX", 100)
    one = driver(project, agents=["aircraft_tracker"])
    one.send(departed("N1", 0), at=T)
    with pytest.raises(ChoreoError, match="no end after 100 steps at 2013-01-01T11:00:00"):
        one.advance(timedelta(hours=2))


def test_a_dead_letter_fails_the_test_with_the_error(project: Project) -> None:
    one = driver(project, agents=["aircraft_tracker"])
    with pytest.raises(ChoreoError, match="ValueError: a negative delay") as caught:
        one.send(departed("N1", -2))
    assert caught.value.code == "CH0303"
    assert "aircraft_tracker.py" in caught.value.message
    assert caught.value.where is not None
    assert caught.value.where.startswith("flights/")
    one.send(departed("N1", 45))
    assert len(one.read(DelayRisk)) == 1, "the driver goes on"


def test_dead_letters_can_be_looked_at_instead(project: Project) -> None:
    one = driver(project, agents=["aircraft_tracker"], strict=False)
    one.send(departed("N1", -2))
    one.send_bytes("flights", key=b"N1", value=b"\x00garbage")
    one.send_bytes("flights", key=None, value=b"")
    elsewhere = next(n for n in range(4) if n != murmur2_partition(b"N1", 4))
    one.send_bytes("flights", key=b"N1", value=b"", partition=elsewhere)
    assert [letter["code"] for letter in one.dead_letters()] == ["CH0303", "CH0205", "CH0206", "CH0301"]
    assert one.row(AircraftState, "N1") is None, "a failed step leaves nothing"


def test_a_retried_step_ends_as_a_dead_letter_after_its_attempts(project: Project) -> None:
    one = driver(project, agents=["aircraft_tracker"], strict=False)
    one.send(departed("N1", 7))
    assert one.dead_letters() == []
    one.advance(timedelta(minutes=5))
    (letter,) = one.dead_letters()
    assert (letter["code"], letter["attempts"]) == ("CH0304", 6)


def test_a_parked_event_holds_its_entity_and_no_other(project: Project) -> None:
    one = driver(project, agents=["aircraft_tracker"])
    parked = one.send(departed("N1", -1))
    behind = one.send(departed("N1", 45))
    one.send(departed("N2", 46))
    assert one.parked() == [parked, behind]
    assert [risk.minutes for risk in one.read(DelayRisk)] == [46]


def test_what_the_topology_does_not_have_is_named(project: Project) -> None:
    with pytest.raises(ChoreoError, match="aircraft_tracker, recovery"):
        driver(project, agents=["nobody"])
    one = driver(project, agents=[recovery.app])
    with pytest.raises(ChoreoError, match="no topic carries"):
        one.send(AircraftState(tail_number="N1"))
    with pytest.raises(ChoreoError, match="flights, delay-risks, reroutes"):
        one.send(departed("N1", 1), topic="trains")
    with pytest.raises(ChoreoError, match="no table holds"):
        one.row(DelayRisk, "N1")
    with pytest.raises(ChoreoError, match=r"topic delay-risks carries DelayRisk, not logistics\.FlightDeparted"):
        one.send(departed("N1", 1), topic="delay-risks")
    with pytest.raises(ChoreoError, match="saw dict"):
        one.send({"tail_number": "N1"})  # type: ignore[arg-type]
    with pytest.raises(ChoreoError, match="no topic carries"):
        one.read(AircraftState)
    with pytest.raises(ChoreoError, match="aircraft, risks, airports"):
        one.load_value("trains", {})
    with pytest.raises(ChoreoError, match="no reference table"):
        one.load(AircraftState(tail_number="N1"), table="aircraft")
    with pytest.raises(ChoreoError, match="holds Airport"):
        one.load(AircraftState(tail_number="N1"), table="airports")
    with pytest.raises(ChoreoError, match="aircraft, risks, airports"):
        one.row_value("trains", "N1")
    with pytest.raises(ChoreoError, match="weather_at, doubled"):
        one.answer("weather", "fog")
    with pytest.raises(ValueError, match="time zone"):
        one.send(departed("N1", 1), at=datetime(2013, 1, 1))  # noqa: DTZ001


def test_no_two_drivers_share_anything(project: Project) -> None:
    first, second = driver(project), driver(project)
    first.send(departed("N1", 45))
    assert second.row(AircraftState, "N1") is None
    assert second.read(DelayRisk) == []
