"""One partition number of an agent: progress of its inputs, its event clock, and the state its steps see."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from choreo.kernel.burst import Done
from choreo.kernel.event_clock import EventClock, Reached
from choreo.kernel.lanes import Lane
from choreo.kernel.merge import Merge
from choreo.kernel.packed import pack, unpack, unpack_row
from choreo.kernel.progress import METADATA_CHARS_MAX, Progress, encode_metadata
from choreo.kernel.restore import Restored, RowReader
from choreo.kernel.timers import Timers
from choreo.kernel.values import (
    Checkpoint,
    Delivery,
    EntityState,
    Envelope,
    Failure,
    InputTopic,
    Outcome,
    ParkedRow,
    Settlement,
    TimerRow,
    Trigger,
)

Admit = Callable[[Delivery, Envelope], Trigger]
"""Makes an input's trigger, refused where its key cannot be used."""


AHEAD_MS_MAX: Final = 24 * 60 * 60 * 1000
"""How far an event's own time may move the clock beyond its Kafka timestamp: one wrong clock at a producer must not
fire every timer of the partition for ever. A day allows for time zones taken wrongly and for forecasts."""
RUN_CHARS_MAX: Final = 16
"""What one more offset that is finished, or taken back, adds to an offset map at most: two numbers of up to 40 bits
each, in base64."""
KNOWN_KEYS_MAX: Final = 100_000
"""Keys whose partition was checked, remembered in one worker: about 20 MB at most; then it starts afresh."""


class View:
    """What steps read: the overlay of finished, uncommitted steps over the committed store."""

    __slots__ = ("_partition", "_references")

    def __init__(self, partition: Partition, references: Callable[[str, str], tuple[bytes, int] | None]) -> None:
        self._partition = partition
        self._references = references

    def row(self, table: str, entity: str) -> bytes | None:
        packed = self._partition.packed_row(table, entity)
        return None if packed is None else unpack_row(packed)

    def provenance(self, table: str, entity: str) -> str | None:
        packed = self._partition.packed_row(table, entity)
        return None if packed is None else unpack(packed)[0]

    def reference(self, table: str, key: str) -> tuple[bytes, int] | None:
        return self._references(table, key)

    def sequence(self, entity: str) -> int:
        state = self._partition.entities.get(entity)
        return 0 if state is None else state.sequence


