"""Lets something that asks now and then have its answers, one after another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import wait
from typing import Any, TypeVar

from choreo.runtime.lookout import Lookout

T = TypeVar("T")


def answers(lookout: Lookout[Any], tell: Callable[[int], T], *, every_ms: int, times: int) -> list[T]:
    """What is told after each of so many answers; nothing is told when it is only asked."""
    told = []
    for number in range(1, times + 1):
        assert not tell(number * every_ms)  # asks
        assert lookout.asked is not None
        wait([lookout.asked])
        told.append(tell(number * every_ms + 1))
    return told
