"""Joins arrivals and departures of an entity: both topics' events must meet the same row."""

from __future__ import annotations

import choreo
from agents.pause import pause
from schemas import Arrived, Departed, Pair, Paired

app = choreo.App("topologies/counting.yaml", agent="joiner")


@app.on(Arrived)
async def arrive(event: Arrived, ctx: choreo.Context) -> None:
    pair = ctx.row(Pair)
    before = pair.total
    await ctx.call(pause)
    pair.arrived += 1
    pair.total = before + 1
    ctx.emit(Paired(entity=event.entity, n=event.n, total=pair.total))


@app.on(Departed)
async def depart(event: Departed, ctx: choreo.Context) -> None:
    pair = ctx.row(Pair)
    before = pair.total
    await ctx.call(pause)
    pair.departed += 1
    pair.total = before + 1
    ctx.emit(Paired(entity=event.entity, n=event.n, total=pair.total))
