"""Events in a sentence, and which of them are worth a story."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import choreo
from demos.supply_chain.flights import NEW_YORK
from schemas import (
    BankEntry,
    Booking,
    DelayPredicted,
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightLeft,
    FlightPlanned,
    FlightScored,
    LoadClosed,
    ReplanProposed,
    RotationLeg,
    ScoreCard,
    ShipmentAction,
    ShipmentDecided,
    ShipmentRequested,
    WeatherObserved,
)

if TYPE_CHECKING:
    from choreo.cli._demo.history import History

STORIES: Final[tuple[ShipmentAction, ...]] = ("reroute", "expedite", "ask", "keep")
STORIES_MAX: Final = 3


def clock(moment: datetime) -> str:
    """New York's clocks."""
    return f"{moment.astimezone(NEW_YORK):%d %b %H:%M}"


def late(minutes: int) -> str:
    return f"{minutes} minutes late" if minutes > 0 else f"{-minutes} minutes early" if minutes < 0 else "on time"


def sentence(event: choreo.Record) -> str:
    """What an event says, without a full stop."""
    return _SENTENCES[type(event)](event)


def _decided(event: ShipmentDecided) -> str:
    what = {
        "keep": "stays on",
        "reroute": f"goes to {event.new_flight_id} instead of",
        "expedite": "goes by courier instead of",
        "ask": "needs a person: it is on",
    }[event.action]
    cost = f", for ${event.cost_usd}" if event.cost_usd else ""
    return f"{event.action.upper()}: {event.shipment_id} {what} {event.flight_id}{cost} ({event.reason})"


def _proposed(event: ReplanProposed) -> str:
    others = ", ".join(flight.flight_id for flight in event.alternatives) or "none"
    return f"{event.shipment_id} on {event.flight_id} should be replanned ({event.cause}); other flights: {others}"


def _scored(event: FlightScored) -> str:
    was = "it was cancelled" if event.actual_minutes is None else f"it left {late(event.actual_minutes)}"
    return f"{event.flight_id} was said to leave {late(event.predicted_minutes)}, {was}: {event.outcome}"


_SENTENCES: Final[dict[type, Callable[[Any], str]]] = {
    FlightPlanned: lambda event: (
        f"{event.flight_id} to {event.destination} enters the plan, due {clock(event.scheduled_departure)}"
    ),
    FlightDeparted: lambda event: f"{event.flight_id} leaves {late(event.delay_minutes)}",
    FlightArrived: lambda event: f"{event.tail_number} arrives as {event.flight_id} {late(event.delay_minutes)}",
    FlightCancelled: lambda event: f"{event.flight_id} is cancelled",
    WeatherObserved: lambda event: (
        f"{event.airport} reports visibility {event.visibility_miles:g} miles, "
        f"{event.precipitation_inches:g} inches of precipitation, wind {event.wind_mph or 0:.0f} mph"
    ),
    ShipmentRequested: lambda event: (
        f"shipment {event.shipment_id} ({event.kilograms} kg, {event.priority}, "
        f"made up) must reach {event.destination} by {clock(event.deliver_by)}"
    ),
    Booking: lambda event: (
        f"{event.shipment_id} is {'booked on' if event.action == 'book' else 'taken off'} {event.flight_id}"
    ),
    RotationLeg: lambda event: f"{event.tail_number} is to fly {event.flight_id}",
    BankEntry: lambda event: f"{event.flight_id} joins the departure bank of {event.airport}",
    FlightLeft: lambda event: f"{event.flight_id} has left {late(event.delay_minutes)}",
    DelayPredicted: lambda event: f"{event.flight_id} should leave {late(event.minutes)}: {event.reason}",
    LoadClosed: lambda event: f"{event.flight_id} closes with {event.loaded} shipments, {event.bumped} left behind",
    ReplanProposed: _proposed,
    ShipmentDecided: _decided,
    FlightScored: _scored,
    ScoreCard: lambda event: f"{event.carrier}: {event.flights} flights scored",
}


def worth_telling(history: History) -> list[str]:
    """Three shipment decisions of different kinds, about different shipments.

    Of each kind one that most agents had a part in, and of these one that is soon told.
    """
    best: dict[ShipmentAction, list[tuple[int, int, str, str]]] = {}
    for told, value in history.on("shipment-decisions"):
        assert isinstance(value, ShipmentDecided)
        links = history.chain(told.event_id)
        agents = {link.made.agent for link in links if link.made is not None}
        best.setdefault(value.action, []).append((-len(agents), len(links), value.shipment_id, told.event_id))
    chosen: dict[str, str] = {}
    for action in STORIES:
        candidates = sorted(one for one in best.get(action, ()) if one[2] not in chosen)
        if candidates and len(chosen) < STORIES_MAX:
            chosen[candidates[0][2]] = candidates[0][3]
    return list(chosen.values())
