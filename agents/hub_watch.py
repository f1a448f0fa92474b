"""hub_watch, per airport: the delays of the last hour joined with the weather say what the next flights must expect.

A flight joins its airport's departure bank two hours before it is due. When the outlook changes, every flight in the
bank is told; a flight that joins later is told as it joins. A departure leaves the bank, and those who follow that
flight are told what its delay came to.
"""

from datetime import datetime, timedelta

import choreo
from schemas import (
    Airport,
    BankedFlight,
    BankEntry,
    DelayPredicted,
    FlightDeparted,
    FlightLeft,
    HubState,
    WeatherObserved,
)

DEPARTURES_MIN = 5  # fewer in the last hour say nothing
PERSISTENCE = 0.7  # how much of the last hour's delay the next flights inherit
STEP_MINUTES = 20  # the outlook changes when it moves at least this far
GIVEN_UP_AFTER = timedelta(hours=3)  # a flight this late without a word was cancelled
FREEZING_F = 34.0

app = choreo.App("topologies/supply_chain.yaml", agent="hub_watch")


@app.on(FlightDeparted)
async def depart(event: FlightDeparted, ctx: choreo.Context) -> None:
    hub = ctx.row(HubState)
    hub.delays.add(max(0, event.delay_minutes), at=event.departed_at)
    hub.bank = [flight for flight in hub.bank if flight.flight_id != event.flight_id]
    ctx.emit(
        FlightLeft(
            flight_id=event.flight_id,
            carrier=event.carrier,
            departed_at=event.departed_at,
            delay_minutes=event.delay_minutes,
        )
    )
    reconsider(hub, ctx)


@app.on(WeatherObserved)
async def observe(event: WeatherObserved, ctx: choreo.Context) -> None:
    hub = ctx.row(HubState)
    hub.weather_minutes, hub.weather = weather_delay(event)
    reconsider(hub, ctx)


@app.on(BankEntry)
async def join(event: BankEntry, ctx: choreo.Context) -> None:
    hub = ctx.row(HubState)
    flight = BankedFlight(flight_id=event.flight_id, scheduled_departure=event.scheduled_departure)
    hub.bank.append(flight)
    if hub.expected_minutes:
        warn(flight, hub, ctx)


def reconsider(hub: HubState, ctx: choreo.Context) -> None:
    """Tells the whole bank when the outlook has moved by a step or more."""
    now = ctx.meta.time
    hub.bank = [flight for flight in hub.bank if flight.scheduled_departure + GIVEN_UP_AFTER > now]
    outlook = expected(hub, now)
    if abs(outlook - hub.expected_minutes) < STEP_MINUTES:
        return
    hub.expected_minutes = outlook
    for flight in hub.bank:
        if flight.warned_minutes != outlook:
            warn(flight, hub, ctx)


def expected(hub: HubState, now: datetime) -> int:
    recent = hub.delays.mean(at=now) if hub.delays.count(at=now) >= DEPARTURES_MIN else None
    minutes = int(PERSISTENCE * (recent or 0.0) + hub.weather_minutes)
    return minutes if minutes >= STEP_MINUTES else 0


def warn(flight: BankedFlight, hub: HubState, ctx: choreo.Context) -> None:
    flight.warned_minutes = hub.expected_minutes
    airport = ctx.lookup(Airport, ctx.key)
    name = airport.name if airport else ctx.key
    late = hub.delays.mean(at=ctx.meta.time)
    recent = (
        "no departures in the last hour" if late is None else f"the last hour's departures left {late:.0f} minutes late"
    )
    ctx.emit(
        DelayPredicted(
            flight_id=flight.flight_id,
            predictor="hub_watch",
            minutes=hub.expected_minutes,
            reason=f"{name}: {recent}{hub.weather}",
            scheduled_departure=flight.scheduled_departure,
        )
    )


def weather_delay(seen: WeatherObserved) -> tuple[int, str]:
    """Minutes that the weather alone explains, and the weather in words."""
    minutes, words = 0, []
    if seen.visibility_miles < 3:
        minutes += 30 if seen.visibility_miles < 1 else 15
        words.append(f"visibility {seen.visibility_miles:g} miles")
    gust = seen.gust_mph or seen.wind_mph or 0.0
    if gust >= 30:
        minutes += 15
        words.append(f"gusts of {gust:.0f} mph")
    if seen.precipitation_inches >= 0.02:
        minutes += 15 if seen.precipitation_inches >= 0.1 else 5
        words.append(f"{seen.precipitation_inches:g} inches of rain or snow in an hour")
    if seen.precipitation_inches > 0 and seen.temperature_f is not None and seen.temperature_f <= FREEZING_F:
        minutes += 20  # de-icing
        words.append(f"freezing at {seen.temperature_f:.0f} °F")
    return minutes, "".join(f", {word}" for word in words)
