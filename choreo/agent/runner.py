"""Runs an agent's handlers as steps: decode, drive the coroutine, collect what it changed.

Theory of operation. A handler is a coroutine that the engine's thread drives by ``send``: one that never waits runs to
its end within one call, without a task and without an event loop. ``await ctx.call`` yields a ``Call`` up to here; the
engine gets it as ``Waiting`` and later hands the answer to ``advance``. Anything else that comes up was awaited outside
the context: nobody here could resume it, so that it is refused with the name of what to write instead.

A step keeps what it did in its context. Only a step that ended without an error turns that into an ``Outcome``.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, Final

from choreo.agent.bindings import Bindings
from choreo.agent.context import Context
from choreo.agent.dead_letter import DeadLetterWriter
from choreo.agent.decision import DecisionWriter
from choreo.agent.definition import place_of
from choreo.agent.failures import Classify, Guard, bounded, foreign_await, told
from choreo.errors import DecodeError, SchemaError, StepError
from choreo.kernel.envelope import row_headers
from choreo.kernel.values import (
    Answer,
    Call,
    Delivery,
    Failure,
    Outcome,
    ParkedRow,
    RowWrite,
    StateView,
    StepResult,
    TopicFacts,
    Trigger,
    Waiting,
)
from choreo.topology import names

Handler = Coroutine[Any, Any, None]
_new: Final = tuple.__new__  # see choreo.kernel.envelope


class AgentRunner:
    """The agent's side of the engine (``choreo.kernel.values.Runner``).

    Args:
        bindings: the agent's code, bound to its topology.
        guard: runs user code and turns what it raises into a ``Failure``.
        classify: says what an exception means; used for errors of tools.
        facts: what the cluster says about the agent's internal topics; sizes of decisions and dead letters follow it.
    """

    def __init__(
        self, bindings: Bindings, *, guard: Guard, classify: Classify, facts: Mapping[str, TopicFacts]
    ) -> None:
        topology, agent = bindings.topology.name, bindings.agent.name
        self.bindings = bindings
        self._inputs = bindings.inputs
        self._hops_max = bindings.agent.limits.hops
        self._audited = bindings.agent.audit != "off"
        self.guard = guard
        self.classify = classify
        self._decisions = DecisionWriter(bindings, facts.get(names.decisions(topology)))
        self._dead_letters = DeadLetterWriter(bindings, facts[names.dead_letters(topology, agent)])
        self._failed: tuple[Trigger, Context] | None = None  # what a step saw before it failed, for its decision

    def start(self, trigger: Trigger, view: StateView, now_ms: int, /) -> AgentStep:
        """A step that has not run yet; ``advance(None)`` starts it."""
        return AgentStep(self, trigger, view, now_ms)

    def dead_letter(self, trigger: Trigger, failure: Failure, view: StateView, now_ms: int, /) -> Outcome:
        """Dead letter with the original bytes, and its decision record."""
        record = self._dead_letters.write(trigger, failure, view.sequence(trigger.entity) + 1, now_ms)
        decision = self._decisions.write(
            "dead_letter", trigger, view, now_ms, ctx=self._take_failed(trigger), failure=failure
        )
        return Outcome(dead_letter=record, decision=decision)

    def duplicate(self, trigger: Trigger, view: StateView, now_ms: int, /) -> Outcome:
        """Nothing but the decision record of an event that was seen before."""
        return Outcome(decision=self._decisions.write("duplicate", trigger, view, now_ms))

    def park(self, trigger: Trigger, failure: Failure, number: int, view: StateView, now_ms: int, /) -> Outcome:
        """Parked row number ``number`` of the entity, and its decision record.

        A timer has no bytes that could be kept: it becomes a dead letter with the reason.
        """
        if trigger.delivery is None:
            return self.dead_letter(trigger, failure, view, now_ms)
        row = ParkedRow(
            trigger.entity,
            number,
            failure.code,
            bounded(failure.message),
            now_ms,
            trigger.envelope.event_id,
            trigger.delivery,
        )
        decision = self._decisions.write(
            "parked", trigger, view, now_ms, ctx=self._take_failed(trigger), failure=failure
        )
        return Outcome(parked=row, decision=decision)

    def _take_failed(self, trigger: Trigger) -> Context | None:
        failed, self._failed = self._failed, None
        return failed[1] if failed is not None and failed[0] is trigger else None

    def fail(self, trigger: Trigger, ctx: Context) -> None:
        """Remembers the context of a step that just failed; the engine asks for its dead letter next, or not at all."""
        self._failed = (trigger, ctx)

    # -- the parts of a step -------------------------------------------------------------------------------------------

    def coroutine_of(self, trigger: Trigger, ctx: Context) -> Handler:
        """The handler's coroutine for this trigger, not yet started."""
        delivery = trigger.delivery
        if delivery is None:
            return self._timer_coroutine(trigger, ctx)
        hop = trigger.envelope.hop
        if hop > self._hops_max:
            raise StepError(
                f"the event went through {hop} agents, {self._hops_max} are allowed",
                code="CH0302",
                where=where_of(delivery),
                hint="events go in a circle; break it, or raise limits.hops of the agent",
            )
        use = self._inputs.get(delivery.topic)
        if use is None:
            raise StepError(
                f"{self.bindings.agent.name} has no handler for topic {delivery.topic}",
                code="CH0314",
                where=where_of(delivery),
            )
        value = delivery.value
        if value is None:
            raise DecodeError("the record has no value (a tombstone), expected an event", where=where_of(delivery))
        try:
            event = use.make(use.decoder.decode(value))
        except DecodeError as error:
            error.where = where_of(delivery)
            raise
        if use.key_of(event) != delivery.key:
            raise DecodeError(
                f"the message key is {(delivery.key or b'')[:80]!r}, but {use.key_fields} of the event says "
                f"{use.key_of(event)[:80]!r}",
                code="CH0206",
                where=where_of(delivery),
                hint=f"its producer must key topic {use.topic} by {use.key_fields}",
            )
        handler: Handler = use.handler(event, ctx)
        return handler

    def _timer_coroutine(self, trigger: Trigger, ctx: Context) -> Handler:
        timer = trigger.timer
        assert timer is not None, "a trigger without a delivery is a timer"
        handler = self.bindings.timers.get(timer.name)
        if handler is None:
            raise StepError(
                f"{self.bindings.agent.name} has no handler for the timer {timer.name!r} of {timer.entity!r}",
                code="CH0314",
                hint=f'an earlier version set it: write `@app.on_timer("{timer.name}")` to take it',
            )
        return handler(ctx)

    def place(self, trigger: Trigger) -> str:
        """Where the handler of a trigger is written."""
        if trigger.timer is not None:
            return place_of(self.bindings.timers[trigger.timer.name])
        assert trigger.delivery is not None
        return self.bindings.inputs[trigger.delivery.topic].where

    def finish(self, ctx: Context) -> Outcome:
        """All that the step changes.

        Raises:
            StepError: CH0303, a call was made and not awaited.
        """
        dealings = ctx._dealings
        rows = self._row_writes(ctx) if ctx._rows else []
        if dealings is None:
            outcome = Outcome(rows, ctx._emits)
        else:
            if dealings.not_awaited:
                raise StepError(
                    f"the handler made a call of tool {dealings.not_awaited[0]} and did not await it",
                    where=self.place(ctx._trigger),
                    hint=f"write `await ctx.call({dealings.not_awaited[0]}, …)`",
                )
            outcome = Outcome(rows, ctx._emits, list(dealings.timers.values()), list(dealings.cancels))
        if self._audited:
            outcome.decision = self._decisions.write(
                "done", ctx._trigger, ctx._view, ctx._now_ms, ctx=ctx, changes=outcome
            )
        return outcome

    def _row_writes(self, ctx: Context) -> list[RowWrite]:
        writes: list[RowWrite] = []
        for slot in ctx._rows.values():
            use, row = slot.use, slot.value
            if row is None:
                if slot.before is not None:
                    writes.append(RowWrite(use.name, None, row_headers(ctx._carry())))
                continue
            data = use.encoder.encode(use.dump(row))
            if data == slot.baseline:
                continue
            if use.key_of(row) != ctx.key.encode():
                raise SchemaError(
                    f"the row of {ctx.key!r} in table {use.name} got another key: {use.key_of(row)[:80]!r}",
                    code="CH0206",
                    hint="a step changes rows of its own entity only; emit an event that is keyed by the other one",
                )
            writes.append(_new(RowWrite, (use.name, data, row_headers(ctx._carried or ctx._carry()))))
        return writes


