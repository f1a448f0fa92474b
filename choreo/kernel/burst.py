"""A burst: the finished steps that go into one Kafka transaction, and how they are chosen."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from choreo.kernel.progress import METADATA_CHARS_MAX, encode_metadata
from choreo.kernel.values import Checkpoint, EntityState, Outcome, OutRecord, ParkedRow, RowWrite, TimerRow, Trigger

if TYPE_CHECKING:
    from choreo.kernel.partition import Partition

BURST_BYTES_MAX: Final = 8 * 1024 * 1024
"""What one transaction carries. A single larger outcome goes alone."""
BURST_STEPS_MAX: Final = 10_000
"""Steps of one transaction; at 500 bytes a step the bytes above are reached first."""
OFFSETS_MAX: Final = 100
"""Input partitions of one commit: with the longest metadata that is 390 kB; the broker refuses about 1 MB (measured:
300 partitions of 4,000 bytes fail)."""
RECORD_OVERHEAD_BYTES: Final = 100
IDLE_COMMIT_MS: Final = 1_000
"""Progress without steps (commit markers passed) is committed this often."""
RECOMMIT_MS: Final = 24 * 60 * 60 * 1000
"""Offsets of topics that a live group is not subscribed to expire (7 days by default): all are committed daily."""


_NONE: Final[Mapping[Any, Any]] = {}


class Done:
    """A finished step, until it is committed. It doesn't keep its trigger: a burst holds thousands of steps, and with
    inputs and headers they were several kB each, more than the processor's caches hold."""

    __slots__ = (
        "buffered_bytes",
        "delivery_number",
        "entity",
        "event_id",
        "outcome",
        "parked",
        "partition",
        "rows",
        "sequence",
        "size",
        "source",
        "state",
        "timers",
    )

    def __init__(self, partition: Partition, trigger: Trigger, outcome: Outcome, sequence: int) -> None:
        self.partition = partition
        self.entity = trigger.entity
        self.event_id = trigger.envelope.event_id
        self.source = trigger.source
        self.buffered_bytes = partition.buffered_bytes(trigger)
        self.outcome = outcome
        self.sequence = sequence  # completion order, over all partitions
        self.rows: list[tuple[RowWrite, bytes | None]] = []  # with the packed form for the store
        self.timers: Mapping[str, TimerRow | None] = _NONE
        self.parked: Mapping[int, ParkedRow | None] = _NONE
        self.state: EntityState | None = None
        self.delivery_number = 0
        self.size = _outcome_bytes(outcome)


def _outcome_bytes(outcome: Outcome) -> int:
    size = 0
    for record in outcome.emits:
        size += len(record.value or b"") + RECORD_OVERHEAD_BYTES
    for row in outcome.rows:
        size += len(row.value or b"") + RECORD_OVERHEAD_BYTES
    for single in (outcome.decision, outcome.dead_letter):
        if single is not None:
            size += len(single.value or b"") + RECORD_OVERHEAD_BYTES
    if outcome.parked is not None:
        size += len(outcome.parked.delivery.value or b"") + RECORD_OVERHEAD_BYTES
    return size


class OffsetCommit(NamedTuple):
    topic: str
    partition: int
    offset: int
    metadata: str


@dataclass(slots=True)
class Burst:
    """Everything of one transaction. Of rows, timers, parked rows and entity states only the last version counts."""

    steps: list[Done]
    partitions: list[Partition]
    records: list[OutRecord] = field(default_factory=list)
    rows: dict[tuple[int, str, str], tuple[RowWrite, bytes | None]] = field(default_factory=dict)  # number, table, key
    states: dict[tuple[int, str], EntityState] = field(default_factory=dict)
    timers: dict[tuple[int, str, str], TimerRow | None] = field(default_factory=dict)
    parked: dict[tuple[int, str, int], ParkedRow | None] = field(default_factory=dict)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    offsets: list[OffsetCommit] = field(default_factory=list)


