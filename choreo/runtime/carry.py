"""Carries what ends a thread to the thread that has to know. Nothing is handled here, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Literal


class Carried:
    """``with Carried(receive): …`` around a thread's work: what it raises goes to ``receive`` instead of stderr."""

    def __init__(self, receive: Callable[[BaseException], None]) -> None:
        self._receive = receive

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[True]:
        if error is not None:
            self._receive(error)
        return True
