"""The one place that runs a tool: on the event loop if it is async, in a thread if not."""

from __future__ import annotations

import asyncio
from typing import Any

from choreo.agent.tool import Invocation
from choreo.errors import ToolError
from choreo.kernel.values import Call

_ENDS_MORE = (SystemExit, KeyboardInterrupt, StopIteration)
"""What asyncio does not keep in a task: the first two end the whole loop, the last one is lost and nobody answers."""


async def run_call(call: Call) -> Any:
    """The answer of a tool call. The caller applies ``call.timeout_s``; a thread that is too late runs on unheard.

    Raises:
        ToolError: CH0401, the tool raised what would end more than its call.
        BaseException: what else it raised.
    """
    invocation = call.arguments
    assert isinstance(invocation, Invocation), "calls are made by ctx.call"
    if not invocation.is_async:
        return await asyncio.to_thread(_run, invocation)
    try:
        return await invocation.run()
    except _ENDS_MORE as error:
        raise _kept(error) from error


def _run(invocation: Invocation) -> Any:
    try:
        return invocation.run()
    except _ENDS_MORE as error:
        raise _kept(error) from error


def _kept(error: BaseException) -> ToolError:
    text = str(error)
    return ToolError(f"{type(error).__name__}: {text}" if text else type(error).__name__)
