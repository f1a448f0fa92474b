"""A thread that waits for Kafka while the engine thread goes on stepping.

Theory of operation. Committing a burst is nearly all waiting: for acknowledgements, for the offsets, for the end of the
transaction. The engine thread makes the burst, reads the group metadata and produces the records; the waiting calls
run here, one burst at a time. What the engine steps meanwhile goes into the next burst. Before a rebalance callback
changes anything the engine thread waits for the burst under way, so that the group cannot move between the making of
a burst and its end (librdkafka rejoins only after the callback was served).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from choreo.errors import EngineError
from choreo.runtime.carry import Carried

T = TypeVar("T")


class Committer(Generic[T]):
    """Runs one piece of work at a time in a thread of its own. Use from one thread."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], T] | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self.busy = False

    def start(self, work: Callable[[], T]) -> None:
        """Hands over ``work``.

        Raises:
            EngineError: the work before it was not taken back.
        """
        if self.busy:
            raise EngineError("a burst is under way")
        self.busy = True
        self._work.put(work)

    def result(self, wait_s: float | None) -> T | None:
        """What the work came to; None if it takes longer than ``wait_s`` seconds (None: waits for its end).

        Raises:
            BaseException: what the work raised.
        """
        try:
            value, error = self._ended.get(timeout=wait_s) if wait_s is None or wait_s > 0 else self._ended.get_nowait()
        except queue.Empty:
            return None
        self.busy = False
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Ends the thread after the work under way, whose result nobody wants any more."""
        if self.busy:
            self._ended.get()
            self.busy = False
        self._work.put(None)
        self._thread.join()

    def abandon(self) -> None:
        """As ``close``, without waiting: the work under way may never end. If it does, the thread ends with it."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            with Carried(lambda error: self._ended.put((None, error))):
                self._ended.put((work(), None))
