"""A small run, written by hand: what the topics of supply_chain hold after one flight got into trouble."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from choreo.agent.record import Record
from choreo.cli._demo.history import History, Made, Told
from schemas import (
    Alternative,
    Booking,
    DelayPredicted,
    LoadClosed,
    ReplanProposed,
    ScoreCard,
    ShipmentDecided,
    ShipmentRequested,
    WeatherObserved,
)

NOON = datetime(2013, 2, 8, 17, tzinfo=UTC)
HOUR = timedelta(hours=1)

WEATHER = WeatherObserved(
    airport="JFK",
    observed_at=NOON,
    temperature_f=30.0,
    wind_mph=31.0,
    gust_mph=44.0,
    precipitation_inches=0.12,
    visibility_miles=0.5,
)
WARNING = DelayPredicted(
    flight_id="B6915-JFK-20130208",
    predictor="hub_watch",
    minutes=80,
    reason="John F Kennedy Intl: freezing",
    scheduled_departure=NOON + HOUR,
)
SHIPMENT = ShipmentRequested(
    shipment_id="S1-B6915-JFK-20130208",
    flight_id="B6915-JFK-20130208",
    origin="JFK",
    destination="SFO",
    kilograms=120,
    priority="express",
    booked_arrival=NOON + 7 * HOUR,
    deliver_by=NOON + 8 * HOUR,
    budget_usd=600,
    may_change_airport=True,
    made_up=True,
)
BOOKING = Booking(
    flight_id="B6915-JFK-20130208",
    shipment_id="S1-B6915-JFK-20130208",
    action="book",
    kilograms=120,
    priority="express",
    made_up=True,
)
PROPOSAL = ReplanProposed(
    shipment_id="S1-B6915-JFK-20130208",
    flight_id="B6915-JFK-20130208",
    cause="delay",
    delay_minutes=80,
    carried=True,
    reason=WARNING.reason,
    alternatives=[
        Alternative(
            flight_id="UA397-EWR-20130208",
            origin="EWR",
            scheduled_departure=NOON + 2 * HOUR,
            scheduled_arrival=NOON + 8 * HOUR,
        )
    ],
)
DECISION = ShipmentDecided(
    shipment_id="S1-B6915-JFK-20130208",
    action="reroute",
    reason="UA397-EWR-20130208 arrives in time",
    flight_id="B6915-JFK-20130208",
    new_flight_id="UA397-EWR-20130208",
    arrives_at=NOON + 8 * HOUR,
    cost_usd=188,
)
CARDS = [
    ScoreCard(
        carrier=carrier,
        flights=flights,
        hits=hits,
        misses=misses,
        false_alarms=false_alarms,
        quiet=flights - hits - misses - false_alarms,
        timed=hits,
        error_minutes=error,
        precision=None,
        recall=None,
        mean_absolute_error_minutes=None,
    )
    for carrier, flights, hits, misses, false_alarms, error in (
        ("UA", 5, 1, 1, 1, 90),
        ("UA", 10, 3, 1, 1, 100),  # the later card of a carrier counts
        ("B6", 8, 3, 1, 1, 80),
    )
]
CLOSED = LoadClosed(
    flight_id="UA397-EWR-20130208",
    scheduled_departure=NOON + 2 * HOUR,
    capacity_kg=1_400,
    loaded_kg=120,
    loaded=1,
    bumped=2,
)

EVENTS: list[tuple[str, str, str | None, Record]] = [
    ("shipments", "request", None, SHIPMENT),
    ("bookings", "booking", None, BOOKING),
    ("weather", "weather", None, WEATHER),
    ("delay-risks", "warning", "hub_watch", WARNING),
    ("proposals", "proposal", "load_planner", PROPOSAL),
    ("shipment-decisions", "decision", "shipment_desk", DECISION),
    ("load-sheets", "sheet", "load_planner", CLOSED),
    *(("score-cards", f"card-{number}", "eta_scorer", card) for number, card in enumerate(CARDS)),
]
MADE = [
    Made("shipment_desk", "event", "request", None, "", (), ()),
    Made("load_planner", "event", "booking", None, "", (), ()),
    Made("hub_watch", "event", "weather", None, "", ("warning",), ("weather-before",)),
    Made("load_planner", "event", "warning", None, "weather", ("proposal",), ("booking",)),
    Made("shipment_desk", "event", "proposal", None, "warning", ("decision",), ("request", "proposal")),
    Made("load_planner", "timer", "timer-1", "cut_off", "booking", ("sheet",), ()),
]


def history() -> History:
    values = {event_id: value for _, event_id, _, value in EVENTS}
    base_ms = int(NOON.timestamp() * 1000)
    told = [
        Told(topic, len(topic) % 4, number, 1_000 + 15 * number, event_id, agent, base_ms, event_id.encode())
        for number, (topic, event_id, agent, _) in enumerate(EVENTS)
    ]
    return History(told, MADE, lambda topic, value: values[value.decode()])
