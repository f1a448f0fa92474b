"""How far event time has come in one partition number, and how far it had come before a given input.

A restart reads unfinished inputs again. If the clock started from the highest event time of all, timers would fire
ahead of inputs that are older than they are and that had their turn before the crash: a crash would show. So what is
committed is the clock as it stood before the first unfinished input; reading on from there moves it as before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

MOVERS_MIN: Final = 1_000
"""So many inputs that moved the clock are kept in any case; thinning them out costs a look at each unfinished input."""


class Reached(NamedTuple):
    """The highest event time of all inputs so far (-1: none yet), and the wall time when it came."""

    event_time_ms: int
    seen_at_ms: int


def _offset(mover: tuple[int, Reached]) -> int:
    return mover[0]


class EventClock:
    """Moved by inputs in the order in which they are released; remembers what it was before those that moved it."""

    __slots__ = ("_kept_max", "_movers", "now")

    def __init__(self, reached: Reached) -> None:
        self.now = reached
        self._movers: dict[str, list[tuple[int, Reached]]] = {}  # by topic: offset, and the clock before it
        self._kept_max: dict[str, int] = {}  # by topic: with more movers they are thinned out

    def move(self, topic: str, offset: int, reached: Reached) -> None:
        """An input was released that is later than all before it."""
        movers = self._movers.get(topic)
        if movers is None:
            movers = self._movers[topic] = []
        movers.append((offset, self.now))
        self.now = reached

    def before(self, lows: Mapping[str, int]) -> Reached:
        """The clock before the first input at or above its topic's ``low``."""
        first = self.now
        for topic, movers in self._movers.items():
            at = bisect_left(movers, lows[topic], key=_offset)
            if at < len(movers) and movers[at][1].event_time_ms < first.event_time_ms:
                first = movers[at][1]
        return first

    def forget(self, topic: str, low: int, unfinished: Callable[[], Iterable[int]]) -> None:
        """Everything below ``low`` is committed.

        Args:
            topic: of an input.
            low: the first offset that is not finished.
            unfinished: offsets from ``low`` on that are not finished. No other can be a later ``low``, so that
                only the first mover at or above each is kept: otherwise one slow input would let the list grow.
        """
        movers = self._movers.get(topic)
        if not movers:
            return
        del movers[: bisect_left(movers, low, key=_offset)]
        if len(movers) > self._kept_max.get(topic, MOVERS_MIN):
            places = {bisect_left(movers, offset, key=_offset) for offset in unfinished()}
            kept = [movers[at] for at in sorted(places) if at < len(movers)]
            self._movers[topic] = kept
            self._kept_max[topic] = max(MOVERS_MIN, 2 * len(kept))

    def set_back(self, now_ms: int) -> None:
        """The wall clock says an earlier time than when the last input came: what has passed since is unknown."""
        self.now = self.now._replace(seen_at_ms=now_ms)
