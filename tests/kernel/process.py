"""One worker process of a simulated world: the real shell, session, transaction, restore and engine on fake clients.

Theory of operation. ``EngineShell._run`` and ``Restorer._run`` are what production runs in two threads. Here each runs
in a greenlet: code that is called from it may hand control back to the world wherever it stands, and go on later. The
fake clients (``clients.py``), the fake ``threading``, ``queue`` and ``time`` below and wrappers around the engine do so
at fault points. A crash throws ``Killed`` into the greenlets; what the runtime's ``finally`` blocks still want to tell
the outside is refused, because a dead process tells nobody anything.

Not real: Kafka and its clients, the event loop that runs calls (``PendingCalls``), the reading of the cluster's facts,
reference tables (there are none), RocksDB below ``RocksStore`` (``disks.py``), and the handlers (``fakes.py``).
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any

import greenlet
import pytest

import choreo.runtime.log_ends as log_ends_module
import choreo.runtime.restore as restore_module
import choreo.runtime.session as session_module
import choreo.runtime.shell as shell_module
import choreo.runtime.stores.rocksdb as rocksdb_module
from choreo.errors import ChoreoError, FencedSignal, HostError
from choreo.kernel.burst import Burst
from choreo.kernel.engine import Engine
from choreo.kernel.restore import Restored
from choreo.kernel.values import Answer, Call, Delivery, Failure, Outcome, StateView, StepResult, TopicFacts, Trigger
from choreo.runtime.facts import ClusterFacts
from choreo.runtime.records import InternalRecords
from choreo.runtime.session import Session, SessionConfig
from choreo.runtime.shell import EngineShell
from choreo.runtime.stores.memory import MemoryStore
from choreo.topology import names
from tests.kernel.clients import MemoryAdmin, MemoryConsumer, MemoryTransactionalProducer
from tests.kernel.disks import Disk, DiskPath, stand_ins
from tests.kernel.fakes import AGENT, FACTS, TABLE, TOPOLOGY, FakeRunner, FakeStep
from tests.kernel.points import Side

if TYPE_CHECKING:
    from tests.kernel.world import World

RECORDS = InternalRecords()
DRAINS_S = (0.0, 0.3, 10.0)
"""How long an orderly stop may take: not long enough, too."""


class Killed(greenlet.GreenletExit):
    """The process is gone; nothing of it runs any further."""


class Point:
    """Both sides of one fault point."""

    __slots__ = ("_name", "_process")

    def __init__(self, process: Process, name: str) -> None:
        self._process = process
        self._name = name

    def __enter__(self) -> None:
        self._process.at(self._name, "before")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._process.at(self._name, "after")


class Process:
    """A worker, from its start until it crashes, is fenced or stops."""

    def __init__(self, world: World, instance: str, disk: Disk) -> None:
        self.world = world
        self.instance = instance
        self.disk = disk
        self.owner = names.transactional_id(TOPOLOGY, AGENT, instance)
        self.paused = False
        self.dead = False
        self.crash_wanted = False
        self.where: tuple[str, Side] = ("session start", "before")
        self.failure: BaseException | None = None
        self.session: WatchedSession | None = None
        self.consumer: MemoryConsumer | None = None
        self.producer: MemoryTransactionalProducer | None = None
        self.calls: PendingCalls | None = None
        self.threads: list[FakeThread] = []
        with world.within(self):
            self.shell = EngineShell(
                SessionConfig(
                    world.topology,
                    world.topology.agents[AGENT],
                    "memory",
                    instance,
                    DiskPath("state"),  # type: ignore[arg-type]
                    6_000,
                    self._runner,
                ),
                call=_never_called,
                on_failure=self._note_failure,
            )
            self.shell.start(SimpleNamespace())  # type: ignore[arg-type]

    def _runner(self, facts: ClusterFacts) -> FakeRunner:
        return PointedRunner(self)

    def _note_failure(self, failure: BaseException) -> None:
        self.failure = failure

    # -- control -------------------------------------------------------------------------------------------------------

    def point(self, name: str) -> Point:
        return Point(self, name)

    def at(self, name: str, side: Side) -> None:
        """A fault point is passed."""
        self.alive()
        self.where = (name, side)
        if self.world.passes(self, name, side):
            self.switch()

    def switch(self) -> None:
        """Lets the others run."""
        self.alive()
        self.world.hub.switch()
        self.alive()

    def alive(self) -> None:
        if self.dead:
            raise Killed

    def resume(self, thread: FakeThread) -> None:
        """Runs one thread until it switches, from the world's own greenlet."""
        with self.world.within(self):
            thread.greenlet.switch()
        if self.crash_wanted:
            self.world.crash(self)
        elif self.threads[0].greenlet.dead:
            self.kill()
            self.world.ended(self)

    def kill(self) -> None:
        """``kill -9``."""
        self.dead = True
        with self.world.within(self):
            for thread in self.threads:
                if not thread.greenlet.dead:
                    thread.greenlet.throw(Killed)
        self.threads.clear()

    def stop(self) -> None:
        """SIGTERM: finish what can be finished, commit, leave."""
        self.shell._drain_until = self.world.mono_s + self.world.chance.choice(DRAINS_S)
        self.shell._stopping.set()

    # -- for checks ----------------------------------------------------------------------------------------------------

    @property
    def runs_the_engine(self) -> bool:
        """Whether it is the engine's thread that runs now."""
        return bool(self.threads) and greenlet.getcurrent() is self.threads[0].greenlet

    @property
    def engine(self) -> Engine | None:
        return None if self.session is None else self.session.engine

    @property
    def owned(self) -> set[int]:
        consumer = self.consumer
        return consumer.member.owned if consumer is not None and consumer.member is not None else set()

    def owned_now(self, number: int) -> bool:
        """Whether the group still counts it as the partition's owner."""
        member = None if self.consumer is None else self.consumer.member
        return member is not None and self.world.group.knows(member) and number in member.owned

    @property
    def in_transaction(self) -> bool:
        return self.producer is not None and self.producer.in_transaction

    def rows(self, number: int) -> dict[str, bytes]:
        assert self.session is not None
        store: Any = self.session._stores[number][TABLE]
        return dict(store.items())

    def busy(self) -> str:
        """What it is at; nothing if it waits for something new to happen."""
        session, consumer = self.session, self.consumer
        if session is None or consumer is None or consumer.member is None:
            return "has not joined"
        if session._tickets or session._restorer.results.qsize():
            return "restores"
        if self.calls is not None and (self.calls.running or self.calls.answers.qsize()):
            return "calls"
        if self.in_transaction or session._under_way is not None:
            return "commits"
        if not session.engine.idle:
            return f"is not idle: {session.engine.statistics()}"
        wakes_at_ms = session.engine.wakes_at_ms(self.world.now_ms)
        if wakes_at_ms is not None and wakes_at_ms <= self.world.now_ms:
            return "wants to go on"
        return ""


