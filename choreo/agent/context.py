"""What a handler sees and does: its entity's rows, events to emit, timers, tools.

A context lives for one step. Nothing it does leaves the process before the step has finished; a failed step leaves
nothing behind. Its coroutines yield requests to the engine and nothing else, so that the same handler runs live, in a
test and in a replay.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Mapping
from datetime import UTC, datetime, timedelta
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, ParamSpec, TypeVar, cast

from choreo.agent.as_json import as_json
from choreo.agent.record import Record
from choreo.agent.tool import REPEATABLE, Invocation, Tool
from choreo.errors import ParkSignal, StepError, UndeclaredError
from choreo.kernel.envelope import TIME_MS_MAX, Header, outgoing_headers, step_headers
from choreo.kernel.values import Answer, Call, OutRecord, StateView, TimerRow, Trigger

if TYPE_CHECKING:  # bindings needs the definition, whose handlers take a Context
    from choreo.agent.bindings import Bindings, TableUse

W = TypeVar("W", bound=Record)
P = ParamSpec("P")
R = TypeVar("R")

EMITS_MAX: Final = 1_000
"""Events that one step may emit: all of them enter one transaction, and a loop without an end must end."""
CALLS_MAX: Final = 1_000
"""Tool calls that one step may make; the same reason."""

_new: Final = tuple.__new__  # see choreo.kernel.envelope
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def moment(ms: int) -> datetime:
    """The moment that many milliseconds after 1970 began, in UTC."""
    return _EPOCH + timedelta(milliseconds=ms)


class Meta(NamedTuple):
    """Where the event came from, or the timer that fired.

    Attributes:
        id: event id; of a timer, derived from the event that set it.
        type: Avro full name of the event; "" for a timer.
        time: event time; of a timer, when it was due.
        topic: input topic; None for a timer.
        partition: its partition; None for a timer.
        offset: offset in it; None for a timer.
        headers: all Kafka headers of the event, last value wins.
        correlation_id: id of the event that started everything.
        causation_id: id of the event that caused this one or set this timer; "" if none did.
        hop: how many agents the chain went through before this one.
        traceparent: W3C trace context of this step.
        timer: name of the timer that fired; None for an event.
    """

    id: str
    type: str
    time: datetime
    topic: str | None
    partition: int | None
    offset: int | None
    headers: Mapping[str, bytes]
    correlation_id: str
    causation_id: str
    hop: int
    traceparent: str
    timer: str | None


class RowSlot:
    """One row of the entity during the step."""

    __slots__ = ("baseline", "before", "use", "value")

    def __init__(self, use: TableUse, before: bytes | None, baseline: bytes, value: Record | None) -> None:
        self.use = use
        self.before = before  # as stored; None: there was none
        self.baseline = baseline  # what the untouched row encodes to
        self.value = value  # None: deleted


class MadeCall(NamedTuple):
    """One finished tool call, and what its decision says of it."""

    call: Call
    answer: Answer
    arguments: str  # JSON
    result: str  # JSON; "" if it failed


class Dealings:
    """What few steps have: timers, look-ups, calls. Made when the first one comes."""

    __slots__ = ("calls", "cancels", "looked_up", "not_awaited", "parked", "timers")

    def __init__(self) -> None:
        self.timers: dict[str, TimerRow] = {}
        self.cancels: dict[str, None] = {}
        self.looked_up: dict[tuple[str, str], tuple[int, Record | None]] = {}
        self.calls: list[MadeCall] = []
        self.not_awaited: list[str] = []  # tools whose call was made and has not begun
        self.parked: ParkSignal | None = None


class Context:
    """The handler's access to its entity and to the rest of the topology.

    Attributes:
        key: the entity: text of the event's message key.
    """

    __slots__ = (
        "_bindings",
        "_carried",
        "_closed",
        "_dealings",
        "_emits",
        "_first_id",
        "_now_ms",
        "_rows",
        "_trigger",
        "_view",
        "key",
    )

    def __init__(self, bindings: Bindings, trigger: Trigger, view: StateView, now_ms: int) -> None:
        self.key: str = trigger.entity
        self._bindings = bindings
        self._trigger = trigger
        self._view = view
        self._now_ms = now_ms
        self._carried: tuple[Header, ...] | None = None
        self._first_id = ""  # of the first emitted event; made together with what is carried
        self._rows: dict[str, RowSlot] = {}
        self._emits: list[OutRecord] = []
        self._dealings: Dealings | None = None
        self._closed = False

    @property
    def now(self) -> datetime:
        """Wall time when the step began, in UTC: the same for the whole step, and in a replay."""
        return moment(self._now_ms)

    @property
    def meta(self) -> Meta:
        """Ids, event time, topic, offset and headers of what started the step."""
        trigger = self._trigger
        envelope, delivery = trigger.envelope, trigger.delivery
        return Meta(
            envelope.event_id,
            envelope.type,
            moment(envelope.time_ms),
            None if delivery is None else delivery.topic,
            None if delivery is None else delivery.partition,
            None if delivery is None else delivery.offset,
            {} if delivery is None else dict(delivery.headers),
            envelope.correlation_id,
            envelope.causation_id,
            envelope.hop,
            self._traceparent(),
            None if trigger.timer is None else trigger.timer.name,
        )

    def row(self, cls: type[W], /, *, table: str | None = None) -> W:
        """This entity's row, or its defaults if there is none.

        The same object for the whole step. Change its fields: it is written when the step has finished, if its bytes
        changed.

        Args:
            cls: class of the row.
            table: which table, if several of the agent's hold rows of this class.

        Raises:
            UndeclaredError: CH0311, the agent doesn't declare such a table.
            SchemaError: CH0204, there is no row and a field has no default.
        """
        bindings = self._bindings
        use = bindings.tables.get((cls, table)) or bindings.table(cls, table)
        slot = self._rows.get(use.name)
        if slot is None:
            self._check_open()
            before = self._view.row(use.name, self.key)
            if before is None:
                value = use.new(self.key)
                baseline = use.encoder.encode(use.dump(value))
            else:
                value = use.read(before, self.key)
                # a row of an older schema: compare with what it is now, so that reading alone doesn't rewrite it
                baseline = before if before.startswith(use.prefix) else use.encoder.encode(use.dump(value))
            slot = self._rows[use.name] = RowSlot(use, before, baseline, value)
        elif slot.value is None:
            slot.value = use.new(self.key)
            if slot.before is None:
                slot.baseline = use.encoder.encode(use.dump(slot.value))
        return cast(W, slot.value)

    def delete(self, cls: type[Record], /, *, table: str | None = None) -> None:
        """Deletes this entity's row when the step has finished; ``row`` gives the defaults again.

        Args:
            cls: class of the row.
            table: which table, if several of the agent's hold rows of this class.

        Raises:
            UndeclaredError: CH0311, the agent doesn't declare such a table.
        """
        use = self._bindings.table(cls, table)
        self._check_open()
        slot = self._rows.get(use.name)
        if slot is None:
            self._rows[use.name] = RowSlot(use, self._view.row(use.name, self.key), b"", None)
        else:
            slot.value = None
            slot.baseline = b""

    def lookup(self, cls: type[W], key: str, /, *, table: str | None = None) -> W | None:
        """A row of a reference table, or None. Changes to it go nowhere.

        Args:
            cls: class of the row.
            key: text of its key; of several fields, a compact JSON array.
            table: which table, if several of the agent's hold rows of this class.

        Raises:
            UndeclaredError: CH0311, the agent doesn't declare such a reference table.
            StepError: CH0206, the key is no text.
        """
        bindings = self._bindings
        use = bindings.references.get((cls, table)) or bindings.reference(cls, table)
        looked_up = self._dealt().looked_up
        seen = looked_up.get((use.name, key))
        if seen is None:
            self._check_open()
            if not isinstance(key, str):
                raise StepError(f"ctx.lookup takes the key's text, saw {type(key).__name__}", code="CH0206")
            found = self._view.reference(use.name, key)
            if found is None:
                seen = (-1, None)
            else:
                where = f"table {use.name} key={key}"
                seen = (found[1], use.row._from_avro(use.decoder.decode(found[0], where)))
            looked_up[use.name, key] = seen
        return cast("W | None", seen[1])

    def emit(self, event: Record, /, *, topic: str | None = None) -> str:
        """Emits an event when the step has finished. It is encoded at once; later changes to it don't count.

        Args:
            event: instance of a generated event class.
            topic: where to, if several topics that the agent writes carry this event.

        Returns:
            The event's id; the same if the step runs again.

        Raises:
            UndeclaredError: CH0311, the agent doesn't write such a topic, with the line of YAML to add.
            SchemaError: CH0204, a field doesn't fit the schema.

        Guarantee:
            Readers at read_committed see it exactly once, in order per key, if and only if the step commits.
        """
        bindings = self._bindings
        cls = type(event)
        output = bindings.outputs.get((cls, topic)) or self._output(cls, topic)
        emits = self._emits
        n = len(emits)
        if self._closed or n >= EMITS_MAX:
            self._check_open()
            raise StepError(
                f"a step emits at most {EMITS_MAX} events", hint="emit one event that another agent spreads out"
            )
        value = output.encoder.encode(output.dump(event))
        key = output.key_of(event)
        carried = self._carried or self._carry()
        event_id = bindings.identity.event_id(self._trigger.envelope.event_id, n) if n else self._first_id
        headers = outgoing_headers(output.constants, carried, event_id, key)
        emits.append(_new(OutRecord, (output.topic, None, key, value, headers)))
        return event_id

    def _output(self, cls: type[Record], topic: str | None) -> Any:
        if not (isinstance(cls, type) and issubclass(cls, Record)):
            raise StepError(
                f"ctx.emit takes an event, saw {cls.__name__}", code="CH0204", hint="use a class from `schemas`"
            )
        return self._bindings.output(cls, topic)

    def timer(self, name: str, /, *, at: datetime) -> None:
        """Sets this entity's timer; it replaces one of the same name.

        Args:
            name: name of an ``@app.on_timer`` handler.
            at: event time, with a time zone. In the past means: at once.

        Raises:
            UndeclaredError: CH0311, no handler has this name.
            StepError: CH0204, a time without a zone.

        Guarantee:
            Fires exactly once unless it is cancelled or replaced; the firing is a step of its own.
        """
        self._check_timer(name)
        if not isinstance(at, datetime) or at.tzinfo is None:
            raise StepError(f"a timer's time needs a time zone, saw {at!r}", code="CH0204", hint="add to ctx.meta.time")
        at_ms = min(max((at - _EPOCH) // _MILLISECOND, 0), TIME_MS_MAX)
        cause = self._trigger.envelope
        timer_id = self._bindings.identity.timer_id(cause.event_id, name)
        dealings = self._dealt()
        dealings.timers[name] = TimerRow(self.key, name, at_ms, timer_id, cause)
        dealings.cancels.pop(name, None)

    def cancel(self, name: str, /) -> None:
        """Cancels this entity's timer, if it is set.

        Args:
            name: name of an ``@app.on_timer`` handler.

        Raises:
            UndeclaredError: CH0311, no handler has this name.
        """
        self._check_timer(name)
        dealings = self._dealt()
        dealings.timers.pop(name, None)
        dealings.cancels[name] = None

    def _check_timer(self, name: str) -> None:
        self._check_open()
        if name not in self._bindings.timers:
            raise UndeclaredError(
                f"{self._bindings.agent.name} has no timer {name!r}",
                where=str(self._bindings.agent.position),
                hint=f'write `@app.on_timer("{name}")` above an `async def (ctx)`',
            )

    def call(self, tool: Tool[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Runs a tool and waits for its answer; other entities go on meanwhile.

        Args:
            tool: a tool of effect class ``pure`` or ``read`` that the agent declares.
            args: its arguments.
            kwargs: its keyword arguments.

        Raises:
            UndeclaredError: CH0311, the agent doesn't declare this tool, with the line of YAML to add.
            StepError: CH0403, the tool's effect class doesn't allow a call from a step.
            ToolError: CH0401, it failed; CH0402, it took too long. Both are tried again with the whole step, unless
                the handler catches them.

        Guarantee:
            At least once: after a crash or a retry it is called again.
        """
        # Not an async function, so that a call without its await is seen: the step would go on without the answer.
        name = getattr(tool, "name", type(tool).__name__)
        self._dealt().not_awaited.append(name)
        return self._call(name, tool, args, kwargs)

    async def _call(self, name: str, tool: Tool[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        dealings = self._dealt()
        dealings.not_awaited.remove(name)
        use = self._bindings.tool(tool)
        self._check_open()
        if tool.effect not in REPEATABLE:
            raise StepError(
                f"tool {tool.name} is {tool.effect}; ctx.call takes pure and read tools",
                code="CH0403",
                where=str(self._bindings.agent.position),
                hint="emit an event that asks for the action, or declare the tool `effect: read` if it changes nothing",
            )
        if len(dealings.calls) >= CALLS_MAX:
            raise StepError(f"a step makes at most {CALLS_MAX} calls", code="CH0403")
        try:
            tool.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise StepError(f"tool {tool.name}{tool.signature}: {error}", code="CH0403") from None
        invocation = Invocation(tool, args, kwargs)
        arguments = as_json(invocation.arguments())
        call = Call(use.name, invocation, use.timeout_s)
        answer = await _request(call)
        result = "" if answer.error is not None else as_json(answer.value)
        dealings.calls.append(MadeCall(call, answer, arguments, result))
        if answer.error is not None:
            raise answer.error
        return cast(R, answer.value)

    def park(self, reason: str) -> NoReturn:
        """Ends the step: its event waits for a person, and the entity's later events behind it. Nothing is written.

        Args:
            reason: what the person has to decide.

        Guarantee:
            The event is parked even if the handler swallows the signal that ends it.
        """
        signal = self._dealt().parked = ParkSignal(reason)
        raise signal

    # -- for the runner ------------------------------------------------------------------------------------------------

    def _dealt(self) -> Dealings:
        dealings = self._dealings
        if dealings is None:
            dealings = self._dealings = Dealings()
        return dealings

    def _carry(self) -> tuple[Header, ...]:
        carried = self._carried
        if carried is None:
            carried, self._first_id = step_headers(self._bindings.identity, self._trigger.envelope)
            self._carried = carried
        return carried

    def _traceparent(self) -> str:
        return dict(self._carry())["traceparent"].decode()

    def _check_open(self) -> None:
        if self._closed:
            raise StepError(
                "the context was used after its step had ended",
                hint="a handler awaits what it starts; keep no context and no task beyond it",
            )


@coroutine
def _request(call: Call) -> Generator[Call, Answer, Answer]:
    return (yield call)
