"""Faults to plant into the engine, its restore or its coordinator: what a careless change could break.

Each is a function that plants one with ``monkeypatch``, or the name of a variant the world knows by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import pytest

import choreo.kernel.burst as burst_module
import tests.kernel.cluster as cluster_module
from choreo.kernel.burst import Burst, Done
from choreo.kernel.engine import Engine
from choreo.kernel.event_clock import EventClock
from choreo.kernel.merge import Merge
from choreo.kernel.partition import Partition
from choreo.kernel.progress import Progress, Snapshot
from choreo.kernel.restore import Restored
from choreo.kernel.timers import Timers
from choreo.kernel.values import EntityState, Outcome, Trigger
from tests.kernel.cluster import Group

Plant = Callable[[pytest.MonkeyPatch], None]
MUTANTS: dict[str, Plant | str] = {
    "a restore reads the ends at read_committed": "ends of read_committed",
    "a restore takes unstable offsets": "unstable offsets",
    "an unknown outcome counts as aborted": "unknown is aborted",
    # either alone is harmless: two defences against the same schedule
    "offsets go before the records, a restore reads the ends first": "offsets before records, ends before offsets",
}


def mutant(plant: Plant) -> Plant:
    MUTANTS[plant.__name__.replace("_", " ")] = plant
    return plant


@mutant
def an_aborted_burst_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Engine, "put_back", lambda self, burst: None)


@mutant
def a_commit_is_one_too_far(patch: pytest.MonkeyPatch) -> None:
    honest = burst_module._offsets

    def offsets(partition: Partition, owner: str) -> list[burst_module.OffsetCommit]:
        return [
            commit._replace(offset=commit.offset + (partition.progress[commit.topic].unfinished > 0))
            for commit in honest(partition, owner)
        ]

    patch.setattr(burst_module, "_offsets", offsets)


@mutant
def an_abort_drops_the_overlay(patch: pytest.MonkeyPatch) -> None:
    honest = Engine.put_back

    def put_back(self: Engine, burst: Burst) -> None:
        honest(self, burst)
        for partition in burst.partitions:
            partition._overlay.clear()

    patch.setattr(Engine, "put_back", put_back)


@mutant
def rows_of_uncommitted_steps_are_not_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Partition, "packed_row", lambda self, table, entity: self._stores[table].get(entity))


@mutant
def a_commit_clears_the_overlay_of_later_steps(patch: pytest.MonkeyPatch) -> None:
    honest = Partition.committed

    def committed(self: Partition, burst: Burst, now_ms: int) -> None:
        honest(self, burst, now_ms)
        self._overlay.clear()

    patch.setattr(Partition, "committed", committed)


@mutant
def dedupe_sees_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Engine, "_is_duplicate", lambda self, partition, trigger: False)


@mutant
def dedupe_forgets_at_restart(patch: pytest.MonkeyPatch) -> None:
    honest = Partition.restore

    def restore(self: Partition, restored: Restored) -> None:
        bare = {entity: EntityState(state.sequence, ()) for entity, state in restored.entities.items()}
        honest(self, restored._replace(entities=bare))

    patch.setattr(Partition, "restore", restore)


@mutant
def lost_partitions_are_kept(patch: pytest.MonkeyPatch) -> None:
    """The old steps go out under the new membership."""
    honest = Engine.assign

    def assign(self: Engine, number: int) -> None:
        if number not in self._partitions:
            honest(self, number)

    patch.setattr(Engine, "revoke", lambda self, numbers: [None for _ in numbers])
    patch.setattr(Engine, "owns", lambda self, number: False)
    patch.setattr(Engine, "assign", assign)


@mutant
def finished_steps_survive_a_revocation(patch: pytest.MonkeyPatch) -> None:
    honest = Engine.revoke

    def revoke(self: Engine, numbers: Iterable[int]) -> None:
        finished = deque(self._finished)
        honest(self, numbers)
        self._finished = finished

    patch.setattr(Engine, "revoke", revoke)


@mutant
def the_metadata_is_lost(patch: pytest.MonkeyPatch) -> None:
    honest = cluster_module.decode_metadata

    def decode(low: int, metadata: str) -> tuple[Snapshot, str]:
        return Snapshot(low, ()), honest(low, metadata)[1]

    patch.setattr(cluster_module, "decode_metadata", decode)


@mutant
def void_offsets_count_as_open(patch: pytest.MonkeyPatch) -> None:
    """The first commit marker freezes the group."""
    patch.setattr(Progress, "reach_end", lambda self, offset: None)


@mutant
def timers_are_not_deleted_when_they_fire(patch: pytest.MonkeyPatch) -> None:
    honest = Partition.apply

    def apply(self: Partition, done: Done, state: EntityState | None) -> None:
        timer, done.trigger.timer = done.trigger.timer, None
        honest(self, done, state)
        done.trigger.timer = timer

    patch.setattr(Partition, "apply", apply)


@mutant
def cancelled_timers_come_back_at_restart(patch: pytest.MonkeyPatch) -> None:
    honest = Timers.cancel

    def cancel(self: Timers, entity: str, name: str) -> bool:
        return honest(self, entity, name) and False

    patch.setattr(Timers, "cancel", cancel)


@mutant
def queued_timers_fire_although_cancelled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Timers, "is_set", lambda self, row: True)


@mutant
def the_event_clock_runs_ahead_at_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EventClock, "before", lambda self, lows: self.now)


@mutant
def a_lane_takes_the_youngest_first(patch: pytest.MonkeyPatch) -> None:
    class Stack(deque[Trigger]):
        def popleft(self) -> Trigger:
            return self.pop()

    honest = Partition.lane

    def lane(self: Partition, entity: str) -> Any:
        found = honest(self, entity)
        if type(found.queue) is deque:
            found.queue = Stack(found.queue)
        return found

    patch.setattr(Partition, "lane", lane)


@mutant
def a_busy_lane_is_overtaken(patch: pytest.MonkeyPatch) -> None:
    honest = Engine._run_turn

    def run_turn(self: Engine, partition: Partition, now_ms: int, limit: int) -> bool:
        lanes, partition.lanes = partition.lanes, {}
        try:
            return honest(self, partition, now_ms, limit)
        finally:
            partition.lanes = {**partition.lanes, **lanes}

    patch.setattr(Engine, "_run_turn", run_turn)


@mutant
def nothing_queues_behind_a_parked_event(patch: pytest.MonkeyPatch) -> None:
    honest = Engine._begin

    def begin(self: Engine, partition: Partition, lane: Any, trigger: Trigger, now_ms: int) -> None:
        if trigger.parked_number >= 0:
            honest(self, partition, lane, trigger, now_ms)
            return
        hidden = partition.parked.pop(trigger.entity, None)
        honest(self, partition, lane, trigger, now_ms)
        if hidden is not None:
            partition.parked[trigger.entity] = {**hidden, **partition.parked.get(trigger.entity, {})}

    patch.setattr(Engine, "_begin", begin)


@mutant
def a_dead_letter_is_not_written(patch: pytest.MonkeyPatch) -> None:
    honest = Engine._finish

    def finish(self: Engine, partition: Partition, trigger: Trigger, outcome: Outcome) -> None:
        outcome.dead_letter = None
        honest(self, partition, trigger, outcome)

    patch.setattr(Engine, "_finish", finish)


@mutant
def held_timers_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Timers, "hand_back", lambda self, row: None)


@mutant
def bursts_without_steps_are_not_committed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Partition, "wants_commit", lambda self, now_ms, idle_ms, recommit_ms: False)


@mutant
def a_burst_leaves_its_rows_out(patch: pytest.MonkeyPatch) -> None:
    honest = Partition.apply

    def apply(self: Partition, done: Done, state: EntityState | None) -> None:
        honest(self, done, state)
        if done.sequence % 5 == 0:
            done.rows.clear()

    patch.setattr(Partition, "apply", apply)


@mutant
def restored_progress_starts_too_early(patch: pytest.MonkeyPatch) -> None:
    honest = Partition.restore

    def restore(self: Partition, restored: Restored) -> None:
        early = {topic: one._replace(low=max(0, one.low - 1)) for topic, one in restored.progress.items()}
        honest(self, restored._replace(progress=early))

    patch.setattr(Partition, "restore", restore)


@mutant
def the_coordinator_accepts_anybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Group, "verdict", lambda self, sent: "accepted")


@mutant
def a_topic_jumps_the_merge(patch: pytest.MonkeyPatch) -> None:
    def release(self: Merge[Any], now_ms: int) -> Any:
        for buffer in self._buffers.values():
            if buffer:
                return buffer.pop()[1]
        return None

    patch.setattr(Merge, "release", release)
