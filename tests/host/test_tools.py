"""What a tool raises ends its call, never the loop that it runs on, nor nothing at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from choreo.agent.tool import Invocation, tool
from choreo.errors import ToolError
from choreo.kernel.values import Call
from choreo.runtime.tools import run_call


@tool(effect="read")
def plain(error: BaseException) -> None:
    raise error


@tool(effect="read")
async def waiting(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("made", [plain, waiting])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(), ValueError("bad")])
def test_whatever_a_tool_raises_is_the_answer_of_its_call(made: Any, error: BaseException) -> None:
    async def called() -> BaseException | None:
        task = asyncio.ensure_future(run_call(Call(made.name, Invocation(made, (error,), {}), 5.0)))
        await asyncio.wait({task}, timeout=5)
        assert task.done(), "nobody would answer"
        return task.exception()

    raised = asyncio.run(called())
    if isinstance(error, ValueError):
        assert raised is error
    else:
        assert isinstance(raised, ToolError | RuntimeError)
        assert type(error).__name__ in str(raised)