def build_burst(
    finished: deque[Done], partitions: Iterable[Partition], owner: str, now_ms: int, *, single: bool
) -> Burst | None:
    """Takes what fits from ``finished`` (completion order, so an entity's steps stay in order)."""

    def wants_commit(partition: Partition) -> bool:
        return partition.wants_commit(now_ms, IDLE_COMMIT_MS, RECOMMIT_MS)

    owned = list(partitions)
    topics = max((len(partition.progress) for partition in owned if partition.ready), default=1) or 1
    partitions_max = max(1, OFFSETS_MAX // topics)
    chosen: list[Done] = []
    touched: dict[int, Partition] = {}
    rest: deque[Done] = deque()
    size = 0
    while finished:
        done = finished[0]
        if chosen and (single or size + done.size > BURST_BYTES_MAX or len(chosen) >= BURST_STEPS_MAX):
            break
        finished.popleft()
        number = done.partition.number
        if number not in touched and len(touched) >= partitions_max:
            rest.append(done)
            continue
        touched[number] = done.partition
        chosen.append(done)
        size += done.size
        done.partition.finish(done)
    finished.extendleft(reversed(rest))
    for partition in owned:
        if len(touched) >= partitions_max:
            break
        if partition.number not in touched and wants_commit(partition):
            touched[partition.number] = partition
    if not touched:
        return None
    offsets: dict[int, list[OffsetCommit]] = {}
    for number, partition in list(touched.items()):
        commits = _offsets(partition, owner)
        if not _fits(commits):
            chosen = _hold_back(partition, chosen, finished, owner)
            if not any(done.partition is partition for done in chosen):
                chosen += _unblock(partition, finished, owner, single=single)
            commits = _offsets(partition, owner)
            if not any(done.partition is partition for done in chosen) and not wants_commit(partition):
                del touched[number]  # its finished steps wait for the one that holds ``low`` back
                continue
        offsets[number] = commits
    return _assembled(chosen, touched, offsets) if touched else None


def _offsets(partition: Partition, owner: str) -> list[OffsetCommit]:
    commits: list[OffsetCommit] = []
    for topic, progress in partition.progress.items():
        snapshot = progress.snapshot()
        commits.append(OffsetCommit(topic, partition.number, snapshot.low, encode_metadata(snapshot, owner)))
    return commits


def _fits(commits: list[OffsetCommit]) -> bool:
    return all(len(commit.metadata) <= METADATA_CHARS_MAX for commit in commits)


def _hold_back(partition: Partition, chosen: list[Done], finished: deque[Done], owner: str) -> list[Done]:
    """The finished offsets of a partition do not fit its metadata: takes the lowest ones that do, in lane order.

    Backpressure keeps this from happening in practice (``Partition.throttle``); here it is made safe.
    """
    mine = [done for done in chosen if done.partition is partition]
    partition.reopen(mine)
    ordered = _lowest_first(mine)
    fit, too_many = 0, len(ordered) + 1
    while too_many - fit > 1:
        middle = (fit + too_many) // 2
        for done in ordered[:middle]:
            partition.finish(done)
        if _fits(_offsets(partition, owner)):
            fit = middle
        else:
            too_many = middle
        partition.reopen(ordered[:middle])
    taken = ordered[:fit]
    for done in taken:
        partition.finish(done)
    taken_set = set(map(id, taken))
    held = [done for done in mine if id(done) not in taken_set]
    finished.extendleft(reversed(held))
    held_set = set(map(id, held))
    return [done for done in chosen if id(done) not in held_set]


def _unblock(partition: Partition, finished: deque[Done], owner: str, *, single: bool) -> list[Done]:
    """Nothing chosen fits. Further behind there may be the step that holds ``low`` back; finishing that one shortens
    the map. Takes it, with the earlier steps of its entity; nothing if it still runs.

    ``single``: as few of them as fit, the earliest first. Otherwise a step that the broker refuses would never be alone
    in its burst.
    """
    for topic, progress in partition.progress.items():
        place = (topic, progress.low)
        lowest = next((one for one in finished if one.partition is partition and one.source == place), None)
        if lowest is None:
            continue
        entity = lowest.entity
        lane = [one for one in finished if one.partition is partition and one.entity == entity]
        upto = lane.index(lowest) + 1
        for count in range(1, upto + 1) if single else (upto,):
            taken = lane[:count]
            for done in taken:
                partition.finish(done)
            if _fits(_offsets(partition, owner)):
                for done in taken:
                    finished.remove(done)
                return taken
            partition.reopen(taken)
    return []


def _lowest_first(dones: list[Done]) -> list[Done]:
    """By offset, but never a step before an earlier one of its entity."""
    by_entity: dict[str, deque[Done]] = {}
    for done in dones:
        by_entity.setdefault(done.entity, deque()).append(done)
    ordered: list[Done] = []
    taken: set[int] = set()
    for done in sorted(dones, key=lambda done: done.source[1] if done.source else -1):
        queue = by_entity[done.entity]
        while id(done) not in taken:
            earlier = queue.popleft()
            taken.add(id(earlier))
            ordered.append(earlier)
    return ordered


def _assembled(chosen: list[Done], touched: dict[int, Partition], offsets: dict[int, list[OffsetCommit]]) -> Burst:
    burst = Burst(chosen, list(touched.values()))
    records = burst.records
    for done in chosen:
        number, entity, outcome = done.partition.number, done.entity, done.outcome
        records.extend(outcome.emits)
        if outcome.decision is not None:
            records.append(outcome.decision)
        if outcome.dead_letter is not None:
            records.append(outcome.dead_letter)
        for row in done.rows:
            burst.rows[number, row[0].table, entity] = row
        for name, timer in done.timers.items():
            burst.timers[number, entity, name] = timer
        for parked_number, parked in done.parked.items():
            burst.parked[number, entity, parked_number] = parked
        if done.state is not None:
            burst.states[number, entity] = done.state
    for number, partition in touched.items():
        reached = partition.reached()
        for commit in offsets[number]:
            burst.offsets.append(commit)
            snapshot = partition.progress[commit.topic].snapshot()
            topic_id = partition.topic_id(commit.topic)
            burst.checkpoints.append(
                Checkpoint(commit.topic, number, snapshot.low, snapshot.done, *reached, topic_id=topic_id)
            )
    return burst
