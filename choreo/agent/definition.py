"""What an agent's code says: which function handles which event and which timer. Declared edges are checked later.

An ``AgentDefinition`` fills while the agent's module is imported; nothing is read then. ``bindings.bind`` compares it
with the topology when the agent starts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeAlias, TypeVar

from choreo.agent.context import Context
from choreo.agent.record import Record
from choreo.errors import TopologyError

E = TypeVar("E", bound=Record)

EventHandler: TypeAlias = Callable[[E, Context], Coroutine[Any, Any, None]]
TimerHandler: TypeAlias = Callable[[Context], Coroutine[Any, Any, None]]


class Registration(NamedTuple):
    """One ``@app.on``."""

    event: type[Record]
    topic: str | None  # None: every topic the agent reads that carries this event
    function: Callable[[Any, Context], Coroutine[Any, Any, None]]

    @property
    def place(self) -> str:
        return place_of(self.function)


class AgentDefinition:
    """The handlers of one agent.

    Args:
        name: the agent's name under ``agents:`` of its topology.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.registrations: list[Registration] = []
        self.timers: dict[str, TimerHandler] = {}

    @property
    def handlers(self) -> list[Callable[..., Coroutine[Any, Any, None]]]:
        """All handler functions, of events and of timers."""
        return [*(one.function for one in self.registrations), *self.timers.values()]

    def on(self, event: type[E], /, *, topic: str | None = None) -> Callable[[EventHandler[E]], EventHandler[E]]:
        """Decorates the handler of an event: ``async def handler(event, ctx)``.

        Args:
            event: class of the event, generated from its schema.
            topic: where it arrives; without it, every topic the agent reads that carries this event.

        Raises:
            TopologyError: CH0103, the event has a handler already, it is no event class, or the function is not such
                a handler.
        """
        if not (isinstance(event, type) and issubclass(event, Record) and event.__avro_schema__):
            raise TopologyError(
                f"@app.on takes an event class generated from a schema, saw {event!r}",
                code="CH0103",
                hint="run `choreo schemas generate` and import the class from `schemas`",
            )

        def register(function: EventHandler[E]) -> EventHandler[E]:
            _check(function, ("event", "ctx"))
            for other in self.registrations:
                if other.event is event and other.topic == topic:
                    where = f" from topic {topic}" if topic else ""
                    raise TopologyError(
                        f"{event.__name__}{where} has a handler already: {other.place}",
                        code="CH0103",
                        where=place_of(function),
                        hint="one event has one handler in an agent; call a function from it for a second purpose",
                    )
            self.registrations.append(Registration(event, topic, function))
            return function

        return register

    def on_timer(self, name: str, /) -> Callable[[TimerHandler], TimerHandler]:
        """Decorates the handler of a timer: ``async def handler(ctx)``.

        Args:
            name: the name that ``ctx.timer`` sets it by.

        Raises:
            TopologyError: CH0103, the timer has a handler already, or the function is not such a handler.
        """
        if not (isinstance(name, str) and name.isidentifier()):
            raise TopologyError(
                f"@app.on_timer takes the timer's name, saw {name!r}",
                code="CH0103",
                hint='a Python identifier, for example @app.on_timer("close")',
            )

        def register(function: TimerHandler) -> TimerHandler:
            _check(function, ("ctx",))
            if name in self.timers:
                raise TopologyError(
                    f"the timer {name} has a handler already: {place_of(self.timers[name])}",
                    code="CH0103",
                    where=place_of(function),
                )
            self.timers[name] = function
            return function

        return register


def _check(function: Callable[..., Any], parameters: tuple[str, ...]) -> None:
    wanted = f"`async def {getattr(function, '__name__', 'handler')}({', '.join(parameters)}) -> None`"
    if not inspect.iscoroutinefunction(function):
        kind = "an async generator" if inspect.isasyncgenfunction(function) else "not async"
        raise TopologyError(
            f"the handler is {kind}, expected {wanted}", code="CH0103", where=place_of(function), hint="write async def"
        )
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError:
        raise TopologyError(
            f"the handler takes {inspect.signature(function)}, expected {wanted}",
            code="CH0103",
            where=place_of(function),
        ) from None


def place_of(function: Callable[..., Any]) -> str:
    """Where a function is written, as editors open it."""
    code = getattr(function, "__code__", None)
    if code is None:
        return getattr(function, "__qualname__", repr(function))
    return f"{function.__module__.replace('.', '/')}.py:{code.co_firstlineno}"
