"""Brings the inputs of one partition number into event-time order, as far as waiting a little can.

Each topic is in order by itself. With several, the earliest head goes first; a topic with nothing buffered holds the
others up only while it may still have something unread (its end was not seen) and only for ``wait_ms``. So catching up
merges well, and a live event never waits for a topic that is known to be empty.

Prior art: Kafka Streams' ``max.task.idle.ms`` (KIP-695), which also stops waiting once a partition is known to be
caught up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Merge(Generic[T]):
    """Buffers of one partition number, one for each input topic."""

    __slots__ = ("_at_end", "_buffers", "_only", "_waiting_since_ms", "wait_ms")

    def __init__(self, topics: Iterable[str], wait_ms: int) -> None:
        self._buffers: dict[str, deque[tuple[int, T]]] = {topic: deque() for topic in topics}
        self._at_end: dict[str, bool] = dict.fromkeys(self._buffers, False)
        self._waiting_since_ms: int | None = None
        self._only = next(iter(self._buffers.values())) if len(self._buffers) == 1 else None
        self.wait_ms = wait_ms

    def add(self, topic: str, time_ms: int, item: T) -> None:
        self._buffers[topic].append((time_ms, item))
        self._at_end[topic] = False

    def reach_end(self, topic: str) -> None:
        """Nothing unread is left in this topic at the moment."""
        self._at_end[topic] = True

    def pause(self) -> None:
        """Nothing is read for a while: what comes meanwhile is unread, until an end is reached again."""
        self._at_end = dict.fromkeys(self._buffers, False)

    @property
    def drained(self) -> bool:
        """Everything there was has been released."""
        return all(self._at_end.values()) and not any(self._buffers.values())

    @property
    def waits_until_ms(self) -> int | None:
        """When a waiting head goes without the others; None if nothing waits."""
        return None if self._waiting_since_ms is None else self._waiting_since_ms + self.wait_ms

    def release(self, now_ms: int) -> T | None:
        """The next item, or None if there is none or it has to wait."""
        only = self._only
        if only is not None:
            return only.popleft()[1] if only else None
        first: deque[tuple[int, T]] | None = None
        held = False
        for topic, buffer in self._buffers.items():
            if buffer:
                if first is None or buffer[0][0] < first[0][0]:
                    first = buffer
            elif not self._at_end[topic]:
                held = True
        if first is None:
            self._waiting_since_ms = None
            return None
        if held:
            if self._waiting_since_ms is None or now_ms < self._waiting_since_ms:  # the clock may be set back
                self._waiting_since_ms = now_ms
            if now_ms < self._waiting_since_ms + self.wait_ms:
                return None
        else:
            self._waiting_since_ms = None
        return first.popleft()[1]
