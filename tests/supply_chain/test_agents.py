"""The five agents: the cases beside their topology, and what must hold on any stretch of real flights."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import pytest

from choreo.testing.cases import Case, read_cases
from choreo.testing.driver import TopologyDriver
from demos.supply_chain import feed, references
from demos.supply_chain.feed import Fact
from demos.supply_chain.figures import total
from demos.supply_chain.flights import NEW_YORK
from schemas import (
    DelayPredicted,
    FlightDeparted,
    FlightForecast,
    FlightLeft,
    FlightPlanned,
    FlightScored,
    HubState,
    LoadPlan,
    ReplanProposed,
    ScoreCard,
    ShipmentDecided,
    ShipmentFile,
    ShipmentRequested,
    WeatherObserved,
)

TOPOLOGY = "topologies/supply_chain.yaml"
EVENTS = 3_300  # of all three airports, from midnight to the afternoon in which the storm came; one airport's are used


@pytest.mark.parametrize("case", read_cases("topologies/supply_chain.test.yaml"), ids=str)
def test_case(case: Case) -> None:
    case.check()


@cache
def la_guardia() -> list[Fact]:
    """What happened at and from La Guardia."""
    return [fact for fact in feed.facts(events=EVENTS) if "LGA" in repr(list(fact.event.model_dump().values())[:3])]


def storm(facts: list[Fact], seed: int = 0) -> TopologyDriver:
    driver = TopologyDriver(TOPOLOGY, seed=seed)
    for row in [*references.airports(), *references.planes()]:
        driver.load(row)
    for fact in facts:
        driver.send(fact.event, topic=fact.topic, at=fact.at)
    driver.advance(timedelta(hours=3))
    return driver


class Morning(NamedTuple):
    """What the agents made of it."""

    requests: list[ShipmentRequested]
    warnings: list[DelayPredicted]
    left: list[FlightLeft]
    scores: list[FlightScored]
    cards: list[ScoreCard]
    proposals: list[ReplanProposed]
    decisions: list[ShipmentDecided]


@pytest.fixture(scope="module")
def morning() -> Morning:
    driver = storm(la_guardia())
    assert driver.dead_letters() == []
    assert driver.parked() == []
    return Morning(
        requests=driver.read(ShipmentRequested),
        warnings=driver.read(DelayPredicted),
        left=driver.read(FlightLeft),
        scores=driver.read(FlightScored),
        cards=driver.read(ScoreCard),
        proposals=driver.read(ReplanProposed),
        decisions=driver.read(ShipmentDecided),
    )


def test_every_proposal_is_answered_once(morning: Morning) -> None:
    proposals = Counter((one.shipment_id, one.flight_id) for one in morning.proposals)
    answers = Counter((one.shipment_id, one.flight_id) for one in morning.decisions)
    assert proposals == answers
    assert len(answers) > 50


def test_decisions_stay_within_what_shippers_allow(morning: Morning) -> None:
    requests = {one.shipment_id: one for one in morning.requests}
    spent: Counter[str] = Counter()
    for decision in morning.decisions:
        request = requests[decision.shipment_id]
        spent[decision.shipment_id] += decision.cost_usd
        if decision.action == "reroute":
            assert decision.arrives_at is not None and decision.new_flight_id is not None
            assert decision.arrives_at <= request.deliver_by
        if decision.action == "expedite":
            assert request.priority == "express"
    assert {decision.action for decision in morning.decisions} >= {"keep", "reroute", "ask"}
    assert all(cost <= requests[shipment].budget_usd for shipment, cost in spent.items())


def test_every_flight_that_left_is_scored_once(morning: Morning) -> None:
    left = [one.flight_id for one in morning.left]
    scored = Counter(one.flight_id for one in morning.scores)
    assert set(scored.values()) == {1}
    assert set(left) <= set(scored)


def test_score_cards_count_what_the_scores_say(morning: Morning) -> None:
    last = {card.carrier: card for card in morning.cards}
    totals = total(last.values())
    outcomes = Counter(one.outcome for one in morning.scores)
    assert totals.flights == sum(outcomes.values())
    assert (totals.hits, totals.misses, totals.false_alarms) == (
        outcomes["hit"],
        outcomes["miss"],
        outcomes["false_alarm"],
    )
    errors = [
        abs(one.predicted_minutes - one.actual_minutes)
        for one in morning.scores
        if one.predictor is not None and one.actual_minutes is not None
    ]
    assert (totals.timed, totals.error_minutes) == (len(errors), sum(errors))


def test_warnings_come_before_what_they_warn_of(morning: Morning) -> None:
    for score in morning.scores:
        if score.lead_minutes is not None:
            assert score.lead_minutes > 0
    assert {one.predictor for one in morning.warnings} >= {"hub_watch"}


def test_whose_turn_is_first_does_not_matter() -> None:
    facts = la_guardia()[-400:]
    one, other = (storm(facts, seed).read(ShipmentDecided) for seed in (1, 2))
    assert len(one) > 10
    assert sorted(map(repr, one)) == sorted(map(repr, other))


def moment(hour: int, minute: int = 0) -> datetime:
    return datetime.combine(date(2013, 6, 24), datetime.min.time(), NEW_YORK) + timedelta(hours=hour, minutes=minute)


def test_delays_pass_on_to_the_bank_and_the_all_clear_follows() -> None:
    driver = TopologyDriver(TOPOLOGY, agents=["hub_watch"])
    driver.send_value(
        "departure-bank", {"airport": "LGA", "flight_id": "F1", "scheduled_departure": moment(14)}, at=moment(12)
    )
    for minute in range(0, 30, 5):
        left = FlightDeparted(
            airport="LGA", flight_id=f"G{minute}", carrier="DL", departed_at=moment(12, minute), delay_minutes=60
        )
        driver.send(left, at=moment(12, minute))
    (warning,) = driver.read(DelayPredicted)
    assert (warning.flight_id, warning.minutes) == ("F1", 42)  # 70 % of what the last hour suffered
    clear = WeatherObserved(
        airport="LGA",
        observed_at=moment(13, 45),
        temperature_f=70.0,
        wind_mph=5.0,
        gust_mph=None,
        precipitation_inches=0.0,
        visibility_miles=10.0,
    )
    driver.send(clear, at=moment(13, 45))  # the delays are out of the window by now
    (taken_back,) = driver.read(DelayPredicted)
    assert (taken_back.flight_id, taken_back.minutes) == ("F1", 0)
    hub = driver.row(HubState, "LGA")
    assert hub is not None and hub.expected_minutes == 0


def test_a_shipment_is_rerouted_three_times_at_most() -> None:
    driver = TopologyDriver(TOPOLOGY, agents=["shipment_desk"])
    at = moment(8)
    request = ShipmentRequested(
        shipment_id="S1",
        flight_id="F0",
        origin="JFK",
        destination="TPA",
        kilograms=10,
        priority="standard",
        booked_arrival=at + timedelta(hours=5),
        deliver_by=at + timedelta(hours=40),
        budget_usd=10_000,
        may_change_airport=False,
        made_up=True,
    )
    driver.send(request, at=at)
    for number in range(4):
        alternative = {
            "flight_id": f"F{number + 1}",
            "origin": "JFK",
            "scheduled_departure": at + timedelta(hours=6 + number),
            "scheduled_arrival": at + timedelta(hours=9 + number),
        }
        proposal = {
            "shipment_id": "S1",
            "flight_id": f"F{number}",
            "cause": "cancellation",
            "delay_minutes": 0,
            "carried": False,
            "reason": "cancelled",
            "alternatives": [alternative],
        }
        driver.send_value("proposals", proposal, at=at + timedelta(minutes=number))
    assert [decision.action for decision in driver.read(ShipmentDecided)] == ["reroute", "reroute", "reroute", "ask"]
    file = driver.row(ShipmentFile, "S1")
    assert file is not None and (file.reroutes, file.flight_id, file.settled) == (3, "F3", True)


def test_a_forecast_of_a_flight_nobody_hears_of_again_is_forgotten() -> None:
    driver = TopologyDriver(TOPOLOGY, agents=["eta_scorer"])
    warning = DelayPredicted(
        flight_id="F1", predictor="hub_watch", minutes=30, reason="fog", scheduled_departure=moment(9)
    )
    driver.send(warning, at=moment(8))
    assert driver.row(FlightForecast, "F1") is not None
    driver.advance(timedelta(days=2))
    assert driver.row(FlightForecast, "F1") is None
    assert driver.read(FlightScored) == []


def test_a_warning_for_a_closed_flight_changes_nothing() -> None:
    driver = TopologyDriver(TOPOLOGY, agents=["load_planner"])
    fact = next(fact for fact in feed.facts() if fact.topic == "flight-plans")
    driver.send(fact.event, topic=fact.topic, at=fact.at)
    assert isinstance(fact.event, FlightPlanned)
    flight_id = fact.event.flight_id
    driver.advance(timedelta(hours=12))
    warning = DelayPredicted(
        flight_id=flight_id, predictor="hub_watch", minutes=300, reason="fog", scheduled_departure=fact.at
    )
    driver.send(warning)
    plan = driver.row(LoadPlan, flight_id)
    assert plan is not None and plan.status == "closed"
    assert driver.read(ReplanProposed) == []


def test_the_feed_alone_is_in_order_for_every_key() -> None:
    by_key: dict[tuple[str, str], list[datetime]] = {}
    for fact in la_guardia():
        key = next(iter(fact.event.model_dump().values()))
        by_key.setdefault((fact.topic, str(key)), []).append(fact.at)
    assert all(before <= after for times in by_key.values() for before, after in pairwise(times))
