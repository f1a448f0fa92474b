"""An agent in a few lines of the kernel's own terms: counts events by key, emits each count."""

from __future__ import annotations

from collections.abc import Callable

from choreo.kernel.engine import Engine, EngineConfig, Refusals
from choreo.kernel.progress import Snapshot
from choreo.kernel.restore import Restored
from choreo.kernel.values import (
    Answer,
    Call,
    Delivery,
    Envelope,
    Failure,
    InputTopic,
    Outcome,
    OutRecord,
    ParkedRow,
    RowWrite,
    StateView,
    StepResult,
    TopicFacts,
    Trigger,
    Waiting,
)

LIMIT = 1_048_588
BEGINNING = Snapshot(0, ())


class CountingStep:
    """A value that starts with ``call`` waits for a call first; ``big`` makes a decision no broker takes."""

    def __init__(self, trigger: Trigger, view: StateView) -> None:
        self._trigger = trigger
        self._view = view
        self.abandoned = False

    def advance(self, answer: Answer | None, /) -> StepResult:
        delivery = self._trigger.delivery
        assert delivery is not None and delivery.value is not None
        if answer is None and delivery.value.startswith(b"call"):
            return Waiting(Call("wait", delivery.value, 30.0))
        count = int(self._view.row("counts", self._trigger.entity) or b"0") + 1
        outcome = Outcome(
            rows=[RowWrite("counts", b"%d" % count, ())],
            emits=[OutRecord("out", None, delivery.key, b"%s=%d" % (delivery.value, count), ())],
        )
        if delivery.value.startswith(b"big"):
            outcome.decision = OutRecord("decisions", None, delivery.key, b"x" * LIMIT, ())
        return outcome

    def abandon(self) -> None:
        self.abandoned = True


class CountingRunner:
    def __init__(self, step: Callable[[Trigger, StateView], CountingStep] = CountingStep) -> None:
        self._step = step
        self.dead: list[tuple[Trigger, Failure]] = []

    def start(self, trigger: Trigger, view: StateView, now_ms: int, /) -> CountingStep:
        return self._step(trigger, view)

    def dead_letter(self, trigger: Trigger, failure: Failure, view: StateView, now_ms: int, /) -> Outcome:
        self.dead.append((trigger, failure))
        delivery = trigger.delivery
        assert delivery is not None
        return Outcome(dead_letter=OutRecord("dead", None, delivery.key, delivery.value, ()))

    def duplicate(self, trigger: Trigger, view: StateView, now_ms: int, /) -> Outcome:
        return Outcome()

    def park(self, trigger: Trigger, failure: Failure, number: int, view: StateView, now_ms: int, /) -> Outcome:
        delivery = trigger.delivery
        assert delivery is not None
        return Outcome(
            parked=ParkedRow(
                trigger.entity, number, failure.code, failure.message, now_ms, trigger.envelope.event_id, delivery
            )
        )


class EmptyStore:
    def get(self, entity: str, /) -> bytes | None:
        return None

    def provenance(self, entity: str, /) -> str | None:
        return None


def envelope(delivery: Delivery, topic: InputTopic) -> Envelope:
    return Envelope(
        f"{delivery.topic}-{delivery.partition}-{delivery.offset}", "", delivery.timestamp_ms, "", "", 0, "", "", ""
    )


def engine(runner: CountingRunner | None = None, refusals: Refusals | None = None, *, in_flight: int = 256) -> Engine:
    facts = {name: TopicFacts(1, LIMIT) for name in ("out", "dead", "decisions", "counts-log")}
    config = EngineConfig(
        inputs=(InputTopic("in"),),
        partitions=1,
        owner="g.w0",
        facts=facts,
        changelogs={"counts": "counts-log"},
        parse=envelope,
        partition_of=lambda key, partitions: 0,
        settlement=lambda delivery: Failure("CH0206", "", "", False, False, ""),
        references=lambda table, key: None,
        in_flight=in_flight,
    )
    return Engine(config, runner or CountingRunner(), refusals)


def own(engine: Engine, snapshot: Snapshot = BEGINNING) -> None:
    engine.assign(0)
    engine.restored(0, Restored({"in": snapshot}, -1, 0, {}, [], [], {"counts": EmptyStore()}))


def delivery(offset: int, value: bytes = b"v", key: bytes | None = b"k") -> Delivery:
    return Delivery("in", 0, offset, 1_000 + offset, key, value, ())