class Partition:
    """State of one owned partition number. Made at assignment, ready after the restore, thrown away when lost."""

    def __init__(
        self,
        number: int,
        inputs: Mapping[str, InputTopic],
        merge_wait_ms: int,
        admit: Admit,
        references: Callable[[str, str], tuple[bytes, int] | None],
    ) -> None:
        self.number = number
        self.ready = False
        self.dropped = False
        self.throttled = False
        self.progress: dict[str, Progress] = {}
        self.lanes: dict[str, Lane] = {}
        self.entities: dict[str, EntityState] = {}
        self.timers = Timers()
        self.parked: dict[str, dict[int, ParkedRow]] = {}
        self.clock = EventClock(Reached(-1, 0))
        self.commit_due = False
        self.committed_at_ms = 0
        self.view = View(self, references)
        self._admit = admit
        self._inputs = inputs
        self._merge: Merge[_Item] = Merge([name for name, topic in inputs.items() if not topic.inbox], merge_wait_ms)
        self._inbox: deque[Trigger] = deque()
        self._next: _Item | None = None
        self._rearmed: deque[TimerRow] = deque()  # set by a timer's own step, due at once
        self._stores: Mapping[str, RowReader] = {}
        self._overlay: dict[tuple[str, str], tuple[bytes | None, int]] = {}
        self._bytes = 0
        self._passed = 0  # inputs in the merge that the last owner finished
        self._held: dict[str, list[TimerRow]] = {}
        self._committed_lows: dict[str, int] = {}
        self._measured = (METADATA_CHARS_MAX, 0)  # length of the longest offset map, after so many changes

    def restore(self, restored: Restored) -> None:
        for topic in self._inputs:
            snapshot = restored.progress[topic]
            self.progress[topic] = Progress(snapshot.low, snapshot.done)
        self.entities = restored.entities
        self.timers = Timers(restored.timers)
        for row in sorted(restored.parked, key=lambda row: row.number):
            self.parked.setdefault(row.entity, {})[row.number] = row
        self.clock = EventClock(Reached(restored.event_time_ms, restored.seen_at_ms))
        self._stores = restored.stores
        self.ready = True
        self.commit_due = True

    # -- input ---------------------------------------------------------------------------------------------------------

    def buffer(self, delivery: Delivery, envelope: Envelope) -> None:
        if self._inputs[delivery.topic].inbox:
            self._inbox.append(self._admit(delivery, envelope))
        else:
            self._bytes += len(delivery.value or b"")
            self._merge.add(delivery.topic, envelope.time_ms, _Item(delivery, envelope, False))

    def pass_by(self, delivery: Delivery, envelope: Envelope) -> None:
        """An input that the last owner finished: it only moves the event clock, in its turn."""
        if not self._inputs[delivery.topic].inbox:
            bare = delivery._replace(value=None, headers=())
            self._passed += 1
            self._merge.add(delivery.topic, envelope.time_ms, _Item(bare, envelope, True))

    def reach_end(self, topic: str, offset: int) -> None:
        self.progress[topic].reach_end(offset)
        if not self._inputs[topic].inbox:
            self._merge.reach_end(topic)

    def topic_id(self, topic: str) -> str:
        """Kafka's id of an input topic."""
        return self._inputs[topic].topic_id

    @property
    def unfinished(self) -> int:
        return sum(progress.unfinished for progress in self.progress.values())

    def throttle(self, records_max: int, bytes_max: int) -> None:
        """Pauses above the bounds, resumes below half of them. Holes in the offsets count too: their map must fit."""
        unfinished = self.unfinished
        if not unfinished:
            self._bytes = 0
        unfinished += self._passed
        if self.throttled:
            self.throttled = (
                unfinished > records_max // 2
                or self._bytes > bytes_max // 2
                or (unfinished > 0 and self._metadata_chars() > METADATA_CHARS_MAX // 4)
            )
        else:
            self.throttled = (
                unfinished > records_max
                or self._bytes > bytes_max
                or (unfinished > 512 and self._metadata_chars() > METADATA_CHARS_MAX // 2)
            )
            if self.throttled:
                self._merge.pause()

    def _metadata_chars(self) -> int:
        """At most this long is the longest of its offset maps. Each change lengthens one by a run at most, so they are
        measured anew only when that could make a difference."""
        changes = sum(progress.changes for progress in self.progress.values())
        chars, then = self._measured
        bound = chars + RUN_CHARS_MAX * (changes - then)
        if bound > METADATA_CHARS_MAX // (4 if self.throttled else 2):
            bound = max(len(encode_metadata(progress.snapshot(), "")) for progress in self.progress.values())
            self._measured = (bound, changes)
        return bound

    # -- what runs next ------------------------------------------------------------------------------------------------

    def clock_ms(self, now_ms: int) -> int:
        """The event clock: the highest event time seen, and once nothing is left unread, the wall time since then."""
        reached = self.clock.now
        if reached.event_time_ms < 0 or self._next is not None or not self._merge.drained:
            return reached.event_time_ms
        if now_ms < reached.seen_at_ms:
            self.clock.set_back(now_ms)
            return reached.event_time_ms
        return reached.event_time_ms + now_ms - reached.seen_at_ms

    def next_trigger(self, now_ms: int) -> Trigger | None:
        """The next input or timer in event-time order; None if there is none now."""
        if self._inbox:
            return self._inbox.popleft()
        timers, clock, release = self.timers, self.clock, self._merge.release
        if timers.heap and (timer := timers.due(self.clock_ms(now_ms))) is not None:
            return _fired(timer)
        while (item := self._next or release(now_ms)) is not None:
            delivery, envelope, finished = item
            time_ms, latest_ms = envelope.time_ms, delivery.timestamp_ms + AHEAD_MS_MAX
            if time_ms > latest_ms:
                time_ms = latest_ms
            if time_ms > clock.now.event_time_ms:
                if timers.heap and (timer := timers.due(time_ms)) is not None:
                    self._next = item
                    return _fired(timer)
                clock.move(delivery.topic, delivery.offset, Reached(time_ms, now_ms))
            self._next = None
            if finished:
                self._passed -= 1
                continue
            if self._rearmed:
                self._let_rearmed_go()
            return self._admit(delivery, envelope)
        if self._rearmed:
            self._let_rearmed_go()
        if timers.heap and (timer := timers.due(self.clock_ms(now_ms))) is not None:
            return _fired(timer)
        return None

    def _let_rearmed_go(self) -> None:
        """A timer that its own step set again for a moment that has passed takes turns with the inputs: otherwise one
        entity that re-arms its timer for ever would keep all others of the partition waiting."""
        self.timers.hand_back(self._rearmed.popleft())

    def again(
        self,
        delivery: Delivery,
        parse: Callable[[Delivery, InputTopic], Envelope],
        event_id: str,
    ) -> Trigger:
        """Trigger of an input that comes back: a parked event, or a dead letter sent again."""
        topic = self._inputs.get(delivery.topic) or InputTopic(delivery.topic)
        envelope = parse(delivery, topic)
        if event_id:
            envelope = envelope._replace(event_id=event_id)
        trigger = self._admit(delivery, envelope)
        trigger.source = None
        return trigger

    def wakes_at_ms(self, now_ms: int) -> int | None:
        """When something becomes due without new input."""
        if self._inbox or self._next is not None or self._rearmed:
            return now_ms
        times = [at for at in (self._merge.waits_until_ms,) if at is not None]
        timer_at_ms = self.timers.next_at_ms()
        reached = self.clock.now
        if timer_at_ms is not None and reached.event_time_ms >= 0 and self._merge.drained:
            times.append(reached.seen_at_ms + timer_at_ms - reached.event_time_ms)
        if self.commit_due:
            times.append(now_ms)
        return min(times, default=None)

    def lane(self, entity: str) -> Lane:
        lane = self.lanes.get(entity)
        if lane is None:
            lane = self.lanes[entity] = Lane(self, entity)
        return lane

    # -- state ---------------------------------------------------------------------------------------------------------

    def packed_row(self, table: str, entity: str) -> bytes | None:
        written = self._overlay.get((table, entity))
        return written[0] if written is not None else self._stores[table].get(entity)

    def has_uncommitted_rows(self, entity: str, tables: Iterable[str]) -> bool:
        """Whether a row of the entity is newer than its store."""
        overlay = self._overlay
        return any((table, entity) in overlay for table in tables)

    def next_parked_number(self, entity: str) -> int:
        rows = self.parked.get(entity)
        return max(rows) + 1 if rows else 0

    def hold_timer(self, timer: TimerRow) -> None:
        """The entity is parked: its timer fires once the parked events are settled."""
        self._held.setdefault(timer.entity, []).append(timer)

    def stop_retry(self, entity: str) -> None:
        """A parked event was parked again: those behind it stay where they are."""
        lane = self.lanes.get(entity)
        if lane is not None:
            lane.queue = type(lane.queue)(trigger for trigger in lane.queue if trigger.parked_number < 0)

    def apply(self, done: Done, trigger: Trigger, state: EntityState | None) -> None:
        """Makes a finished step's changes visible to the entity's next step."""
        outcome, entity = done.outcome, done.entity
        for write in outcome.rows:
            packed = None if write.value is None else pack(trigger.envelope.event_id, write.value)
            self._overlay[write.table, entity] = (packed, done.sequence)
            done.rows.append((write, packed))
        if trigger.timer is not None or outcome.cancels or outcome.timers:
            done.timers = self._apply_timers(trigger, outcome)
        if outcome.parked is not None:
            self.parked.setdefault(entity, {})[outcome.parked.number] = outcome.parked
            done.parked = {outcome.parked.number: outcome.parked}
        elif trigger.parked_number >= 0:
            self._unpark(entity, trigger.parked_number)
            done.parked = {trigger.parked_number: None}
        if state is not None:
            self.entities[entity] = done.state = state

    def _apply_timers(self, trigger: Trigger, outcome: Outcome) -> dict[str, TimerRow | None]:
        """By name, what the step left of the entity's timers that it touched."""
        entity, changed = trigger.entity, dict[str, TimerRow | None]()
        if trigger.timer is not None and self.timers.is_set(trigger.timer):
            self.timers.cancel(entity, trigger.timer.name)
            changed[trigger.timer.name] = None
        for name in outcome.cancels:
            if self.timers.cancel(entity, name):
                changed[name] = None
        for timer in outcome.timers:
            again = trigger.timer is not None and timer.at_ms <= trigger.timer.at_ms
            self.timers.set(timer, held=again)
            if again:
                self._rearmed.append(timer)
            changed[timer.name] = timer
        return changed

    def _unpark(self, entity: str, number: int) -> None:
        rows = self.parked[entity]
        del rows[number]
        if not rows:
            del self.parked[entity]
            for timer in self._held.pop(entity, ()):
                self.timers.hand_back(timer)

    # -- commits -------------------------------------------------------------------------------------------------------

    def finish(self, done: Done) -> None:
        if done.source is not None:
            topic, offset = done.source
            done.delivery_number = self.progress[topic].finish(offset)
            self._bytes -= done.buffered_bytes

    def reopen(self, dones: Iterable[Done]) -> None:
        """Takes back ``finish`` of steps that did not get into the burst after all."""
        by_topic: dict[str, list[tuple[int, int]]] = {}
        for done in dones:
            if done.source is not None:
                topic, offset = done.source
                by_topic.setdefault(topic, []).append((offset, done.delivery_number))
                self._bytes += done.buffered_bytes
        for topic, offsets in by_topic.items():
            self.progress[topic].reopen(offsets)

    def buffered_bytes(self, trigger: Trigger) -> int:
        """What ``buffer`` counted for it; an event that came back through the inbox was not counted."""
        delivery, source = trigger.delivery, trigger.source
        if delivery is None or delivery.value is None or source is None:
            return 0
        if source[1] != delivery.offset or source[0] != delivery.topic or self._inputs[source[0]].inbox:
            return 0
        return len(delivery.value)

    def reached(self) -> Reached:
        """The event clock to commit: before the first input that is not finished."""
        return self.clock.before({topic: progress.low for topic, progress in self.progress.items()})

    def wants_commit(self, now_ms: int, idle_ms: int, recommit_ms: int) -> bool:
        """Whether its offsets should be committed although none of its steps finished."""
        if not self.ready:
            return False
        since_ms = now_ms - self.committed_at_ms
        if self.commit_due or since_ms >= recommit_ms:
            return True
        return since_ms >= idle_ms and any(
            progress.low != self._committed_lows.get(topic) for topic, progress in self.progress.items()
        )

    def committed(self, checkpoints: Iterable[Checkpoint], now_ms: int) -> None:
        """Its offsets are committed as ``checkpoints`` say."""
        self.commit_due = False
        self.committed_at_ms = now_ms
        for checkpoint in checkpoints:
            self._committed_lows[checkpoint.topic] = checkpoint.low
            self.clock.forget(checkpoint.topic, checkpoint.low, self.progress[checkpoint.topic].unfinished_offsets)

    def settle(self, done: Done) -> None:
        """The store holds the rows of a committed step: the overlay is done with them, unless a later step wrote."""
        overlay = self._overlay
        for write, _ in done.rows:
            key = (write.table, done.entity)
            written = overlay.get(key)
            if written is not None and written[1] == done.sequence:
                del overlay[key]


class _Item(NamedTuple):
    """An input in its partition's merge."""

    delivery: Delivery
    envelope: Envelope
    finished: bool  # by the last owner


def _fired(timer: TimerRow) -> Trigger:
    origin = timer.origin
    envelope = Envelope(
        timer.timer_id,
        "",
        timer.at_ms,
        origin.correlation_id,
        origin.event_id,
        origin.hop,
        origin.traceparent,
        origin.tracestate,
        origin.baggage,
    )
    return Trigger("timer", timer.entity, None, envelope, timer=timer)


def admit_with(
    inputs: Mapping[str, InputTopic],
    partitions: int,
    partition_of: Callable[[bytes, int], int],
    settlement_of: Callable[[Delivery], Settlement | Failure],
) -> Admit:
    """Checks keys once for each new key: UTF-8, not null, on the partition the key belongs to."""
    known: dict[bytes, tuple[str, int]] = {}

    def admit(delivery: Delivery, envelope: Envelope) -> Trigger:
        source = (delivery.topic, delivery.offset)
        key = delivery.key
        if key is None:
            refused = Failure("CH0206", "the message has no key", "DecodeError", False, False, "")
            return Trigger("event", "", delivery, envelope, source=source, refused=refused)
        seen = known.get(key)
        if seen is None:
            try:
                seen = (key.decode(), partition_of(key, partitions))
            except UnicodeDecodeError as error:
                refused = Failure("CH0206", f"the message key is not UTF-8: {error}", "DecodeError", False, False, "")
                return Trigger("event", "", delivery, envelope, source=source, refused=refused)
            if len(known) >= KNOWN_KEYS_MAX:
                known.clear()
            known[key] = seen
        entity, expected = seen
        trigger = Trigger("event", entity, delivery, envelope, None, 0, source)
        topic = inputs.get(delivery.topic)
        if expected != delivery.partition and delivery.partition >= 0:
            trigger.refused = Failure(
                "CH0301",
                f"key {entity!r} lies on partition {delivery.partition}, but belongs to {expected}; "
                "its producer must use partitioner=murmur2_random",
                "DecodeError",
                False,
                False,
                "",
            )
        elif topic is not None and topic.inbox:
            settlement = settlement_of(delivery)
            if isinstance(settlement, Failure):
                trigger.refused = settlement
            else:
                trigger.kind, trigger.settlement = "settlement", settlement
        return trigger

    return admit
