"""Per aircraft: a long delay is a risk; an aircraft not heard of for an hour is one too."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

from choreo.agent.context import Context
from choreo.agent.definition import AgentDefinition
from choreo.agent.tool import tool
from tests.agent.world import AircraftState, Airport, DelayRisk, FlightDeparted

app = SimpleNamespace(definition=AgentDefinition("aircraft_tracker"))


@tool(effect="read")
async def weather_at(city: str) -> str:
    raise AssertionError("tools don't run in tests")


@tool(effect="pure")
async def doubled(n: int) -> int:
    return 2 * n


@app.definition.on(FlightDeparted)
async def track(event: FlightDeparted, ctx: Context) -> None:
    row = ctx.row(AircraftState)
    row.flights += 1
    row.delay_minutes = event.dep_delay_minutes
    ctx.timer("silent", at=ctx.meta.time + timedelta(hours=1))
    if event.dep_delay_minutes == -1:
        ctx.park("a negative delay")
    if event.dep_delay_minutes < 0:
        raise ValueError("a negative delay")
    if event.dep_delay_minutes == 7:
        raise ConnectionError("try again")
    if event.dep_delay_minutes > 100:
        airport = ctx.lookup(Airport, "JFK")
        if airport is not None and await ctx.call(weather_at, airport.city) == "fog":
            row.delay_minutes = await ctx.call(doubled, row.delay_minutes)
    if row.delay_minutes > 30:
        ctx.emit(DelayRisk(tail_number=event.tail_number, minutes=row.delay_minutes))


@app.definition.on_timer("silent")
async def silent(ctx: Context) -> None:
    ctx.emit(DelayRisk(tail_number=ctx.key, minutes=999))
