"""Counts arrivals per entity; one output for each."""

from __future__ import annotations

import choreo
from agents.pause import pause
from schemas import Arrived, Counted, Counter

# More than any topic of the tests accepts.
OVERSIZE_BYTES = 3 * 1024 * 1024

app = choreo.App("topologies/counting.yaml", agent="counter")


@app.on(Arrived)
async def count(event: Arrived, ctx: choreo.Context) -> None:
    counter = ctx.row(Counter)
    before = counter.total
    await ctx.call(pause)  # between reading and writing: a second step of the same entity in here would be seen
    if event.order == "show":  # lets a test see the row that the worker holds
        ctx.emit(Counted(entity=event.entity, n=event.n, total=before))
        return
    if event.order == "fail":
        raise ValueError(f"arrival {event.n} of {event.entity} is poison")
    counter.total = before + 1
    padding = b"\0" * OVERSIZE_BYTES if event.order == "oversize" else b""
    ctx.emit(Counted(entity=event.entity, n=event.n, total=counter.total, padding=padding))
