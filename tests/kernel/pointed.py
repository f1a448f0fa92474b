"""The runtime's own objects with fault points where they meet: session, engine, handlers, stores, calls, facts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from choreo.errors import HostError
from choreo.kernel.burst import Burst
from choreo.kernel.engine import Engine
from choreo.kernel.restore import Restored
from choreo.kernel.values import Answer, Call, Delivery, Failure, Outcome, StateView, StepResult, TopicFacts, Trigger
from choreo.runtime.facts import ClusterFacts
from choreo.runtime.session import Session
from choreo.runtime.stores.memory import MemoryStore
from tests.kernel.fakes import FACTS, FakeRunner, FakeStep
from tests.kernel.threads import FakeQueue

if TYPE_CHECKING:
    from tests.kernel.process import Process
    from tests.kernel.world import World

_worlds: list[World] = []


def enter(world: World) -> None:
    """This world runs now."""
    _worlds.append(world)


def leave() -> None:
    """The one before goes on."""
    _worlds.pop()


def current() -> Process:
    """The process whose code runs."""
    process = _worlds[-1].current
    assert process is not None, "no process runs"
    return process


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


class WatchedSession(Session):
    """Says which process it belongs to."""

    def __init__(self, *arguments: Any) -> None:
        self._process = current()
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
        self._process = current()

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


def read_facts(admin: Any, bootstrap: str, wanted: Iterable[str]) -> ClusterFacts:
    process = current()
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
