"""Calls run on the loop; each one the engine still waits for is answered exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from choreo.kernel.values import Answer, Call
from choreo.runtime.calls import Calls


def answers_of(
    run: Callable[[Call], Coroutine[Any, Any, Any]], act: Callable[[Calls], Awaitable[None]]
) -> dict[int, Answer]:
    found: list[tuple[int, Answer]] = []

    async def main() -> None:
        calls = Calls(asyncio.get_running_loop(), run)
        await act(calls)
        for _ in range(calls.answers.qsize()):
            found.append(calls.answers.get())

    asyncio.run(main())
    assert len(dict(found)) == len(found), "a call was answered twice"
    return dict(found)


async def settle(turns: int = 10) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def call(timeout_s: float = 60.0, tool: str = "ask") -> Call:
    return Call(tool, None, timeout_s)


def test_a_value_and_an_error_are_both_answers() -> None:
    async def run(one: Call) -> str:
        if one.tool == "fails":
            raise ValueError("no")
        return "yes"

    async def act(calls: Calls) -> None:
        calls.start([(1, call()), (2, call(tool="fails"))])
        await settle()

    answers = answers_of(run, act)
    assert answers[1].value == "yes" and answers[1].error is None and answers[1].started_at_ms > 0
    assert isinstance(answers[2].error, ValueError)


def test_a_late_call_is_answered_at_once_even_if_it_refuses_to_be_cancelled() -> None:
    refused = asyncio.Event()

    async def run(one: Call) -> str:
        never = asyncio.get_running_loop().create_future()
        try:
            await never
        except asyncio.CancelledError:
            refused.set()
            await settle()
            return "too late"
        return "never"

    async def act(calls: Calls) -> None:
        calls.start([(1, call(timeout_s=0.001))])
        await refused.wait()
        await settle(30)

    answers = answers_of(run, act)
    assert isinstance(answers[1].error, TimeoutError) and "longer than 0.001 s" in str(answers[1].error)


def test_a_call_that_nobody_waits_for_any_more_is_cancelled_and_not_answered() -> None:
    ended: list[str] = []

    async def run(one: Call) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(one.tool)

    async def act(calls: Calls) -> None:
        calls.start([(1, call())])
        await settle()
        calls.cancel([1, 99])
        await settle()

    assert answers_of(run, act) == {}
    assert ended == ["ask"]


def test_a_call_whose_tool_cancels_itself_is_answered_as_an_error() -> None:
    async def run(one: Call) -> None:
        raise asyncio.CancelledError

    async def act(calls: Calls) -> None:
        calls.start([(1, call())])
        await settle()

    assert isinstance(answers_of(run, act)[1].error, TimeoutError)
