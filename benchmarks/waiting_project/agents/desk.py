"""Answers requests; some need a call that takes its time. Written the way a user writes it."""

from __future__ import annotations

import asyncio

import choreo
from schemas import Answered, Request

app = choreo.App("topologies/desk.yaml", agent="desk")


@choreo.tool(effect="read", timeout_s=120.0)
async def look_up(milliseconds: int) -> int:
    """A call to something slow.

    Args:
        milliseconds: how long it takes.
    """
    await asyncio.sleep(milliseconds / 1_000)
    return milliseconds


@app.on(Request)
async def answer(event: Request, ctx: choreo.Context) -> None:
    if event.wait_ms:
        await ctx.call(look_up, event.wait_ms)
    ctx.emit(Answered(person=event.person, number=event.number, meant_ns=event.meant_ns))
