"""The feed tells what happened in the order in which it became known, the same way each time."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from demos.supply_chain import feed
from demos.supply_chain.feed import Fact, facts
from demos.supply_chain.flights import flights_of
from demos.supply_chain.generator import handovers
from schemas import Booking, FlightCancelled, FlightDeparted, FlightPlanned, ShipmentRequested


@pytest.fixture(scope="module")
def storm() -> list[Fact]:
    return list(facts(events=9_000))


def test_events_come_in_the_order_of_time(storm: list[Fact]) -> None:
    assert storm[0].at == datetime(2013, 2, 8, 5, tzinfo=UTC)  # midnight in New York
    assert all(before.at <= after.at for before, after in pairwise(storm))


def test_the_first_n_events_are_the_beginning_of_more_events(storm: list[Fact]) -> None:
    assert list(facts(events=500)) == storm[:500]


def test_another_seed_changes_what_is_made_up_and_nothing_else(storm: list[Fact]) -> None:
    def real(some: list[Fact]) -> list[Fact]:
        return [fact for fact in some if fact.topic not in ("shipments", "bookings")]

    other = list(facts(events=9_000, seed=2))
    assert other != storm
    count = min(len(real(other)), len(real(storm)))
    assert real(other)[:count] == real(storm)[:count]


def test_a_whole_day_is_told_once(storm: list[Fact]) -> None:
    of_day = {flight.id: flight for flight in flights_of(date(2013, 2, 8))}
    told = Counter(
        (fact.topic, fact.event.flight_id)
        for fact in storm
        if isinstance(fact.event, FlightPlanned | FlightDeparted | FlightCancelled)
    )
    assert set(told.values()) == {1}
    for flight in of_day.values():
        if flight.scheduled_departure - feed.PLAN_LEAD < storm[-1].at - timedelta(hours=12):
            assert ("flight-plans", flight.id) in told
            assert ("departures", flight.id) in told or ("cancellations", flight.id) in told
    cancelled = {flight.id for flight in of_day.values() if flight.departed_at is None}
    assert len(cancelled) == 472
    assert cancelled <= {flight_id for topic, flight_id in told if topic == "cancellations"}


def test_a_cancellation_is_known_by_its_flight_alone(storm: list[Fact]) -> None:
    cancellations = [fact.event for fact in storm if fact.topic == "cancellations"]
    without_aircraft = {flight.id for flight in flights_of(date(2013, 2, 8)) if flight.tail_number is None}
    assert without_aircraft & {event.flight_id for event in cancellations if isinstance(event, FlightCancelled)}


def test_alternatives_leave_later_to_the_same_place(storm: list[Fact]) -> None:
    destination = {flight.id: flight.destination for day in range(8, 13) for flight in flights_of(date(2013, 2, day))}
    plans = [fact.event for fact in storm if isinstance(fact.event, FlightPlanned)]
    assert sum(bool(plan.alternatives) for plan in plans) > 0.9 * len(plans)
    for plan in plans:
        departures = [other.scheduled_departure for other in plan.alternatives]
        assert departures == sorted(departures)
        for other in plan.alternatives:
            assert other.scheduled_departure > plan.scheduled_departure
            assert destination[other.flight_id] == plan.destination


def test_everything_made_up_says_so(storm: list[Fact]) -> None:
    made_up = [fact.event for fact in storm if isinstance(fact.event, ShipmentRequested | Booking)]
    assert len(made_up) > 1_000
    assert all(event.made_up for event in made_up)


def test_the_dice_of_a_flight_depend_on_seed_and_flight_alone() -> None:
    flights = flights_of(date(2013, 2, 8))
    forwards = {flight.id: handovers(flight, 1) for flight in flights}
    backwards = {flight.id: handovers(flight, 1) for flight in reversed(flights)}
    assert forwards == backwards
    assert forwards != {flight.id: handovers(flight, 2) for flight in flights}
    ids = [handover.request.shipment_id for some in forwards.values() for handover in some]
    assert len(ids) == len(set(ids)) > len(flights) / 2


def test_a_shipment_and_its_booking_agree() -> None:
    for flight in flights_of(date(2013, 2, 8)):
        for at, request, booking in handovers(flight, 1):
            assert at < flight.scheduled_departure
            assert (booking.shipment_id, booking.flight_id) == (request.shipment_id, request.flight_id)
            assert (booking.kilograms, booking.priority) == (request.kilograms, request.priority)
            assert request.deliver_by > request.booked_arrival == flight.scheduled_arrival
