"""Shipments on real flights. **Made up**: nobody published what flew in these bellies, so it is drawn by dice.

The dice of a flight depend on the seed and the flight's id alone: the same seed gives the same shipments however many
events are taken and whichever day the run starts. Every shipment and booking says ``made_up`` in its own record.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Final, NamedTuple

from demos.supply_chain.flights import Flight
from schemas import Booking, Priority, ShipmentRequested

# Half of the flights carry nothing of ours, some of them three shipments: about 0.75 a flight.
_SHIPMENTS: Final = (0, 0, 0, 0, 1, 1, 1, 1, 2, 3)
_KILOGRAMS: Final = (20, 40, 60, 120, 250, 400)


class Terms(NamedTuple):
    """What a priority buys: how much later than booked it may arrive, and what changes may cost."""

    slack_hours: tuple[int, int]
    budget_usd: tuple[int, int]


_TERMS: Final[dict[Priority, Terms]] = {
    "economy": Terms((20, 60), (0, 150)),
    "standard": Terms((5, 20), (100, 600)),
    "express": Terms((1, 4), (500, 4000)),
}
_PRIORITIES: Final[tuple[Priority, ...]] = ("economy", "standard", "standard", "express")


class Handover(NamedTuple):
    """A shipper hands a shipment over: the request, and its place on the flight."""

    at: datetime
    request: ShipmentRequested
    booking: Booking


def handovers(flight: Flight, seed: int) -> list[Handover]:
    """The made-up shipments that are first booked on a flight."""
    dice = Random(f"{seed} {flight.id}")
    return [_handover(flight, number, dice) for number in range(1, dice.choice(_SHIPMENTS) + 1)]


def _handover(flight: Flight, number: int, dice: Random) -> Handover:
    shipment_id = f"S{number}-{flight.id}"
    priority = dice.choice(_PRIORITIES)
    terms = _TERMS[priority]
    kilograms = dice.choice(_KILOGRAMS)
    request = ShipmentRequested(
        shipment_id=shipment_id,
        flight_id=flight.id,
        origin=flight.origin,
        destination=flight.destination,
        kilograms=kilograms,
        priority=priority,
        booked_arrival=flight.scheduled_arrival,
        deliver_by=flight.scheduled_arrival + timedelta(minutes=60 * dice.randint(*terms.slack_hours)),
        budget_usd=dice.randint(*terms.budget_usd),
        may_change_airport=dice.random() < 0.5,
        made_up=True,
    )
    booking = Booking(
        flight_id=flight.id,
        shipment_id=shipment_id,
        action="book",
        kilograms=kilograms,
        priority=priority,
        made_up=True,
    )
    return Handover(flight.scheduled_departure - timedelta(minutes=dice.randint(180, 720)), request, booking)