async def _never_called(call: Call) -> Any:
    raise AssertionError("calls are answered by the world")


# -- what stands in for threading, queue and time ----------------------------------------------------------------------


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
        if self._arrived and isinstance(item, restore_module.RestoreResult):
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


class PendingCalls:
    """``Calls`` without an event loop: the world answers."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.running: dict[int, int] = {}  # call: the round in which it started
        self.answers = FakeQueue(process)
        process.calls = self

    def start(self, calls: list[tuple[int, Call]]) -> None:
        if calls:
            with self._process.point("call starts"):
                for _, call in calls:
                    self._process.world.check_call(self._process, call)
                self.running.update((call_id, self._process.world.round) for call_id, _ in calls)

    def cancel(self, call_ids: Iterable[int]) -> None:
        gone = list(call_ids)
        if gone:
            with self._process.point("call cancelled"):
                for call_id in gone:
                    self.running.pop(call_id, None)

    def answer(self) -> None:
        """From the world: some calls end."""
        world = self._process.world
        for call_id in [call_id for call_id, started in self.running.items() if world.call_ends(started)]:
            del self.running[call_id]
            self.answers.put((call_id, Answer("yes", None)))
            if world.repeats_callbacks:
                self.answers.put((call_id, Answer("again", None)))


# -- the runtime's own objects, with fault points ----------------------------------------------------------------------


class WatchedSession(Session):
    """Says which process it belongs to."""

    def __init__(self, *arguments: Any) -> None:
        self._process = _current()
        with self._process.point("session start"):
            super().__init__(*arguments)
            self._process.session = self

    def close(self, *, orderly: bool) -> None:
        self._process.session = None
        with self._process.point("session end"):
            super().close(orderly=orderly)


class PointedEngine(Engine):
    """The engine, with fault points where the session calls it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._process = _current()

    def assign(self, number: int) -> None:
        with self._process.point("engine assign"):
            super().assign(number)

    def restored(self, number: int, restored: Restored) -> None:
        with self._process.point("engine restored"):
            super().restored(number, restored)

    def revoke(self, numbers: Iterable[int]) -> None:
        gone = list(numbers)
        if not gone:
            return
        with self._process.point("engine revoke"):
            super().revoke(gone)

    def deliver(self, deliveries: Iterable[Delivery]) -> None:
        with self._process.point("deliver"):
            super().deliver(deliveries)

    def reach_end(self, topic: str, number: int, offset: int) -> None:
        with self._process.point("input end"):
            super().reach_end(topic, number, offset)

    def pump(self, now_ms: int, steps_max: int = 0) -> int:
        with self._process.point("pump"):
            return super().pump(now_ms, self._process.world.pump_steps())

    def answer(self, call_id: int, answer: Answer, now_ms: int) -> None:
        with self._process.point("answer"):
            super().answer(call_id, answer, now_ms)

    def take_burst(self, now_ms: int) -> Burst | None:
        with self._process.point("take burst"):
            return super().take_burst(now_ms)

    def committed(self, burst: Burst, now_ms: int) -> None:
        with self._process.point("burst committed"):
            super().committed(burst, now_ms)

    def put_back(self, burst: Burst) -> None:
        with self._process.point("put back"):
            super().put_back(burst)

    def refuse_burst(self, burst: Burst) -> None:
        with self._process.point("burst refused"):
            super().refuse_burst(burst)

    def drain(self) -> None:
        with self._process.point("drain"):
            super().drain()


