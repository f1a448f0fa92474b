"""shipment_desk, per shipment: decides within what the shipper allows.

Keep it where it is if it still arrives in time; otherwise the earliest flight that saves the deadline within budget;
otherwise a courier, if the shipper pays for one; otherwise a person has to be asked.
"""

from datetime import datetime, timedelta
from math import asin, cos, radians, sin, sqrt

import choreo
from schemas import (
    Airport,
    Alternative,
    Booking,
    BookingAction,
    ReplanProposed,
    ShipmentAction,
    ShipmentDecided,
    ShipmentFile,
    ShipmentRequested,
)

HANDLING = timedelta(minutes=60)  # off one flight and onto another
ROAD_KM_PER_HOUR = 30  # in and around New York
REBOOK_USD, REBOOK_USD_PER_KG = 40, 0.10
TRUCK_USD, TRUCK_USD_PER_KM = 60, 2.50
COURIER_USD, COURIER_USD_PER_KG = 900, 2.0
REROUTES_MAX = 3  # then a person should look
EARTH_KM = 6371.0

app = choreo.App("topologies/supply_chain.yaml", agent="shipment_desk")


@app.on(ShipmentRequested)
async def open_file(event: ShipmentRequested, ctx: choreo.Context) -> None:
    file = ctx.row(ShipmentFile)
    file.known = True
    file.flight_id = event.flight_id
    file.origin = event.origin
    file.kilograms = event.kilograms
    file.priority = event.priority
    file.booked_arrival = event.booked_arrival
    file.deliver_by = event.deliver_by
    file.budget_usd = event.budget_usd
    file.may_change_airport = event.may_change_airport


@app.on(ReplanProposed)
async def decide(event: ReplanProposed, ctx: choreo.Context) -> None:
    file = ctx.row(ShipmentFile)
    if file.settled or (file.known and event.flight_id != file.flight_id):
        answer(ctx, event, "keep", "settled before this proposal came", file.booked_arrival)
        return
    if file.booked_arrival is None or file.deliver_by is None:
        answer(ctx, event, "ask", "nobody has said what may be done with this shipment", None)
        return
    expected = file.booked_arrival + timedelta(minutes=event.delay_minutes)
    if event.carried and expected <= file.deliver_by:
        spare = (file.deliver_by - expected) // timedelta(minutes=1)
        reason = f"{event.reason}; {event.delay_minutes} minutes late still leaves {spare // 60} h {spare % 60} min"
        answer(ctx, event, "keep", reason, expected)
        return
    choice = best_alternative(file, event, ctx)
    if choice is not None:
        reroute(file, event, ctx, *choice)
        return
    courier_usd = round(COURIER_USD + COURIER_USD_PER_KG * file.kilograms)
    if file.priority == "express" and courier_usd <= file.budget_usd:
        release(file, event, ctx)
        file.settled = True
        reason = f"{event.reason}; no flight saves the deadline, a courier does"
        answer(ctx, event, "expedite", reason, file.deliver_by, cost_usd=courier_usd)
        return
    if not event.carried:
        file.settled = True
    reason = f"{event.reason}; nothing the shipper allows saves the deadline"
    answer(ctx, event, "ask", reason, expected if event.carried else None)


def best_alternative(file: ShipmentFile, event: ReplanProposed, ctx: choreo.Context) -> tuple[Alternative, int] | None:
    """The flight that arrives first, of those that can be reached, are in time and affordable; with its cost."""
    assert file.deliver_by is not None
    possible = []
    for flight in event.alternatives:
        kilometres = road_km(file.origin, flight.origin, ctx)
        if kilometres is None or (kilometres > 0 and not file.may_change_airport):
            continue
        ready = ctx.meta.time + HANDLING + timedelta(hours=kilometres / ROAD_KM_PER_HOUR)
        cost_usd = rebooking_usd(file.kilograms, kilometres)
        if ready <= flight.scheduled_departure and flight.scheduled_arrival <= file.deliver_by:
            possible.append((flight.scheduled_arrival, cost_usd, flight))
    affordable = [option for option in possible if option[1] <= file.budget_usd]
    if not affordable or file.reroutes >= REROUTES_MAX:
        return None
    _, cost_usd, flight = min(affordable, key=lambda option: option[:2])
    return flight, cost_usd


def reroute(file: ShipmentFile, event: ReplanProposed, ctx: choreo.Context, flight: Alternative, cost_usd: int) -> None:
    release(file, event, ctx)
    ctx.emit(booking(file, flight.flight_id, "book"))
    file.flight_id = flight.flight_id
    file.origin = flight.origin
    file.booked_arrival = flight.scheduled_arrival
    file.budget_usd -= cost_usd
    file.reroutes += 1
    reason = (
        f"{event.reason}; {flight.flight_id} arrives {flight.scheduled_arrival:%d %b %H:%M} UTC, before the deadline"
    )
    answer(
        ctx,
        event,
        "reroute",
        reason,
        flight.scheduled_arrival,
        new_flight_id=flight.flight_id,
        cost_usd=cost_usd,
    )


def release(file: ShipmentFile, event: ReplanProposed, ctx: choreo.Context) -> None:
    """Takes it off the flight that would still carry it; a flight that will not has let go of it already."""
    if event.carried:
        ctx.emit(booking(file, event.flight_id, "release"))


def booking(file: ShipmentFile, flight_id: str, action: BookingAction) -> Booking:
    return Booking(
        flight_id=flight_id,
        shipment_id=file.shipment_id,
        action=action,
        kilograms=file.kilograms,
        priority=file.priority,
        made_up=True,
    )


def answer(
    ctx: choreo.Context,
    event: ReplanProposed,
    action: ShipmentAction,
    reason: str,
    arrives_at: datetime | None,
    *,
    new_flight_id: str | None = None,
    cost_usd: int = 0,
) -> None:
    ctx.emit(
        ShipmentDecided(
            shipment_id=event.shipment_id,
            action=action,
            reason=reason,
            flight_id=event.flight_id,
            new_flight_id=new_flight_id,
            arrives_at=arrives_at,
            cost_usd=cost_usd,
        )
    )


def rebooking_usd(kilograms: int, road_kilometres: float) -> int:
    truck_usd = TRUCK_USD + TRUCK_USD_PER_KM * road_kilometres if road_kilometres else 0.0
    return round(REBOOK_USD + REBOOK_USD_PER_KG * kilograms + truck_usd)


def road_km(start: str, end: str, ctx: choreo.Context) -> float | None:
    """Kilometres by truck between two airports: the great circle and a third more. None: an airport is unknown."""
    if start == end:
        return 0.0
    one, other = ctx.lookup(Airport, start), ctx.lookup(Airport, end)
    if one is None or other is None:
        return None
    north, east = radians(other.latitude - one.latitude), radians(other.longitude - one.longitude)
    chord = sin(north / 2) ** 2 + cos(radians(one.latitude)) * cos(radians(other.latitude)) * sin(east / 2) ** 2
    return 2 * EARTH_KM * asin(sqrt(chord)) * 4 / 3
