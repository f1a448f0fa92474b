"""One entity's lane: what runs, what waits behind it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from choreo.kernel.values import Step, Trigger

if TYPE_CHECKING:
    from choreo.kernel.partition import Partition


class Lane:
    """Exists only while an entity's step waits, backs off, or has events queued behind it."""

    __slots__ = (
        "call_id",
        "continuing",
        "dropped",
        "due_ms",
        "entity",
        "partition",
        "queue",
        "retry",
        "step",
        "trigger",
        "woken",
    )

    def __init__(self, partition: Partition, entity: str) -> None:
        self.partition = partition
        self.entity = entity
        self.queue: deque[Trigger] = deque()
        self.step: Step | None = None
        self.trigger: Trigger | None = None  # of the step that waits
        self.call_id: int | None = None
        self.retry: Trigger | None = None  # backs off until due_ms
        self.due_ms = 0
        self.continuing = False
        self.woken = False
        self.dropped = False

    @property
    def busy(self) -> bool:
        return self.step is not None or self.retry is not None