class PointedRunner(FakeRunner):
    """Handlers, with fault points."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.world.script)
        self.process = process

    def start(self, trigger: Trigger, view: StateView, now_ms: int, /) -> FakeStep:
        if trigger.timer is not None:
            name = "step of a timer"
        elif trigger.parked_number >= 0:
            name = "step of a parked event"
        else:
            name = "step of an event"
        with self.process.point(name):
            return PointedStep(self, trigger, view)

    def dead_letter(self, trigger: Trigger, why: Failure, view: StateView, now_ms: int, /) -> Outcome:
        with self.process.point("dead letter"):
            return super().dead_letter(trigger, why, view, now_ms)

    def duplicate(self, trigger: Trigger, view: StateView, now_ms: int, /) -> Outcome:
        with self.process.point("duplicate"):
            return super().duplicate(trigger, view, now_ms)

    def park(self, trigger: Trigger, why: Failure, number: int, view: StateView, now_ms: int, /) -> Outcome:
        with self.process.point("park"):
            return super().park(trigger, why, number, view, now_ms)


class PointedStep(FakeStep):
    def advance(self, answer: Answer | None, /) -> StepResult:
        if answer is None:
            return super().advance(answer)
        assert isinstance(self._runner, PointedRunner)
        with self._runner.process.point("resume after a call"):
            return super().advance(answer)


class PointedStore(MemoryStore):
    """Rows in memory; applying is a fault point in the engine's thread, what a restore reads is one by itself."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process

    def apply(self, writes: Iterable[tuple[str, bytes | None]], next_offset: int | None, at_ms: int) -> None:
        if not self._process.runs_the_engine:
            super().apply(writes, next_offset, at_ms)
            return
        with self._process.point("store apply"):
            super().apply(writes, next_offset, at_ms)


