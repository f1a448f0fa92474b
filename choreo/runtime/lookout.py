"""Asks the cluster something now and then, without making the engine thread wait for the answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Lookout(Generic[T]):
    """One question, one at a time, each in a thread. For one thread.

    Args:
        name: of the thread.
        every_ms: from one question to the next.
        in_a_row: so many answers have to agree.
        look: asks; what it raises is raised by ``seen``.
    """

    def __init__(self, name: str, every_ms: int, in_a_row: int, look: Callable[[], T]) -> None:
        self._every_ms = every_ms
        self._in_a_row = in_a_row
        self._look: Callable[[], T] | None = look
        self._pool = ThreadPoolExecutor(1, name)
        self.asked: Future[T] | None = None
        self._next_ms = 0
        self._latest: T | None = None
        self._agreeing = 0

    def seen(self, now_ms: int) -> T | None:
        """An answer that has just come and agrees with those before it; None otherwise. Asks when it is time."""
        if self.asked is None:
            due = not self._next_ms - self._every_ms <= now_ms < self._next_ms  # or the clock was set back
            if due and self._look is not None:
                self._next_ms = now_ms + self._every_ms
                self.asked = self._pool.submit(self._look)
            return None
        if not self.asked.done():
            return None
        answer, self.asked = self.asked.result(), None
        self._agreeing = self._agreeing + 1 if answer == self._latest else 1
        self._latest = answer
        return answer if self._agreeing >= self._in_a_row else None

    def begin_anew(self) -> None:
        """Answers so far do not count any more."""
        self._agreeing = 0
        self._latest = None

    def stop(self) -> None:
        """Asks no more; what is being asked ends by itself. Whoever asked can be freed: a client holds connections."""
        self._look = None
        self._pool.shutdown(wait=False, cancel_futures=True)
