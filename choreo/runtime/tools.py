"""The one place that runs a tool: on the event loop if it is async, in a thread if not."""

from __future__ import annotations

import asyncio
from typing import Any

from choreo.agent.tool import Invocation
from choreo.kernel.values import Call


async def run_call(call: Call) -> Any:
    """The answer of a tool call. The caller applies ``call.timeout_s``; a thread that is too late runs on unheard."""
    invocation = call.arguments
    assert isinstance(invocation, Invocation), "calls are made by ctx.call"
    if invocation.is_async:
        return await invocation.run()
    return await asyncio.to_thread(invocation.run)
