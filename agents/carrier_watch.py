"""carrier_watch, per aircraft: a late arrival far away delays the next departure from New York.

The data see an aircraft leave New York and come down elsewhere; its way back is not in them. So the earliest next
departure is estimated: turn around there, fly back as long as it flew out, turn around in New York. If that is later
than the schedule says, the difference is the warning.
"""

from datetime import timedelta

import choreo
from schemas import AircraftPlan, DelayPredicted, FlightArrived, Plane, PlannedLeg, RotationLeg

LATE_MINUTES = 15  # what the industry calls late
TAXI_MINUTES = 20  # of the flight back, both ends
AIR_MINUTES_UNKNOWN = 120
SEATS_UNKNOWN = 150

app = choreo.App("topologies/supply_chain.yaml", agent="carrier_watch")


@app.on(RotationLeg)
async def plan(event: RotationLeg, ctx: choreo.Context) -> None:
    aircraft = ctx.row(AircraftPlan)
    leg = PlannedLeg(flight_id=event.flight_id, scheduled_departure=event.scheduled_departure)
    aircraft.legs = sorted([*aircraft.legs, leg], key=lambda planned: planned.scheduled_departure)
    warn_of_next_leg(aircraft, ctx)


@app.on(FlightArrived)
async def arrive(event: FlightArrived, ctx: choreo.Context) -> None:
    aircraft = ctx.row(AircraftPlan)
    aircraft.flight_id = event.flight_id
    aircraft.airport = event.airport
    aircraft.arrived_at = event.arrived_at
    aircraft.delay_minutes = event.delay_minutes
    aircraft.air_minutes = event.air_minutes or AIR_MINUTES_UNKNOWN
    warn_of_next_leg(aircraft, ctx)


def warn_of_next_leg(aircraft: AircraftPlan, ctx: choreo.Context) -> None:
    """Warns once of each leg, and again when it looks worse by another quarter of an hour."""
    if aircraft.arrived_at is None:
        return
    landed = aircraft.arrived_at
    aircraft.legs = [leg for leg in aircraft.legs if leg.scheduled_departure > landed]
    if not aircraft.legs:
        return
    leg = aircraft.legs[0]
    plane = ctx.lookup(Plane, ctx.key)
    ready = landed + way_back(aircraft.air_minutes, plane.seats if plane else SEATS_UNKNOWN)
    minutes = (ready - leg.scheduled_departure) // timedelta(minutes=1)
    warned = aircraft.warned_minutes if aircraft.warned_flight_id == leg.flight_id else 0
    if minutes < warned + LATE_MINUTES:
        return
    aircraft.warned_flight_id = leg.flight_id
    aircraft.warned_minutes = minutes
    ctx.emit(
        DelayPredicted(
            flight_id=leg.flight_id,
            predictor="carrier_watch",
            minutes=minutes,
            reason=f"its aircraft {ctx.key} reached {aircraft.airport} {lateness(aircraft.delay_minutes)}"
            f" and cannot be back in New York before {ready:%H:%M} UTC",
            scheduled_departure=leg.scheduled_departure,
        )
    )


def way_back(air_minutes: int, seats: int) -> timedelta:
    """From the arrival far away to the earliest departure from New York: two turnarounds and a flight."""
    turnaround = 30 if seats < 100 else 40 if seats < 200 else 65
    return timedelta(minutes=turnaround + air_minutes + TAXI_MINUTES + turnaround)


def lateness(minutes: int) -> str:
    return f"{minutes} minutes late" if minutes > 0 else "on time"