class AgentStep:
    """One step of one entity (``choreo.kernel.values.Step``)."""

    __slots__ = ("_call", "_coroutine", "_ctx", "_runner")

    def __init__(self, runner: AgentRunner, trigger: Trigger, view: StateView, now_ms: int) -> None:
        self._runner = runner
        self._ctx = Context(runner.bindings, trigger, view, now_ms)
        self._coroutine: Handler | None = None
        self._call: Call | None = None

    def advance(self, answer: Answer | None, /) -> StepResult:
        """Starts the handler, or continues it with the answer of its call."""
        runner, ctx = self._runner, self._ctx
        result = runner.guard(self._run, answer)
        if ctx._dealings is not None and ctx._dealings.parked is not None:
            result = runner.classify(ctx._dealings.parked)  # whatever the handler did after it
        if type(result) is Failure:
            self._close()
            runner.fail(ctx._trigger, ctx)
        return result

    def abandon(self) -> None:
        """Closes the handler; what it did is forgotten."""
        self._close()

    def _run(self, answer: Answer | None) -> Outcome | Waiting:
        runner, ctx, coroutine = self._runner, self._ctx, self._coroutine
        if coroutine is None:
            coroutine = self._coroutine = runner.coroutine_of(ctx._trigger, ctx)
        elif answer is not None:
            assert self._call is not None, "an answer came for a step that had asked for nothing"
            answer = told(answer, self._call, runner.classify)
        try:
            asked = coroutine.send(answer)
        except StopIteration:
            self._coroutine = None
            ctx._closed = True
            return runner.finish(ctx)
        if type(asked) is not Call:
            raise foreign_await(runner.place(ctx._trigger), asked)
        self._call = asked
        return Waiting(asked)

    def _close(self) -> None:
        self._ctx._closed = True
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None:
            self._runner.guard(coroutine.close)


def where_of(delivery: Delivery) -> str:
    """Coordinates of a record, as errors name them."""
    key = "" if delivery.key is None else f" key={delivery.key[:80].decode(errors='replace')}"
    return f"{delivery.topic}/{delivery.partition}/{delivery.offset}{key}"
