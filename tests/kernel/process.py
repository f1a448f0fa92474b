"""One worker process of a simulated world: the real shell, session, transaction, restore and engine on fake clients.

Theory of operation. ``EngineShell._run`` and ``Restorer._run`` are what production runs in two threads. Here each runs
in a greenlet: code that is called from it may hand control back to the world wherever it stands, and go on later. The
fake clients (``clients.py``), the fake ``threading`` and ``queue`` (``threads.py``) and wrappers around the runtime's
own objects (``pointed.py``) do so at fault points. A crash throws ``Killed`` into the greenlets; what the runtime's
``finally`` blocks still want to tell the outside is refused, because a dead process tells nobody anything.

Not real: Kafka and its clients, the event loop that runs calls (``PendingCalls``), the reading of the cluster's facts,
reference tables (there are none), RocksDB below ``RocksStore`` (``disks.py``), and the handlers (``fakes.py``).
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any

import greenlet
import pytest

import choreo.runtime.group_look as group_look_module
import choreo.runtime.group_offsets as group_offsets_module
import choreo.runtime.log_ends as log_ends_module
import choreo.runtime.restore as restore_module
import choreo.runtime.session as session_module
import choreo.runtime.shell as shell_module
import choreo.runtime.stores.rocksdb as rocksdb_module
from choreo.errors import ChoreoError, FencedSignal
from choreo.kernel.engine import Engine
from choreo.kernel.values import Call
from choreo.runtime.facts import ClusterFacts
from choreo.runtime.records import InternalRecords
from choreo.runtime.session import SessionConfig
from choreo.runtime.shell import EngineShell
from choreo.topology import names
from tests.kernel.clients import MemoryAdmin, MemoryConsumer, MemoryTransactionalProducer
from tests.kernel.disks import Disk, DiskPath, stand_ins
from tests.kernel.fakes import AGENT, TABLE, TOPOLOGY, FakeRunner
from tests.kernel.pointed import (
    PendingCalls,
    PointedEngine,
    PointedRunner,
    PointedStore,
    WatchedSession,
    current,
    enter,
    leave,
    read_facts,
)
from tests.kernel.points import Side
from tests.kernel.threads import FakeEvent, FakeLock, FakePool, FakeQueue, FakeThread

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
        if self.in_transaction or session._under_way is not None or session._committer.busy:
            return "commits"
        if not session.engine.idle:
            return f"is not idle: {session.engine.statistics()}"
        wakes_at_ms = session.engine.wakes_at_ms(self.world.now_ms)
        if wakes_at_ms is not None and wakes_at_ms <= self.world.now_ms:
            return "wants to go on"
        return ""


async def _never_called(call: Call) -> Any:
    raise AssertionError("calls are answered by the world")


# -- planting ----------------------------------------------------------------------------------------------------------

_RUNTIME = [module for name, module in sorted(sys.modules.items()) if name.startswith("choreo.runtime.")]
"""All that the shell is made of: whatever waits or asks for the time in there does so in the world."""


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """While it lasts, the runtime's modules see this world instead of threads, clocks and Kafka."""
    clock = SimpleNamespace(
        monotonic=lambda: world.mono_s,
        time_ns=lambda: world.now_ms * 1_000_000,
        time=lambda: world.now_ms / 1_000,
        sleep=lambda s: (current().switch(), world.pass_s(s)),
    )
    threads = SimpleNamespace(
        Thread=lambda **how: FakeThread(current(), **how),
        Event=lambda: FakeEvent(current()),
        Lock=lambda: FakeLock(current()),
    )
    queues = SimpleNamespace(SimpleQueue=lambda: FakeQueue(current(), arrived="restore handed over"), Empty=queue.Empty)
    log = logging.getLogger("choreo.engine")
    was_disabled, log.disabled = log.disabled, True
    enter(world)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for module in _RUNTIME:
                for standard, stand_in in ((threading, threads), (queue, queues), (time, clock)):
                    if vars(module).get(standard.__name__) is standard:
                        patch.setattr(module, standard.__name__, stand_in)
                if "ThreadPoolExecutor" in vars(module):
                    patch.setattr(module, "ThreadPoolExecutor", lambda *_: FakePool(current()))
            patch.setattr(shell_module, "random", SimpleNamespace(uniform=lambda low, high: (low + high) / 2))
            patch.setattr(shell_module, "Session", WatchedSession)
            patch.setattr(shell_module, "Calls", lambda loop, run: PendingCalls(current()))
            patch.setattr(session_module, "Engine", PointedEngine)
            patch.setattr(session_module, "InternalRecords", lambda: RECORDS)
            patch.setattr(session_module, "read_facts", read_facts)
            patch.setattr(restore_module, "MemoryStore", lambda: PointedStore(current()))
            for name, stand_in in stand_ins(current).items():
                patch.setattr(rocksdb_module, name, stand_in)
            for (module, name), bound in world.plan.bounds.items():
                patch.setattr(module, name, bound)
            patch.setattr(log_ends_module, "admin_client", lambda bootstrap, security: MemoryAdmin(current()))
            made = {
                "Consumer": lambda settings: MemoryConsumer(current(), settings),
                "AdminClient": lambda settings: MemoryAdmin(current()),
                "Producer": lambda settings, **_: MemoryTransactionalProducer(current(), settings),
            }
            for module in (session_module, restore_module, group_look_module, group_offsets_module):
                for name in made.keys() & vars(module).keys():
                    patch.setattr(module, name, made[name])
            yield
    finally:
        leave()
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
