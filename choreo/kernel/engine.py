"""The engine's decisions as a pure state machine: deliveries in, bursts of finished steps out.

Theory of operation. The engine owns *partition numbers* (several topics of equal partition numbers make one). Inputs of
a number are merged by event time and go into *lanes*, one for each entity: events of one entity run in order, one at a
time; different entities run concurrently. A step runs until it finishes or waits for a call. Finished steps collect
until the shell takes a *burst*: everything that goes into one Kafka transaction. Rows of finished steps sit in an
overlay that later steps read; the stores change only after the commit.

The engine never waits, never reads a clock and never fails half way: the shell (``choreo/runtime/shell.py``, or the
test kit) calls it from one thread and passes the time in. Whatever goes wrong outside, the shell drops partitions
(``revoke``) or everything (``reset``) and restores from Kafka: crash-only, so there is no undo here.

Alternatives looked at: Kafka Streams runs one record at a time per partition (a slow entity blocks its partition);
Confluent's parallel-consumer keeps the same out-of-order offset maps, without state; Flink snapshots instead of
committing bursts, which delays every output by the checkpoint interval.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from choreo.errors import EngineError
from choreo.kernel.burst import BURST_BYTES_MAX, Burst, Done, build_burst
from choreo.kernel.lanes import Lane
from choreo.kernel.partition import Partition, admit_with
from choreo.kernel.restore import Restored
from choreo.kernel.validate import first_violation
from choreo.kernel.values import (
    Answer,
    Call,
    Checkpoint,
    Delivery,
    EntityState,
    Envelope,
    Failure,
    InputTopic,
    Outcome,
    ParkedRow,
    Runner,
    Settlement,
    Step,
    StepResult,
    TopicFacts,
    Trigger,
    Waiting,
)

BUFFERED_RECORDS_MAX: Final = 10_000
"""Delivered and unfinished records of one partition number before its inputs are paused; resumed at half of it.
Confluent's parallel-consumer loads a similar number; at 155 bytes a record it is a few megabytes."""
BUFFERED_BYTES_MAX: Final = 32 * 1024 * 1024
"""The same in bytes, for large records."""
PARKED_MAX: Final = 1_000
"""Parked events of one entity; what comes after becomes a dead letter."""
SEEN_MAX: Final = 1_000
"""Dedupe entries of one entity; the oldest go first. A duplicate that arrives behind 1,000 others is not noticed."""
RETRY_BACKOFF_MS_MAX: Final = 30_000
"""Longest wait between two attempts of a failing step."""
PUMP_STEPS_MAX: Final = 2_000
"""Steps run before the shell gets control back to commit and poll: about 50 ms of work."""
TURN_STEPS_MAX: Final = 250
"""Steps of one partition number before the next one has its turn."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the engine has to know about its agent and its cluster."""

    inputs: tuple[InputTopic, ...]
    partitions: int
    owner: str  # transactional id
    facts: Mapping[str, TopicFacts]  # every topic the agent may write, internal ones included
    changelogs: Mapping[str, str]  # table -> changelog topic
    parse: Callable[[Delivery, InputTopic], Envelope]
    partition_of: Callable[[bytes, int], int]
    settlement: Callable[[Delivery], Settlement | Failure]
    references: Callable[[str, str], tuple[bytes, int] | None]  # (table, key) -> encoded row, offset
    in_flight: int = 256
    retries: int = 5
    retry_backoff_ms: int = 100
    merge_wait_ms: int = 100
    sequences: bool = True  # count decisions per entity (off with audit: off)


class PartitionStatistics(NamedTuple):
    """One partition number at one moment."""

    number: int
    ready: bool
    buffered: int
    lanes: int
    timers: int
    parked: int
    positions: Mapping[str, int]
    lows: Mapping[str, int]


class EngineStatistics(NamedTuple):
    """The engine at one moment; counts since its start."""

    partitions: tuple[PartitionStatistics, ...]
    waiting: int
    finished_uncommitted: int
    steps: int
    committed: int
    dead_letters: int
    parked: int
    duplicates: int
    retries: int


