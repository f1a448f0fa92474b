"""eta_scorer, per flight and then per carrier: what was said against what really happened.

A flight counts as disrupted when it left 15 minutes late or more, or not at all. What each agent said last *before*
that moment counts (by event time, so a warning that was given in time and read late still counts); of several agents
the gloomiest. A flight is scored two hours after it left, when every word about it has come in.
"""

from datetime import timedelta

import choreo
from schemas import (
    DelayPredicted,
    FlightCancelled,
    FlightForecast,
    FlightLeft,
    FlightScored,
    ForecastOutcome,
    Opinion,
    ScoreBoard,
    ScoreCard,
)

LATE_MINUTES = 15
SETTLING = timedelta(hours=2)
FORGOTTEN_AFTER = timedelta(days=1)  # neither left nor cancelled: nothing to score
OPINIONS_MAX = 50  # of one flight; the oldest go first

app = choreo.App("topologies/supply_chain.yaml", agent="eta_scorer")


@app.on(DelayPredicted)
async def hear(event: DelayPredicted, ctx: choreo.Context) -> None:
    forecast = ctx.row(FlightForecast)
    said = Opinion(predictor=event.predictor, minutes=event.minutes, at=ctx.meta.time)
    forecast.opinions = [*forecast.opinions, said][-OPINIONS_MAX:]
    if forecast.left_at is None:
        ctx.timer("score", at=event.scheduled_departure + FORGOTTEN_AFTER)


@app.on(FlightLeft)
async def leave(event: FlightLeft, ctx: choreo.Context) -> None:
    forecast = ctx.row(FlightForecast)
    forecast.carrier = event.carrier
    forecast.left_at = event.departed_at
    forecast.delay_minutes = event.delay_minutes
    ctx.timer("score", at=event.departed_at + SETTLING)


@app.on(FlightCancelled)
async def cancel(event: FlightCancelled, ctx: choreo.Context) -> None:
    forecast = ctx.row(FlightForecast)
    forecast.carrier = event.carrier
    forecast.left_at = event.scheduled_departure
    forecast.delay_minutes = None
    ctx.timer("score", at=event.scheduled_departure + SETTLING)


@app.on_timer("score")
async def score(ctx: choreo.Context) -> None:
    forecast = ctx.row(FlightForecast)
    ctx.delete(FlightForecast)
    if forecast.left_at is None:
        return
    left_at = forecast.left_at
    in_time = sorted((said for said in forecast.opinions if said.at < left_at), key=lambda said: said.at)
    last_words = {said.predictor: said for said in in_time}
    loudest = max(last_words.values(), key=lambda said: said.minutes, default=None)
    predicted = loudest.minutes if loudest else 0
    warnings = [said.at for said in in_time if said.minutes >= LATE_MINUTES]
    warned = predicted >= LATE_MINUTES
    disrupted = forecast.delay_minutes is None or forecast.delay_minutes >= LATE_MINUTES
    ctx.emit(
        FlightScored(
            carrier=forecast.carrier,
            flight_id=ctx.key,
            predictor=loudest.predictor if loudest and warned else None,
            predicted_minutes=predicted,
            actual_minutes=forecast.delay_minutes,
            lead_minutes=(left_at - warnings[0]) // timedelta(minutes=1) if warned else None,
            outcome=outcome(warned, disrupted),
        )
    )


@app.on(FlightScored)
async def count(event: FlightScored, ctx: choreo.Context) -> None:
    board = ctx.row(ScoreBoard)
    board.flights += 1
    board.hits += event.outcome == "hit"
    board.misses += event.outcome == "miss"
    board.false_alarms += event.outcome == "false_alarm"
    board.quiet += event.outcome == "quiet"
    if event.predictor is not None and event.actual_minutes is not None:
        board.timed += 1
        board.error_minutes += abs(event.predicted_minutes - event.actual_minutes)
    ctx.emit(
        ScoreCard(
            carrier=board.carrier,
            flights=board.flights,
            hits=board.hits,
            misses=board.misses,
            false_alarms=board.false_alarms,
            quiet=board.quiet,
            timed=board.timed,
            error_minutes=board.error_minutes,
            precision=share(board.hits, board.hits + board.false_alarms),
            recall=share(board.hits, board.hits + board.misses),
            mean_absolute_error_minutes=share(board.error_minutes, board.timed),
        )
    )


def outcome(warned: bool, disrupted: bool) -> ForecastOutcome:
    if disrupted:
        return "hit" if warned else "miss"
    return "false_alarm" if warned else "quiet"


def share(part: int, whole: int) -> float | None:
    """A ratio, or None while there is nothing to divide by."""
    return part / whole if whole else None
