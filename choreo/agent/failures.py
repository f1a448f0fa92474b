"""How a step tells that it failed, without catching everything itself.

The one place that catches everything is ``choreo/runtime/classify.py``; the runner gets it as ``Guard``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from choreo.errors import ChoreoError, StepError, ToolError
from choreo.kernel.values import Answer, Call, Failure

T = TypeVar("T")

MESSAGE_CHARS_MAX: Final = 2_000
"""Longest error message that is kept: exceptions of libraries may hold a whole response."""
AWAIT_HINT: Final = (
    'put it into a function with @choreo.tool(effect="read") above it, declare that under tools:, '
    "and write `await ctx.call(function, …)`"
)


class Guard(Protocol):
    """Runs something of the user's; what it raises comes back as a ``Failure``."""

    def __call__(self, action: Callable[..., T], /, *args: Any) -> T | Failure: ...


Classify = Callable[[BaseException], Failure]


def foreign_await(place: str, awaited: object) -> StepError:
    """The handler awaited something that is not of its context."""
    seen = "asyncio.sleep(0) or the like" if awaited is None else f"{type(awaited).__module__}.{type(awaited).__name__}"
    return StepError(
        f"the handler awaited {seen}; a handler awaits nothing but ctx", code="CH0310", where=place, hint=AWAIT_HINT
    )


def told(answer: Answer, call: Call, classify: Classify) -> Answer:
    """The answer as the handler may see it: errors of tools are ``ToolError``, whatever they were, so that a recorded
    answer raises the same."""
    error = answer.error
    if error is None:
        return answer
    if isinstance(error, ChoreoError):
        shown = ToolError(
            f"tool {call.tool}: {error.message}",
            code=error.code,
            where=error.where,
            hint=error.hint,
            retry=error.retry,
            in_doubt=error.in_doubt,
            fault=error.fault,
        )
    elif isinstance(error, TimeoutError):
        shown = ToolError(f"tool {call.tool} took longer than {call.timeout_s:g} s", code="CH0402", retry="backoff")
    else:
        failure = classify(error)
        shown = ToolError(f"tool {call.tool}: {failure.message}", retry="backoff" if failure.retry else "never")
    shown.__cause__ = error
    return answer._replace(error=shown)


def bounded(text: str, chars_max: int = MESSAGE_CHARS_MAX) -> str:
    """Text that fits and that Avro can write."""
    if len(text) > chars_max:
        text = f"{text[: chars_max - 1]}…"
    return text.encode(errors="replace").decode()
