"""Runs tool calls on the event loop for the engine thread."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from choreo.kernel.values import Answer, Call


class Calls:
    """Starts and cancels calls on the loop; answers come back through a queue that the engine thread empties.

    Args:
        loop: Faust's event loop.
        run: carries out one call; what it raises is the answer's error.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, run: Callable[[Call], Awaitable[Any]]) -> None:
        self._loop = loop
        self._run = run
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.answers: queue.SimpleQueue[tuple[int, Answer]] = queue.SimpleQueue()

    def start(self, calls: list[tuple[int, Call]]) -> None:
        """From the engine thread; one hand-over for all."""
        if calls:
            self._loop.call_soon_threadsafe(self._start, calls)

    def cancel(self, call_ids: Iterable[int]) -> None:
        ids = list(call_ids)
        if ids:
            self._loop.call_soon_threadsafe(self._cancel, ids)

    def _start(self, calls: list[tuple[int, Call]]) -> None:
        for call_id, call in calls:
            self._tasks[call_id] = self._loop.create_task(self._one(call_id, call), name=f"choreo-call-{call.tool}")

    def _cancel(self, call_ids: list[int]) -> None:
        for call_id in call_ids:
            task = self._tasks.pop(call_id, None)
            if task is not None:
                task.cancel()

    async def _one(self, call_id: int, call: Call) -> None:
        started_at_ms, began = time.time_ns() // 1_000_000, time.monotonic()
        task = asyncio.ensure_future(self._run(call))
        try:
            await asyncio.wait({task}, timeout=call.timeout_s)
            if not task.done():
                task.cancel()
                answer = Answer(None, TimeoutError(f"{call.tool} took longer than {call.timeout_s} s"))
            elif task.cancelled():
                answer = Answer(None, TimeoutError(f"{call.tool} was cancelled"))
            else:
                error = task.exception()
                answer = Answer(None, error) if error is not None else Answer(task.result(), None)
            duration_ms = round((time.monotonic() - began) * 1000)
            answer = answer._replace(started_at_ms=started_at_ms, duration_ms=duration_ms)
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self._tasks.pop(call_id, None)
        self.answers.put((call_id, answer))
