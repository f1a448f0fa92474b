"""load_planner, per flight: who is on board, what threatens the flight, and when nothing more can be changed.

It opens a flight when the flight enters the day's plan and passes it on to those who see the world by aircraft and by
airport. Until the cut-off it joins the manifest with every warning about the flight, and proposes to replan the
shipments that a delay or a cancellation hits. At the cut-off a timer closes the flight: what does not fit is bumped.
"""

from datetime import timedelta

import choreo
from schemas import (
    BankEntry,
    Booking,
    DelayPredicted,
    FlightCancelled,
    FlightPlanned,
    LoadClosed,
    LoadPlan,
    ManifestLine,
    Plane,
    ReplanCause,
    ReplanProposed,
    RotationLeg,
)

BANK_LEAD = timedelta(hours=2)
CUT_OFF_LEAD = timedelta(minutes=45)
RISK_MINUTES = 45  # less is not worth a shipper's time
WORSE_MINUTES = 30  # propose again when it got worse by this much
KILOGRAMS_PER_SEAT = 8  # room for freight beside the luggage
SEATS_UNKNOWN = 150
SEATS_MIN = 50  # the register says 2 or 4 of some airliners

app = choreo.App("topologies/supply_chain.yaml", agent="load_planner")


@app.on(FlightPlanned)
async def open_flight(event: FlightPlanned, ctx: choreo.Context) -> None:
    plan = ctx.row(LoadPlan)
    plane = ctx.lookup(Plane, event.tail_number) if event.tail_number else None
    plan.capacity_kg = KILOGRAMS_PER_SEAT * (max(plane.seats, SEATS_MIN) if plane else SEATS_UNKNOWN)
    plan.scheduled_departure = event.scheduled_departure
    plan.origin = event.origin
    plan.alternatives = event.alternatives
    if plan.status == "unplanned":
        plan.status = "open"
    if event.tail_number:
        ctx.emit(
            RotationLeg(
                tail_number=event.tail_number,
                flight_id=event.flight_id,
                scheduled_departure=event.scheduled_departure,
            )
        )
    ctx.timer("join_bank", at=event.scheduled_departure - BANK_LEAD)
    ctx.timer("cut_off", at=event.scheduled_departure - CUT_OFF_LEAD)


@app.on(Booking)
async def book(event: Booking, ctx: choreo.Context) -> None:
    plan = ctx.row(LoadPlan)
    plan.manifest = [line for line in plan.manifest if line.shipment_id != event.shipment_id]
    if event.action == "release":
        return
    line = ManifestLine(shipment_id=event.shipment_id, kilograms=event.kilograms, priority=event.priority)
    if plan.status == "cancelled":
        propose(line, plan, ctx, "cancellation", "the flight is cancelled")
    elif plan.status == "closed":
        propose(line, plan, ctx, "too_late", "the flight had closed when the booking came")
    else:
        plan.manifest.append(line)
        propose_for_delay(plan, ctx)


@app.on(DelayPredicted)
async def weigh(event: DelayPredicted, ctx: choreo.Context) -> None:
    plan = ctx.row(LoadPlan)
    if plan.status == "cancelled":
        return
    plan.risks[event.predictor] = event.minutes
    if event.minutes == risk(plan):
        plan.risk_reason = event.reason
    propose_for_delay(plan, ctx)


@app.on(FlightCancelled)
async def cancel(event: FlightCancelled, ctx: choreo.Context) -> None:
    plan = ctx.row(LoadPlan)
    plan.status = "cancelled"
    ctx.cancel("join_bank")
    ctx.cancel("cut_off")
    for line in plan.manifest:
        propose(line, plan, ctx, "cancellation", "the flight is cancelled")
    plan.manifest = []


@app.on_timer("join_bank")
async def join_bank(ctx: choreo.Context) -> None:
    plan = ctx.row(LoadPlan)
    if plan.scheduled_departure is not None:
        ctx.emit(BankEntry(airport=plan.origin, flight_id=ctx.key, scheduled_departure=plan.scheduled_departure))


@app.on_timer("cut_off")
async def cut_off(ctx: choreo.Context) -> None:
    plan = ctx.row(LoadPlan)
    if plan.status != "open" or plan.scheduled_departure is None:
        return
    plan.status = "closed"
    loaded, bumped = load(plan)
    for line in bumped:
        propose(line, plan, ctx, "no_space", f"only {plan.capacity_kg} kg fit on board")
    plan.manifest = loaded
    ctx.emit(
        LoadClosed(
            flight_id=ctx.key,
            scheduled_departure=plan.scheduled_departure,
            capacity_kg=plan.capacity_kg,
            loaded_kg=sum(line.kilograms for line in loaded),
            loaded=len(loaded),
            bumped=len(bumped),
        )
    )


def load(plan: LoadPlan) -> tuple[list[ManifestLine], list[ManifestLine]]:
    """What goes on board and what does not: express first, then in order of booking."""
    urgency = {"express": 0, "standard": 1, "economy": 2}
    room = plan.capacity_kg
    loaded: list[ManifestLine] = []
    bumped: list[ManifestLine] = []
    for line in sorted(plan.manifest, key=lambda line: urgency[line.priority]):
        if line.kilograms <= room:
            room -= line.kilograms
            loaded.append(line)
        else:
            bumped.append(line)
    return loaded, bumped


def risk(plan: LoadPlan) -> int:
    return max(plan.risks.values(), default=0)


def propose_for_delay(plan: LoadPlan, ctx: choreo.Context) -> None:
    """For each shipment once the flight is at risk, and again when the outlook got clearly worse."""
    minutes = risk(plan)
    if plan.status != "open" or minutes < RISK_MINUTES:
        return
    for line in plan.manifest:
        if line.told_minutes == 0 or minutes >= line.told_minutes + WORSE_MINUTES:
            line.told_minutes = minutes
            propose(line, plan, ctx, "delay", plan.risk_reason)


def propose(line: ManifestLine, plan: LoadPlan, ctx: choreo.Context, cause: ReplanCause, reason: str) -> None:
    ctx.emit(
        ReplanProposed(
            shipment_id=line.shipment_id,
            flight_id=ctx.key,
            cause=cause,
            delay_minutes=risk(plan),
            carried=cause == "delay",
            reason=reason,
            alternatives=[flight for flight in plan.alternatives if flight.scheduled_departure > ctx.meta.time],
        )
    )
