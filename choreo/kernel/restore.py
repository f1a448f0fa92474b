"""Where a partition starts, decided from what the group committed, the journal's checkpoint and the log's ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

from choreo.errors import EngineError
from choreo.kernel.progress import Snapshot
from choreo.kernel.values import Checkpoint, EntityState, ParkedRow, TimerRow


class RowReader(Protocol):
    """Committed rows of one table and partition."""

    def get(self, entity: str, /) -> bytes | None: ...


class Restored(NamedTuple):
    """All that a partition needs before its first step."""

    progress: Mapping[str, Snapshot]  # by input topic
    event_time_ms: int  # -1: no event yet
    seen_at_ms: int
    entities: dict[str, EntityState]
    timers: list[TimerRow]
    parked: list[ParkedRow]
    stores: Mapping[str, RowReader]


class Ends(NamedTuple):
    """First and next offset of an input partition."""

    start: int
    end: int


def starting_point(
    where: str,
    committed: Snapshot | None,
    checkpoint: Checkpoint | None,
    ends: Ends,
    start: Literal["earliest", "latest"],
    topic_id: str = "",
) -> Snapshot:
    """Where to start an input partition.

    Raises:
        EngineError: CH0307, the group's offsets are missing, behind the checkpoint, or past the end of the log;
            CH0308, input that was never read is gone. Going on would repeat or skip events without anybody noticing.
    """
    if checkpoint is not None and topic_id and checkpoint.topic_id not in ("", topic_id):
        raise EngineError(
            f"the topic was deleted and made again; offset {checkpoint.low} of the old one was committed before",
            code="CH0307",
            where=where,
            fault="environment",
            hint="what the old topic still held is lost; `choreo agent reset` starts the agent over",
        )
    if committed is None:
        if checkpoint is None:
            return Snapshot(ends.start if start == "earliest" else ends.end, ())
        raise EngineError(
            f"the group has no committed offset, but offset {checkpoint.low} was committed before",
            code="CH0307",
            where=where,
            fault="environment",
            hint="the group's offsets expired or were deleted; restore them or run `choreo agent reset`",
        )
    if checkpoint is not None and committed.low < checkpoint.low:
        raise EngineError(
            f"the group's committed offset is {committed.low}, but {checkpoint.low} was committed before",
            code="CH0307",
            where=where,
            fault="environment",
            hint="somebody moved the group back; events would be handled twice. Run `choreo agent reset` if meant",
        )
    if committed.top > ends.end:
        raise EngineError(
            f"the group has finished up to offset {committed.top}, but the log ends at {ends.end}",
            code="CH0307",
            where=where,
            fault="environment",
            hint="the topic was deleted and made again, or lost records; run `choreo agent reset` to start over",
        )
    if committed.low < ends.start:
        lost = _unfinished_range(committed, ends.start)
        if lost is not None:
            raise EngineError(
                f"offsets {lost[0]} to {lost[1]} were deleted before they were read; the log starts at {ends.start}",
                code="CH0308",
                where=where,
                fault="environment",
                hint="retention is shorter than the agent's lag; `choreo agent reset` starts the agent over, with what "
                "the log still holds (`start: earliest`) or with what comes (`start: latest`)",
            )
        return _moved_to(committed, ends.start)
    return committed


def _unfinished_range(committed: Snapshot, log_start: int) -> tuple[int, int] | None:
    """First and last offset in ``[low, log_start)`` that is not finished."""
    first: int | None = None
    last = at = committed.low
    for start, end in (*committed.done, (log_start, log_start)):
        upto = min(start, log_start)
        if at < upto:
            first = at if first is None else first
            last = upto - 1
        at = max(at, end)
    return None if first is None else (first, last)


def _moved_to(committed: Snapshot, log_start: int) -> Snapshot:
    low = log_start
    done: list[tuple[int, int]] = []
    for start, end in committed.done:
        if end <= low:
            continue
        if start <= low:
            low = end
        else:
            done.append((start, end))
    return Snapshot(low, tuple(done))
