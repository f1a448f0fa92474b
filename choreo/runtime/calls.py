"""Runs tool calls on the event loop for the engine thread."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, NamedTuple

from choreo.kernel.values import Answer, Call


class _Running(NamedTuple):
    """A call that nobody has answered yet."""

    call: Call
    task: asyncio.Task[Any]
    limit: asyncio.TimerHandle
    started_at_ms: int
    began_s: float


class Calls:
    """Starts and cancels calls on the loop; answers come back through a queue that the engine thread empties.

    One task and one timer for each call: a call that is late is answered at once, whatever its task makes of being
    cancelled.

    Args:
        loop: Faust's event loop.
        run: carries out one call; what it raises is the answer's error.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, run: Callable[[Call], Coroutine[Any, Any, Any]]) -> None:
        self._loop = loop
        self._run = run
        self._running: dict[int, _Running] = {}
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
        started_at_ms, began_s = time.time_ns() // 1_000_000, time.monotonic()
        for call_id, call in calls:
            task = self._loop.create_task(self._run(call), name=f"choreo-call-{call.tool}")
            limit = self._loop.call_later(call.timeout_s, self._late, call_id)
            self._running[call_id] = _Running(call, task, limit, started_at_ms, began_s)
            task.add_done_callback(partial(self._ended, call_id))

    def _cancel(self, call_ids: list[int]) -> None:
        for call_id in call_ids:
            running = self._running.pop(call_id, None)
            if running is not None:
                running.limit.cancel()
                running.task.cancel()

    def _late(self, call_id: int) -> None:
        running = self._running.pop(call_id)
        running.task.cancel()
        call = running.call
        self._answer(call_id, running, Answer(None, TimeoutError(f"{call.tool} took longer than {call.timeout_s} s")))

    def _ended(self, call_id: int, task: asyncio.Task[Any]) -> None:
        running = self._running.pop(call_id, None)
        if running is None:  # late or cancelled: nobody asks for what came of it
            if not task.cancelled():
                task.exception()  # seen, so that asyncio doesn't log it as forgotten
            return
        running.limit.cancel()
        if task.cancelled():
            answer = Answer(None, TimeoutError(f"{running.call.tool} was cancelled"))
        elif (error := task.exception()) is not None:
            answer = Answer(None, error)
        else:
            answer = Answer(task.result(), None)
        self._answer(call_id, running, answer)

    def _answer(self, call_id: int, running: _Running, answer: Answer) -> None:
        duration_ms = round((time.monotonic() - running.began_s) * 1000)
        self.answers.put((call_id, answer._replace(started_at_ms=running.started_at_ms, duration_ms=duration_ms)))
