"""What an exception from user code means. The one place that catches everything.

Whatever a handler or a tool raises becomes a ``Failure``: permanent (a dead letter), worth another try, or parked. What
is not the step's own doing passes through and ends the worker: a fenced worker, a broken invariant, memory
running out. Kafka delivers again what was not committed.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Final, TypeVar

from choreo.agent.failures import AWAIT_HINT, bounded
from choreo.errors import ChoreoError, EngineError, FencedSignal, ParkSignal
from choreo.kernel.values import Failure

T = TypeVar("T")

FRAMES_MAX: Final = 20
"""Innermost frames kept of a traceback; recursion makes thousands."""

# Errors of HTTP clients that say nothing about the request itself, by name: not importing a client is cheaper.
_TRANSPORT: Final = frozenset(
    {("httpx", "TransportError"), ("httpx2", "TransportError"), ("aiohttp", "ClientConnectionError")}
)
_PASSES: Final = (FencedSignal, KeyboardInterrupt, MemoryError)
_INVARIANT: Final = "CH0309"
_STEP_FAILED: Final = "CH0303"


def guard(action: Callable[..., T], /, *args: Any) -> T | Failure:
    """Runs user code; what it raises comes back classified.

    Raises:
        FencedSignal, KeyboardInterrupt, MemoryError: they concern the worker, not the step.
        EngineError: CH0309, a defect in choreo.
    """
    try:
        return action(*args)
    except _PASSES:
        raise
    except BaseException as error:  # handlers may raise SystemExit or CancelledError: still the step's own failure
        if isinstance(error, EngineError) and error.code == _INVARIANT:
            raise
        return classify(error)


def classify(error: BaseException) -> Failure:
    """What an exception means for the step that raised it."""
    name = type(error).__name__
    if isinstance(error, ParkSignal):
        return Failure("CH0312", bounded(_text(error.reason)), name, False, True, "")
    detail = _detail(error)
    if isinstance(error, ChoreoError):
        # the code that a ChoreoError of the user's has if it names none means a defect in choreo, which it is not
        code = _STEP_FAILED if error.code == _INVARIANT else error.code
        return Failure(code, bounded(_sentence(error)), name, error.retry == "backoff", False, detail)
    text = _text(error)
    if _needs_a_loop(error, text):
        message = f"the handler awaited something of an event loop ({text}); a handler awaits nothing but ctx"
        return Failure("CH0310", bounded(f"{message} ({AWAIT_HINT})"), name, False, False, detail)
    message = f"{name}: {text}" if text else name
    return Failure(_STEP_FAILED, bounded(message), name, _is_transient(error), False, detail)


def _text(value: object) -> str:
    """What the user's object says of itself; an exception that cannot even be printed ends its step, not the worker."""
    try:
        return str(value)
    except _PASSES:
        raise
    except BaseException as error:
        return f"(its text could not be made: {type(error).__name__})"


def _sentence(error: ChoreoError) -> str:
    place = f"{_text(error.where)}: " if error.where else ""
    hint = f" ({_text(error.hint)})" if error.hint else ""
    return f"{place}{_text(error.message)}{hint}"


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, TimeoutError | ConnectionError | asyncio.CancelledError):
        return True
    return any((cls.__module__.partition(".")[0], cls.__name__) in _TRANSPORT for cls in type(error).__mro__)


def _needs_a_loop(error: BaseException, text: str) -> bool:
    # asyncio's words of functions that ask for the running loop, and of those that ask for the thread's
    if isinstance(error, RuntimeError) and ("no running event loop" in text or "no current event loop" in text):
        return True
    return type(error).__name__ in ("AsyncLibraryNotFoundError", "NoEventLoopError")  # sniffio, anyio


def _detail(error: BaseException) -> str:
    """Where it was raised, innermost last; neither source lines nor values, which may hold secrets."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    lines = [f"{_short(frame.filename)}:{frame.lineno} in {frame.name}" for frame in frames]
    cause = error.__cause__
    if cause is not None:
        lines.append(f"caused by {type(cause).__name__}: {bounded(_text(cause), 200)}")
    return "\n".join(lines)


def _short(filename: str) -> str:
    """The last parts of a path: enough to find the file, nothing about the machine."""
    return "/".join(PurePath(filename).parts[-3:]).lstrip("/")
