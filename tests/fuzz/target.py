"""What is fuzzed: one function from bytes to nothing, which raises only if a promise is broken.

A declared error is caught inside the function, where it is declared; whatever leaves it is a defect. The same function
serves all engines: Hypothesis in the tests, atheris and plain chance in ``make fuzz``.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

Check = Callable[[bytes], None]
Change = Callable[[bytes, Random], bytes]

SECONDS_MAX: Final = 0.05
"""What one hostile input may cost: a worker handles some thousand events a second beside it."""
MEMORY_BYTES_MAX: Final = 64 * 1024 * 1024
"""What one hostile input may allocate: a worker has a few hundred MiB in all."""


class BrokenPromiseError(AssertionError):
    """An input was taken, and what came of it is wrong."""


class Target(NamedTuple):
    """One thing that reads what others wrote.

    Args:
        name: ``area`` or ``area/part``.
        check: raises if and only if a promise is broken.
        seeds: inputs that are right, or nearly so; changes start from them.
        change: makes another input of one; knows the format.
        found: inputs that once broke a promise, kept for ever.
        seconds_max: CPU time of one case at most.
        share: cases for each one that ``RUNS`` asks for: a target that stands for many schemas gets more.
    """

    name: str
    check: Check
    seeds: tuple[bytes, ...]
    change: Change
    found: tuple[bytes, ...] = ()
    seconds_max: float = SECONDS_MAX
    share: int = 1

    @property
    def area(self) -> str:
        return self.name.partition("/")[0]


def promised(holds: bool, what: object = "") -> None:
    """Like ``assert``, which ``python -O`` would drop."""
    if not holds:
        raise BrokenPromiseError(str(what)[:2_000])


def promised_equal(value: Any, other: Any, words: str) -> None:
    """The same values, NaN being NaN. Texts are made only where they are needed: the time of a case is measured."""
    if value != other and plain(value) != plain(other):
        raise BrokenPromiseError(f"read {value!r:.900}, {words} {other!r:.900}")


def plain(value: Any) -> str:
    """Text of a value in which NaN equals itself and the order of fields does not count."""
    if isinstance(value, dict):
        return str(sorted((key, plain(one)) for key, one in value.items()))
    return str([plain(one) for one in value]) if isinstance(value, list | tuple) else repr(value)
