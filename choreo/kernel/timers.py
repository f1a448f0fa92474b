"""The timers of one partition: which are set, which are due. One timer per (entity, name)."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

from choreo.kernel.values import TimerRow

Key = tuple[str, str]
OUTDATED_MIN: Final = 64
"""Replaced and cancelled entries that may lie in the heap however few timers are set."""


class Timers:
    """Timers that are set, in order of their event time. Replaced and cancelled ones are dropped when they surface."""

    __slots__ = ("_fired", "_rows", "heap")

    def __init__(self, rows: Iterable[TimerRow] = ()) -> None:
        self._rows: dict[Key, TimerRow] = {(row.entity, row.name): row for row in rows}
        # by event time, outdated entries included; empty: no timer can become due
        self.heap: list[tuple[int, str, str, str]] = [
            (row.at_ms, row.entity, row.name, row.timer_id) for row in self._rows.values()
        ]
        heapq.heapify(self.heap)
        self._fired: set[str] = set()  # ids handed out by `due` and not yet settled

    def __len__(self) -> int:
        return len(self._rows)

    def set(self, row: TimerRow, *, held: bool = False) -> None:
        """Sets a timer. ``held``: it does not become due before ``hand_back``."""
        self._rows[row.entity, row.name] = row
        if held:
            self._fired.add(row.timer_id)
        else:
            self._fired.discard(row.timer_id)
            self._push(row)

    def _push(self, row: TimerRow) -> None:
        """Keeps outdated entries fewer than the timers that are set: an entity may set one anew with every event."""
        heapq.heappush(self.heap, (row.at_ms, row.entity, row.name, row.timer_id))
        if len(self.heap) > 2 * len(self._rows) + OUTDATED_MIN:
            fired = self._fired
            self.heap[:] = [
                (one.at_ms, one.entity, one.name, one.timer_id)
                for one in self._rows.values()
                if one.timer_id not in fired
            ]
            heapq.heapify(self.heap)

    def cancel(self, entity: str, name: str) -> bool:
        """False if no such timer was set."""
        row = self._rows.pop((entity, name), None)
        if row is not None:
            self._fired.discard(row.timer_id)
        return row is not None

    def is_set(self, row: TimerRow) -> bool:
        """Whether exactly this setting is still the current one."""
        return self._rows.get((row.entity, row.name)) == row

    def next_at_ms(self) -> int | None:
        """Event time of the next timer that has not been handed out."""
        while self.heap:
            at_ms, entity, name, timer_id = self.heap[0]
            row = self._rows.get((entity, name))
            if row is not None and row.at_ms == at_ms and row.timer_id == timer_id and timer_id not in self._fired:
                return at_ms
            heapq.heappop(self.heap)
        return None

    def due(self, until_ms: int) -> TimerRow | None:
        """Hands out the next timer with ``at <= until_ms``; it stays set until its step has deleted it."""
        at_ms = self.next_at_ms()
        if at_ms is None or at_ms > until_ms:
            return None
        _, entity, name, timer_id = heapq.heappop(self.heap)
        self._fired.add(timer_id)
        return self._rows[entity, name]

    def hand_back(self, row: TimerRow) -> None:
        """A handed-out timer could not run now: it becomes due again."""
        if self.is_set(row):
            self._fired.discard(row.timer_id)
            self._push(row)