@dataclass(slots=True)
class _Counts:
    steps: int = 0
    committed: int = 0
    dead_letters: int = 0
    parked: int = 0
    duplicates: int = 0
    retries: int = 0


StepName = tuple[int, str, str, tuple[str, int] | None]
"""Which step: partition number, entity, event id, place of the input (None for timers and parked events)."""


@dataclass(slots=True)
class Refusals:
    """What the broker refused for good. It outlives the engine: the next one finds and settles the culprit."""

    poison: set[StepName] = field(default_factory=set)
    singles: int = 0  # this many more steps are committed in bursts of one


@dataclass(slots=True)
class _Waits:
    """Calls in flight."""

    lanes: dict[int, Lane] = field(default_factory=dict)
    to_start: list[tuple[int, Call]] = field(default_factory=list)
    to_cancel: list[int] = field(default_factory=list)
    last_id: int = 0


class Engine:
    """Decides what runs, what is committed together and where reading pauses.

    Guarantee: every delivered event of an owned partition ends in exactly one outcome that enters exactly one burst;
    bursts keep the order of an entity's steps.
    """

    def __init__(self, config: EngineConfig, runner: Runner, refusals: Refusals | None = None) -> None:
        self._config = config
        self._runner = runner
        self._refusals = Refusals() if refusals is None else refusals
        self._inputs = {topic.name: topic for topic in config.inputs}
        self._dedupes = any(topic.dedupe_ms is not None for topic in config.inputs)
        self._plain = not self._dedupes and not self._refusals.poison  # no event may be a duplicate or refused before
        self._admit = admit_with(self._inputs, config.partitions, config.partition_of, config.settlement)
        self._partitions: dict[int, Partition] = {}
        self._finished: deque[Done] = deque()
        self._finished_bytes = 0
        self._sequence = 0  # completion order
        self._waits = _Waits()
        self._backoff: list[Lane] = []
        self._woken: deque[Lane] = deque()
        self._counts = _Counts()
        self._turn = 0
        self.cut_short = False  # the last pump had steps left when it gave control back
        self._draining = False

    # -- membership ----------------------------------------------------------------------------------------------------

    def assign(self, number: int) -> None:
        """A partition number was assigned; nothing of it runs until ``restored``."""
        if number in self._partitions:
            raise EngineError(f"partition {number} was assigned twice")
        self._partitions[number] = Partition(
            number, self._inputs, self._config.merge_wait_ms, self._admit, self._config.references
        )

    def restored(self, number: int, restored: Restored) -> None:
        """Its state was read back; its offsets are committed once more with the next burst."""
        self._partitions[number].restore(restored)

    def owns(self, number: int) -> bool:
        return number in self._partitions

    def revoke(self, numbers: Iterable[int]) -> None:
        """Forgets partitions with all that is uncommitted of them."""
        for number in numbers:
            partition = self._partitions.pop(number, None)
            if partition is not None:
                self._drop(partition)
        self._finished = deque(done for done in self._finished if not done.partition.dropped)
        self._finished_bytes = sum(done.size for done in self._finished)

    def reset(self) -> None:
        """Forgets everything uncommitted, after an error with an unknown result."""
        self.revoke(list(self._partitions))

    def _drop(self, partition: Partition) -> None:
        partition.dropped = True
        for lane in partition.lanes.values():
            lane.dropped = True
            if lane.call_id is not None:
                del self._waits.lanes[lane.call_id]
                self._waits.to_cancel.append(lane.call_id)
                lane.call_id = None
            if lane.step is not None:
                lane.step.abandon()
                lane.step = None
        partition.lanes.clear()
        self._backoff = [lane for lane in self._backoff if not lane.dropped]
        self._woken = deque(lane for lane in self._woken if not lane.dropped)
        dropped = set(self._waits.to_cancel)
        self._waits.to_start = [(call_id, call) for call_id, call in self._waits.to_start if call_id not in dropped]

    # -- input ---------------------------------------------------------------------------------------------------------

    def deliver(self, deliveries: Iterable[Delivery]) -> None:
        """Takes records as the consumer returned them. Records of partitions that are not ready are ignored: the shell
        reads from ``Restored.progress`` on when they are."""
        parse, inputs, partitions = self._config.parse, self._inputs, self._partitions
        for delivery in deliveries:
            topic, number, offset = delivery[:3]
            partition = partitions.get(number)
            if partition is None or not partition.ready:
                continue
            progress = partition.progress[topic]
            if offset < progress.position:
                continue  # taken already
            unfinished = progress.deliver(offset)
            envelope = parse(delivery, inputs[topic])
            if unfinished:
                partition.buffer(delivery, envelope)
            else:
                partition.pass_by(delivery, envelope)

    def reach_end(self, topic: str, number: int, offset: int) -> None:
        """The consumer saw the end of an input partition."""
        partition = self._partitions.get(number)
        if partition is not None and partition.ready:
            partition.reach_end(topic, offset)

    def paused(self) -> set[tuple[str, int]]:
        """(topic, partition) pairs that must not be fetched now."""
        paused: set[tuple[str, int]] = set()
        for partition in self._partitions.values():
            if not partition.ready:
                paused.update((topic, partition.number) for topic in self._inputs)
                continue
            partition.throttle(BUFFERED_RECORDS_MAX, BUFFERED_BYTES_MAX)
            if partition.throttled:
                paused.update((topic, partition.number) for topic in self._inputs)
        return paused

    # -- work ----------------------------------------------------------------------------------------------------------

    def pump(self, now_ms: int, steps_max: int = PUMP_STEPS_MAX) -> int:
        """Runs steps that can run. Returns how many were started or resumed."""
        before = self._counts.steps
        self._wake(now_ms)
        limit = before + steps_max
        partitions = [partition for partition in self._partitions.values() if partition.ready]
        self.cut_short = False
        if not partitions:
            return self._counts.steps - before
        self._turn += 1
        start = self._turn % len(partitions)
        order = partitions[start:] + partitions[:start]
        busy = True
        while busy and self._may_start(limit):
            busy = False
            for partition in order:
                busy = self._run_turn(partition, now_ms, limit) or busy
        self.cut_short = self._counts.steps >= limit
        return self._counts.steps - before

    def drain(self) -> None:
        """From now on nothing new starts; what has started finishes."""
        self._draining = True

    def _may_start(self, limit: int) -> bool:
        return (
            not self._draining
            and self._counts.steps < limit
            and len(self._waits.lanes) < self._config.in_flight
            and self._finished_bytes < BURST_BYTES_MAX
        )

    def _run_turn(self, partition: Partition, now_ms: int, limit: int) -> bool:
        turn_end = min(limit, self._counts.steps + TURN_STEPS_MAX)
        lanes, next_trigger, begin = partition.lanes, partition.next_trigger, self._begin
        ran = False
        while self._may_start(turn_end) and not partition.dropped:
            trigger = next_trigger(now_ms)
            if trigger is None:
                return ran
            ran = True
            lane = lanes.get(trigger.entity) if lanes else None
            if lane is not None:
                lane.queue.append(trigger)
            else:
                begin(partition, None, trigger, now_ms)
        return ran

    def _wake(self, now_ms: int) -> None:
        if self._backoff:
            latest_ms = now_ms + RETRY_BACKOFF_MS_MAX  # later than that: the clock was set back meanwhile
            due = [lane for lane in self._backoff if not now_ms < lane.due_ms <= latest_ms]
            if due:
                self._backoff = [lane for lane in self._backoff if now_ms < lane.due_ms <= latest_ms]
                for lane in due:
                    lane.woken = True
                    self._woken.append(lane)
        for _ in range(len(self._woken)):
            lane = self._woken.popleft()
            if lane.dropped:
                continue
            if len(self._waits.lanes) >= self._config.in_flight:
                self._woken.appendleft(lane)
                return
            lane.woken = False
            if self._draining:
                continue
            if lane.retry is not None:
                trigger, lane.retry = lane.retry, None
                self._begin(lane.partition, lane, trigger, now_ms)
            else:
                self._continue(lane, now_ms)

    def _begin(self, partition: Partition, lane: Lane | None, trigger: Trigger, now_ms: int) -> None:
        """Starts the step of a trigger whose lane is free."""
        self._counts.steps += 1
        if self._plain and not partition.parked and trigger.kind == "event" and trigger.refused is None:
            # nothing but the step itself can come of it: true for almost all
            step = self._runner.start(trigger, partition.view, now_ms)
            self._take(partition, lane, trigger, step, step.advance(None), now_ms)
            return
        refused = self._refusal(partition, trigger)
        if trigger.timer is not None and not partition.timers.is_set(trigger.timer):
            pass  # cancelled or set anew by an earlier step of the lane
        elif refused is not None:
            self._finish(partition, trigger, self._runner.dead_letter(trigger, refused, partition.view, now_ms))
        elif trigger.kind == "settlement":
            self._settle(partition, lane, trigger, now_ms)
            return
        elif trigger.parked_number < 0 and trigger.entity in partition.parked:
            self._park_behind(partition, trigger, now_ms)
        elif self._is_duplicate(partition, trigger):
            self._counts.duplicates += 1
            self._finish(partition, trigger, self._runner.duplicate(trigger, partition.view, now_ms))
        else:
            step = self._runner.start(trigger, partition.view, now_ms)
            self._take(partition, lane, trigger, step, step.advance(None), now_ms)
            return
        if lane is not None:
            self._continue(lane, now_ms)

    def _refusal(self, partition: Partition, trigger: Trigger) -> Failure | None:
        """Why an input cannot be handled at all: its key is unusable, or it broke a burst before."""
        if trigger.refused is not None:
            return trigger.refused
        if self._refusals.poison and _step_name(partition, trigger) in self._refusals.poison:
            return Failure("CH0305", "the broker refused a record of this step", "KafkaException", False, False, "")
        return None

    def _take(
        self, partition: Partition, lane: Lane | None, trigger: Trigger, step: Step, result: StepResult, now_ms: int
    ) -> None:
        """Goes on with what a step answered."""
        if type(result) is Outcome:
            violation = first_violation(result, trigger.entity, self._config.facts, self._config.changelogs)
            if violation is not None:
                result = self._runner.dead_letter(trigger, violation, partition.view, now_ms)
            self._end(partition, lane, trigger, result, now_ms)
        elif type(result) is Waiting:
            lane = lane or partition.lane(trigger.entity)
            waits = self._waits
            waits.last_id += 1
            lane.step, lane.trigger, lane.call_id = step, trigger, waits.last_id
            waits.lanes[waits.last_id] = lane
            waits.to_start.append((waits.last_id, result.call))
        else:
            assert isinstance(result, Failure)
            if not self._retry_later(partition, lane, trigger, result, now_ms):
                self._end(partition, lane, trigger, self._failed(partition, trigger, result, now_ms), now_ms)

    def _end(self, partition: Partition, lane: Lane | None, trigger: Trigger, outcome: Outcome, now_ms: int) -> None:
        if lane is None:
            self._finish(partition, trigger, outcome)
            return
        lane.step = lane.trigger = None
        self._finish(partition, trigger, outcome)
        self._continue(lane, now_ms)

    def _retry_later(
        self, partition: Partition, lane: Lane | None, trigger: Trigger, failure: Failure, now_ms: int
    ) -> bool:
        if not failure.retry or trigger.attempt >= self._config.retries:
            return False
        lane = lane or partition.lane(trigger.entity)
        wait_ms = min(self._config.retry_backoff_ms << min(trigger.attempt, 20), RETRY_BACKOFF_MS_MAX)
        trigger.attempt += 1
        self._counts.retries += 1
        lane.step = lane.trigger = None
        lane.retry, lane.due_ms = trigger, now_ms + wait_ms
        self._backoff.append(lane)
        return True

    def _failed(self, partition: Partition, trigger: Trigger, failure: Failure, now_ms: int) -> Outcome:
        if failure.park:
            if trigger.parked_number >= 0:
                number = trigger.parked_number
            else:
                number = partition.next_parked_number(trigger.entity)
            if len(partition.parked.get(trigger.entity, ())) < PARKED_MAX or trigger.parked_number >= 0:
                return self._runner.park(trigger, failure, number, partition.view, now_ms)
            failure = Failure("CH0313", f"{PARKED_MAX} events of this entity are parked", "Parked", False, False, "")
        elif failure.retry:
            failure = failure._replace(
                code="CH0304", message=f"{failure.code} {failure.message} (after {trigger.attempt + 1} attempts)"
            )
        return self._runner.dead_letter(trigger, failure, partition.view, now_ms)

    def _park_behind(self, partition: Partition, trigger: Trigger, now_ms: int) -> None:
        if trigger.timer is not None:
            partition.hold_timer(trigger.timer)
            return
        first = next(iter(partition.parked[trigger.entity].values()))
        failure = Failure("CH0312", f"queued behind parked event {first.event_id}", "Parked", False, True, "")
        self._finish(partition, trigger, self._failed(partition, trigger, failure, now_ms))

    def _is_duplicate(self, partition: Partition, trigger: Trigger) -> bool:
        delivery = trigger.delivery
        topic = None if delivery is None else self._inputs.get(delivery.topic)
        if delivery is None or topic is None or topic.dedupe_ms is None:
            return False
        window_ms = topic.dedupe_ms
        state = partition.entities.get(trigger.entity)
        if state is None:
            return False
        event_id, at_ms = trigger.envelope.event_id, delivery.timestamp_ms
        return any(seen == event_id and abs(at_ms - seen_ms) <= window_ms for seen, seen_ms in state.seen)

    def _continue(self, lane: Lane, now_ms: int) -> None:
        """The lane is free: its next trigger, or its end."""
        if lane.continuing:
            return  # an outer call of this function goes on; recursion would be as deep as the queue is long
        lane.continuing = True
        try:
            while lane.queue and not (lane.busy or lane.dropped or self._draining):
                if len(self._waits.lanes) >= self._config.in_flight:
                    if not lane.woken:
                        lane.woken = True
                        self._woken.append(lane)
                    return
                self._begin(lane.partition, lane, lane.queue.popleft(), now_ms)
        finally:
            lane.continuing = False
        if not lane.queue and not lane.busy and not lane.dropped:
            lane.partition.lanes.pop(lane.entity, None)

    # -- calls ---------------------------------------------------------------------------------------------------------

    def calls_to_start(self, *, regardless: bool = False) -> list[tuple[int, Call]]:
        """Calls the shell has to start now, each with its id; handed out once.

        A call may rest on its entity's rows. It waits until those that earlier steps wrote are committed: none may rest
        on a row that is lost again in a crash. ``regardless`` of that: where finished steps wait for room in the offset
        map, only the calls can make room.
        """
        waits = self._waits
        if not waits.to_start:
            return []
        ready: list[tuple[int, Call]] = []
        held: list[tuple[int, Call]] = []
        for one in waits.to_start:
            lane = waits.lanes[one[0]]
            free = regardless or not lane.partition.has_uncommitted_rows(lane.entity, self._config.changelogs)
            (ready if free else held).append(one)
        waits.to_start = held
        return ready

    def calls_to_cancel(self) -> list[int]:
        """Started calls whose answer nobody waits for any more."""
        calls, self._waits.to_cancel = self._waits.to_cancel, []
        return calls

    def answer(self, call_id: int, answer: Answer, now_ms: int) -> None:
        """The answer of a call; ignored if its step was dropped meanwhile."""
        lane = self._waits.lanes.pop(call_id, None)
        if lane is None:
            return
        step, trigger = lane.step, lane.trigger
        assert step is not None and trigger is not None
        lane.call_id = None
        self._counts.steps += 1
        self._take(lane.partition, lane, trigger, step, step.advance(answer), now_ms)

    @property
    def waiting(self) -> int:
        """Calls in flight."""
        return len(self._waits.lanes)

    # -- inbox ---------------------------------------------------------------------------------------------------------

    def _settle(self, partition: Partition, lane: Lane | None, trigger: Trigger, now_ms: int) -> None:
        """Carries out what a person decided about parked events and dead letters of one entity."""
        lane = lane or partition.lane(trigger.entity)
        settlement = trigger.settlement
        if settlement is None:  # the end of a retry: the inbox record is finished
            self._finish(partition, trigger, Outcome())
        elif settlement.kind == "redrive":
            original = settlement.delivery
            if original is None or trigger.delivery is None or original.key != trigger.delivery.key:
                refused = Failure(
                    "CH0206",
                    "a dead letter of another entity, or none, was sent again",
                    "DecodeError",
                    False,
                    False,
                    "",
                )
                self._finish(partition, trigger, self._runner.dead_letter(trigger, refused, partition.view, now_ms))
                self._continue(lane, now_ms)
                return
            again = partition.again(original, self._config.parse, "")
            again.source = trigger.source
            lane.queue.appendleft(again)
        else:
            rows = list(partition.parked.get(trigger.entity, {}).values())
            end = Trigger("settlement", trigger.entity, None, trigger.envelope, source=trigger.source)
            again_first: list[Trigger] = []
            for row in rows:
                if settlement.kind == "drop" and settlement.number not in (-1, row.number):
                    continue
                again = partition.again(row.delivery, self._config.parse, row.event_id)
                again.parked_number = row.number
                if settlement.kind == "drop":
                    again.refused = Failure(
                        "CH0312", f"dropped by {settlement.by}: {settlement.reason}", "Parked", False, False, ""
                    )
                again_first.append(again)
            lane.queue.extendleft(reversed([*again_first, end]))
        self._continue(lane, now_ms)

    # -- finished steps ------------------------------------------------------------------------------------------------

    def _finish(self, partition: Partition, trigger: Trigger, outcome: Outcome) -> None:
        """Applies an outcome to what later steps see, and queues it for a burst."""
        self._sequence += 1
        if outcome.dead_letter is not None:
            self._counts.dead_letters += 1
        if outcome.parked is not None:
            self._counts.parked += 1
        done = Done(partition, trigger, outcome, self._sequence)
        state = None
        if self._dedupes or (outcome.decision is not None and self._config.sequences):
            state = self._next_entity_state(partition, trigger, outcome)
        partition.apply(done, trigger, state)
        if outcome.parked is not None and trigger.parked_number >= 0:
            partition.stop_retry(trigger.entity)
        self._finished.append(done)
        self._finished_bytes += done.size

    def _next_entity_state(self, partition: Partition, trigger: Trigger, outcome: Outcome) -> EntityState | None:
        """The entity's engine state after this step, or None if nothing of it changed."""
        state = partition.entities.get(trigger.entity)
        sequence, seen = state if state is not None else (0, ())
        changed = False
        if self._config.sequences and outcome.decision is not None:
            sequence, changed = sequence + 1, True
        delivery = trigger.delivery
        handled = outcome.parked is None and outcome.dead_letter is None  # others may come back, with the same id
        if handled and delivery is not None and delivery.topic in self._inputs:
            window_ms = self._inputs[delivery.topic].dedupe_ms
            if window_ms is not None:
                after_ms = delivery.timestamp_ms - window_ms
                kept = [entry for entry in seen if entry[1] >= after_ms][-(SEEN_MAX - 1) :]
                seen, changed = (*kept, (trigger.envelope.event_id, delivery.timestamp_ms)), True
        return EntityState(sequence, seen) if changed else None

    # -- bursts --------------------------------------------------------------------------------------------------------

    def take_burst(self, now_ms: int) -> Burst | None:
        """Everything that goes into the next transaction, or None if nothing is complete.

        The shell answers with ``committed``, ``put_back``, or drops the partitions.
        """
        single = self._refusals.singles > 0
        burst = build_burst(self._finished, self._partitions.values(), self._config.owner, now_ms, single=single)
        self._finished_bytes = sum(done.size for done in self._finished) if self._finished else 0
        return burst

    def committed(self, burst: Burst, now_ms: int) -> None:
        """The transaction is committed and the stores hold its rows."""
        self._counts.committed += len(burst.steps)
        refusals = self._refusals
        refusals.singles = max(0, refusals.singles - len(burst.steps))
        if refusals.poison:
            names = [_done_name(done) for done in burst.steps]
            # offsets never come back; a timer's or a parked event's name may, when its dead letter is sent again
            refusals.poison.difference_update(name for name in names if name[-1] is None)
        checkpoints: dict[int, list[Checkpoint]] = {partition.number: [] for partition in burst.partitions}
        for checkpoint in burst.checkpoints:
            checkpoints[checkpoint.partition].append(checkpoint)
        for partition in burst.partitions:
            if not partition.dropped:
                partition.committed(checkpoints[partition.number], now_ms)
        for done in burst.steps:
            if done.rows and not done.partition.dropped:
                done.partition.settle(done)

    def put_back(self, burst: Burst) -> None:
        """The transaction was aborted: the same outcomes go again, except those whose partition was dropped."""
        kept = [done for done in burst.steps if not done.partition.dropped]
        by_partition: dict[int, list[Done]] = {}
        for done in kept:
            by_partition.setdefault(done.partition.number, []).append(done)
        for dones in by_partition.values():
            dones[0].partition.reopen(dones)
        self._finished.extendleft(reversed(kept))
        self._finished_bytes += sum(done.size for done in kept)
        for partition in burst.partitions:
            partition.commit_due = True

    def refuse_burst(self, burst: Burst) -> None:
        """The broker refused one of the burst's records for good. The shell starts over with a new engine, to which it
        gives the same ``Refusals``.

        A burst of one step names the culprit: its event becomes a dead letter. Otherwise the same steps run again in
        bursts of one until the culprit is found. Each call learns something or raises: starting over comes to an end.

        Raises:
            EngineError: the culprit cannot become a dead letter.
        """
        refusals = self._refusals
        refusals.singles = max(refusals.singles, len(burst.steps))
        if len(burst.steps) > 1:
            return
        if not burst.steps:
            raise EngineError("the broker refuses the engine's own record of its progress")
        culprit = _done_name(burst.steps[0])
        if culprit in refusals.poison:
            raise EngineError(f"the broker refuses the dead letter of event {culprit[2]}, {culprit[3]}, as well")
        refusals.poison.add(culprit)
        self._plain = False

    # -- time ----------------------------------------------------------------------------------------------------------

    def wakes_at_ms(self, now_ms: int) -> int | None:
        """When something becomes due without new input; None: nothing. Now or earlier means: pump at once."""
        if self._finished:
            return now_ms
        if self._draining or len(self._waits.lanes) >= self._config.in_flight:
            return None  # nothing can start until an answer comes
        if self._woken:
            return now_ms
        times = [lane.due_ms for lane in self._backoff]
        for partition in self._partitions.values():
            if partition.ready:
                at_ms = partition.wakes_at_ms(now_ms)
                if at_ms is not None:
                    times.append(at_ms)
        return min(times, default=None)

    @property
    def settled(self) -> bool:
        """Nothing is in flight or uncommitted; delivered events may be left."""
        return not self._finished and not self._waits.lanes

    @property
    def idle(self) -> bool:
        """Nothing runs, waits, backs off or is uncommitted, and no delivered event is left."""
        return (
            not self._finished
            and not self._waits.lanes
            and not self._woken
            and not self._backoff
            and all(partition.unfinished == 0 for partition in self._partitions.values())
        )

    def statistics(self) -> EngineStatistics:
        counts = self._counts
        return EngineStatistics(
            tuple(
                PartitionStatistics(
                    partition.number,
                    partition.ready,
                    partition.unfinished,
                    len(partition.lanes),
                    len(partition.timers),
                    sum(map(len, partition.parked.values())),
                    {topic: progress.position for topic, progress in partition.progress.items()},
                    {topic: progress.low for topic, progress in partition.progress.items()},
                )
                for partition in self._partitions.values()
            ),
            len(self._waits.lanes),
            len(self._finished),
            counts.steps,
            counts.committed,
            counts.dead_letters,
            counts.parked,
            counts.duplicates,
            counts.retries,
        )

    def parked_rows(self) -> list[ParkedRow]:
        """Parked events of the owned partitions."""
        return [
            row
            for partition in self._partitions.values()
            for rows in partition.parked.values()
            for row in rows.values()
        ]


def _step_name(partition: Partition, trigger: Trigger) -> StepName:
    return partition.number, trigger.entity, trigger.envelope.event_id, trigger.source


def _done_name(done: Done) -> StepName:
    return done.partition.number, done.entity, done.event_id, done.source