def _read_facts(admin: Any, bootstrap: str, wanted: Iterable[str]) -> ClusterFacts:
    process = _current()
    world = process.world
    with process.point("facts read"):
        if world.strikes("cluster away", 0.03):
            raise HostError("Kafka does not answer", code="CH0801")
        counts = world.bus.topics
        missing = [name for name in wanted if name not in counts]
        if missing:
            raise HostError(f"no {missing}", code="CH0805")
        topics = {
            name: TopicFacts(count, FACTS[name].message_bytes_max if name in FACTS else 100_000)
            for name, count in counts.items()
        }
        ids = {name: world.topic_id(name) for name in counts}
        return ClusterFacts("c", topics, ids, dict.fromkeys(counts, 86_400_000))


# -- planting ----------------------------------------------------------------------------------------------------------

_RUNTIME = [module for name, module in sorted(sys.modules.items()) if name.startswith("choreo.runtime.")]
"""All that the shell is made of: whatever waits or asks for the time in there does so in the world."""
_worlds: list[World] = []


def _current() -> Process:
    process = _worlds[-1].current
    assert process is not None, "no process runs"
    return process


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """While it lasts, the runtime's modules see this world instead of threads, clocks and Kafka."""
    clock = SimpleNamespace(
        monotonic=lambda: world.mono_s,
        time_ns=lambda: world.now_ms * 1_000_000,
        time=lambda: world.now_ms / 1_000,
        sleep=lambda s: (_current().switch(), world.pass_s(s)),
    )
    threads = SimpleNamespace(
        Thread=lambda **how: FakeThread(_current(), **how),
        Event=lambda: FakeEvent(_current()),
        Lock=lambda: FakeLock(_current()),
    )
    queues = SimpleNamespace(
        SimpleQueue=lambda: FakeQueue(_current(), arrived="restore handed over"), Empty=queue.Empty
    )
    log = logging.getLogger("choreo.engine")
    was_disabled, log.disabled = log.disabled, True
    _worlds.append(world)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for module in _RUNTIME:
                for standard, stand_in in ((threading, threads), (queue, queues), (time, clock)):
                    if vars(module).get(standard.__name__) is standard:
                        patch.setattr(module, standard.__name__, stand_in)
                if "ThreadPoolExecutor" in vars(module):
                    patch.setattr(module, "ThreadPoolExecutor", lambda *_: FakePool(_current()))
            patch.setattr(shell_module, "random", SimpleNamespace(uniform=lambda low, high: (low + high) / 2))
            patch.setattr(shell_module, "Session", WatchedSession)
            patch.setattr(shell_module, "Calls", lambda loop, run: PendingCalls(_current()))
            patch.setattr(session_module, "Engine", PointedEngine)
            patch.setattr(session_module, "InternalRecords", lambda: RECORDS)
            patch.setattr(session_module, "read_facts", _read_facts)
            patch.setattr(restore_module, "MemoryStore", lambda: PointedStore(_current()))
            for name, stand_in in stand_ins(_current).items():
                patch.setattr(rocksdb_module, name, stand_in)
            for (module, name), bound in world.plan.bounds.items():
                patch.setattr(module, name, bound)
            patch.setattr(log_ends_module, "admin_client", lambda bootstrap, security: MemoryAdmin(_current()))
            for module in (session_module, restore_module):
                patch.setattr(module, "Consumer", lambda settings: MemoryConsumer(_current(), settings))
                patch.setattr(module, "AdminClient", lambda settings: MemoryAdmin(_current()))
                patch.setattr(
                    module, "Producer", lambda settings, **_: MemoryTransactionalProducer(_current(), settings)
                )
            yield
    finally:
        _worlds.pop()
        log.disabled = was_disabled


def how_it_ended(failure: BaseException | None) -> str:
    """Empty: as no worker may end."""
    if failure is None:
        return "stopped"
    if isinstance(failure, FencedSignal):
        return "fenced"
    if isinstance(failure, ChoreoError) and failure.code == "CH0801":
        return "gave up"
    return ""


__all__ = ["RECORDS", "Killed", "Process", "how_it_ended", "simulated"]
