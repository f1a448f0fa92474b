"""Tools: the functions through which a handler reaches the world outside its rows.

A handler awaits nothing but its context; ``await ctx.call(tool, …)`` asks the engine to run the tool, on the event loop
(async functions) or in a thread (others), while other entities go on. What may be repeated after a crash is said by the
effect class, on the function itself, because only its author knows.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, Generic, Literal, NamedTuple, ParamSpec, Protocol, TypeVar, overload

from choreo.errors import TopologyError

P = ParamSpec("P")
R = TypeVar("R")

Effect = Literal["pure", "read", "idempotent", "readable", "blind"]

EFFECTS: Final[tuple[Effect, ...]] = ("pure", "read", "idempotent", "readable", "blind")
REPEATABLE: Final[frozenset[str]] = frozenset({"pure", "read"})
"""Effect classes that may simply be called again after a crash."""
TIMEOUT_S_MAX: Final = 3_600.0
"""A call that may take longer is no call but a job: start it with a tool and wait for an event or a timer."""


class Tool(Generic[P, R]):
    """A function that handlers may call through ``ctx.call``. Made by the decorator ``tool``.

    Attributes:
        name: the function's name; the topology declares the tool under it.
        effect: what may be done with a call that a crash interrupted.
        timeout_s: longest time that one call may take.
        function: the function itself.
        is_async: whether it is a coroutine function.
    """

    def __init__(self, function: Callable[..., Any], effect: Effect, timeout_s: float) -> None:
        self.function = function
        self.__wrapped__ = function
        self.__doc__ = function.__doc__
        self.name: str = function.__name__
        self.effect: Effect = effect
        self.timeout_s = timeout_s
        self.is_async = inspect.iscoroutinefunction(function)
        self.signature = inspect.signature(function)

    @property
    def place(self) -> str:
        """Module and name, as the topology's ``function`` writes it."""
        return f"{self.function.__module__}:{self.function.__qualname__}"

    def __repr__(self) -> str:
        return f"<tool {self.name} effect={self.effect}>"


class SyncTool(Tool[P, R]):
    """A tool made from an ordinary function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the function at once, as if it were no tool."""
        result: R = self.function(*args, **kwargs)
        return result


class AsyncTool(Tool[P, R]):
    """A tool made from a coroutine function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        """The function's coroutine, as if it were no tool."""
        result: Awaitable[R] = self.function(*args, **kwargs)
        return result


class Invocation(NamedTuple):
    """One call of a tool with its arguments bound: what a ``Call`` carries as ``arguments``."""

    tool: Tool[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def is_async(self) -> bool:
        """Whether ``run`` returns a coroutine to await; otherwise it blocks and belongs into a thread."""
        return self.tool.is_async

    def run(self) -> Any:
        """Calls the function: its result, or its coroutine."""
        return self.tool.function(*self.args, **self.kwargs)

    def arguments(self) -> dict[str, Any]:
        """Arguments by parameter name, defaults included: how a decision records them."""
        bound = self.tool.signature.bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)


class _Decorator(Protocol):
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function fits both; the first is meant
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTool[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTool[P, R]: ...


def tool(*, effect: Effect, timeout_s: float = 30.0) -> _Decorator:
    """Makes a function a tool. The function may be sync or async.

    Args:
        effect: what may be done with a call that a crash interrupted: ``pure`` and ``read`` are called again;
            ``idempotent`` is called again with the same key; ``readable`` can be asked whether it happened; ``blind``
            can't, so that a person settles it.
        timeout_s: longest time that one call may take, in seconds.

    Returns:
        A decorator. Called directly, the tool runs like the function it was made from.

    Raises:
        TopologyError: CH0103, not an effect class, not a positive number of seconds, or not a named function.
    """
    if effect not in EFFECTS:
        raise TopologyError(f"{effect!r} is no effect class", code="CH0103", hint=f"one of {', '.join(EFFECTS)}")
    if not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise TopologyError(
            f"a tool's timeout_s lies above 0 and not above {TIMEOUT_S_MAX:g}, saw {timeout_s!r}",
            code="CH0103",
            hint="for what takes longer, start it with a tool and wait for an event or a timer",
        )

    def decorate(function: Callable[..., Any], /) -> Any:
        if not inspect.isfunction(function) or function.__name__ == "<lambda>":
            raise TopologyError(
                f"a tool is made from a function with a name, saw {function!r}",
                code="CH0103",
                hint="write @choreo.tool(effect=…) above a `def` or `async def`",
            )
        made = AsyncTool if inspect.iscoroutinefunction(function) else SyncTool
        return made(function, effect, timeout_s)

    return decorate
