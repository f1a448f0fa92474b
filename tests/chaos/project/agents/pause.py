"""A tool that only takes time, so that steps overlap, overtake each other and are open when a worker dies."""

from __future__ import annotations

import asyncio
import os
import random

import choreo

LATENCY_S = float(os.environ.get("CHAOS_LATENCY_S", "0.05"))


@choreo.tool(effect="read", timeout_s=10.0)
async def pause() -> int:
    """Sleeps for a random while; returns its length in milliseconds."""
    latency_s = random.random() * LATENCY_S
    await asyncio.sleep(latency_s)
    return round(latency_s * 1_000)
