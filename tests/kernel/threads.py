"""What stands in for ``threading``, ``queue`` and ``concurrent.futures`` in a simulated process: greenlets.

Whatever waits hands control back to the world. Waiting with a timeout costs virtual time.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import greenlet

from choreo.runtime.restore import RestoreResult

if TYPE_CHECKING:
    from tests.kernel.process import Process


class FakeThread:
    """``threading.Thread`` as a greenlet of the process that made it."""

    def __init__(self, process: Process, *, target: Callable[[], None], name: str, daemon: bool) -> None:
        self.process = process
        self.name = name
        self.greenlet = greenlet.greenlet(target, parent=process.world.hub)
        self.waits_for: Callable[[], bool] | None = None
        self._started = False

    def start(self) -> None:
        self._started = True
        threads = self.process.threads
        threads[1:] = [one for one in threads[1:] if not one.greenlet.dead]
        threads.append(self)

    def is_alive(self) -> bool:
        return self._started and not self.greenlet.dead

    def join(self, timeout: float | None = None) -> None:
        deadline = None if timeout is None else self.process.world.mono_s + timeout
        while self.is_alive() and (deadline is None or self.process.world.mono_s < deadline):
            self.process.switch()
            self.process.world.pass_s(0.01)

    @property
    def may_run(self) -> bool:
        return self.waits_for is None or self.waits_for()


class FakePool:
    """``ThreadPoolExecutor(1)``."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def submit(self, work: Callable[[], Any]) -> FakeFuture:
        future = FakeFuture()
        FakeThread(self._process, target=lambda: future.finish(work()), name="choreo-pool", daemon=True).start()
        return future

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        return None


class FakeFuture:
    """``Future`` of a ``FakePool``."""

    def __init__(self) -> None:
        self._result: list[Any] = []

    def finish(self, result: Any) -> None:
        self._result.append(result)

    def done(self) -> bool:
        return bool(self._result)

    def result(self) -> Any:
        return self._result[0]


class FakeEvent:
    """``threading.Event``; waiting costs virtual time."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float) -> bool:
        if not self._set:
            self._process.switch()
            if not self._set:
                self._process.world.pass_s(timeout)
        return self._set


class FakeLock:
    """``threading.Lock``: who holds it may be switched away from."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._held = False

    def __enter__(self) -> None:
        while self._held:
            self._process.switch()
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False


class FakeQueue:
    """``queue.SimpleQueue`` between greenlets. ``arrived``/``left``: fault points of putting and taking."""

    def __init__(self, process: Process, *, arrived: str = "", left: str = "") -> None:
        self._process = process
        self._items: deque[Any] = deque()
        self._arrived = arrived
        self._left = left

    def put(self, item: Any) -> None:
        if self._arrived and isinstance(item, RestoreResult):
            with self._process.point(self._arrived):
                self._items.append(item)
        else:
            self._items.append(item)

    def get(self, timeout: float | None = None) -> Any:
        if timeout is not None and not self._items:
            self._process.switch()
            if not self._items:
                self._process.world.pass_s(timeout)
            return self.get_nowait()
        while not self._items:
            thread = next(one for one in self._process.threads if one.greenlet is greenlet.getcurrent())
            thread.waits_for = lambda: bool(self._items)
            self._process.switch()
            thread.waits_for = None
        return self._items.popleft()

    def get_nowait(self) -> Any:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def qsize(self) -> int:
        return len(self._items)

    def empty(self) -> bool:
        return not self._items
