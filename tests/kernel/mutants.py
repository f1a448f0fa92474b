"""Faults to plant into the engine, its shell or its restore: what a careless change could break.

Each is a function that plants one with ``monkeypatch``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import OffsetSpec

import choreo.kernel.burst as burst_module
import choreo.runtime.log_ends as log_ends_module
import choreo.runtime.restore as restore_module
import choreo.runtime.transaction as transaction_module
import tests.kernel.clients as clients_module
import tests.kernel.pointed as pointed_module
from choreo.kernel.burst import Burst, Done
from choreo.kernel.engine import Engine
from choreo.kernel.event_clock import EventClock
from choreo.kernel.merge import Merge
from choreo.kernel.partition import Partition
from choreo.kernel.progress import Progress, Snapshot
from choreo.kernel.restore import Restored
from choreo.kernel.timers import Timers
from choreo.kernel.values import EntityState, Outcome, Trigger
from choreo.runtime.barrier import Mark
from choreo.runtime.records import InternalRecords
from choreo.runtime.restore import Restorer
from choreo.runtime.session import Session
from choreo.runtime.stores.rocksdb import RocksStore
from choreo.runtime.transaction import Ended, Result, Transaction
from choreo.runtime.unowned import Unowned
from tests.kernel.checks import Broken
from tests.kernel.clients import MemoryConsumer
from tests.kernel.sweep import Missed, strike, targets
from tests.kernel.world import World, run_world

Plant = Callable[[pytest.MonkeyPatch], None]
MUTANTS: dict[str, Plant] = {}


WITNESSES: dict[str, tuple[str, str]] = {}
"""Faults that hardly any world meets by chance: the kind of step and the blow that show them."""
SEEDS_MAX = 400
"""Worlds in which any other planted fault has to show."""


class Notice(NamedTuple):
    """Where a planted fault showed first."""

    worlds: int  # how many were run until then
    where: str
    what: str


def first_notice(name: str, seeds: int = SEEDS_MAX) -> Notice | None:
    """Plants a fault and runs worlds until one notices; None if none does."""
    witness = WITNESSES.get(name)
    chosen = [] if witness is None else [one for one in targets(witness[0], counts=4) if one.blow == witness[1]]
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        if witness is not None:
            kind, blow = witness
            for number, target in enumerate(chosen):
                try:
                    strike(target)
                except Missed:
                    continue  # with the fault in place its steps are others
                except Broken as broken:
                    return Notice(number + 1, f"{kind}, {blow}", _noticed(broken))
            return None
        for seed in range(seeds):
            try:
                run_world(seed, stalls=seed % 2 == 1)
            except Broken as broken:
                return Notice(seed + 1, f"world {seed}", _noticed(broken))
    return None


def _noticed(broken: Broken) -> str:
    """What was noticed; a fault that no longer fits into the code is none that anybody noticed."""
    if isinstance(broken.__cause__, (TypeError, AttributeError, NameError)):
        raise broken
    return str(broken)


def shown_by(kind: str, blow: str) -> Callable[[Plant], Plant]:
    """Says which kind of step and which blow show a planted fault, at one point or another."""

    def named(plant: Plant) -> Plant:
        WITNESSES[plant.__name__.replace("_", " ")] = (kind, blow)
        return plant

    return named


def mutant(plant: Plant) -> Plant:
    MUTANTS[plant.__name__.replace("_", " ")] = plant
    return plant


# -- the engine --------------------------------------------------------------------------------------------------------


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
@shown_by("an aborted burst", "crash")
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
    honest = restore_module.decode_metadata

    def decode(low: int, metadata: str) -> tuple[Snapshot, str]:
        return Snapshot(low, ()), honest(low, metadata)[1]

    patch.setattr(restore_module, "decode_metadata", decode)


@mutant
def void_offsets_count_as_open(patch: pytest.MonkeyPatch) -> None:
    """The first commit marker freezes the group."""
    patch.setattr(Progress, "reach_end", lambda self, offset: None)


@mutant
def timers_are_not_deleted_when_they_fire(patch: pytest.MonkeyPatch) -> None:
    honest = Partition.apply

    def apply(self: Partition, done: Done, trigger: Trigger, state: EntityState | None) -> None:
        timer, trigger.timer = trigger.timer, None
        honest(self, done, trigger, state)
        trigger.timer = timer

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

    def apply(self: Partition, done: Done, trigger: Trigger, state: EntityState | None) -> None:
        honest(self, done, trigger, state)
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
def a_topic_jumps_the_merge(patch: pytest.MonkeyPatch) -> None:
    def release(self: Merge[Any], now_ms: int) -> Any:
        for buffer in self._buffers.values():
            if buffer:
                return buffer.pop()[1]
        return None

    patch.setattr(Merge, "release", release)


@mutant
@shown_by("an aborted burst", "crash")
def an_aborted_burst_goes_again_in_another_order(patch: pytest.MonkeyPatch) -> None:
    honest = Engine.put_back

    def put_back(self: Engine, burst: Burst) -> None:
        burst.steps.reverse()
        honest(self, burst)

    patch.setattr(Engine, "put_back", put_back)


@mutant
def an_aborted_burst_stays_finished(patch: pytest.MonkeyPatch) -> None:
    """Its offsets go out with the next burst, its rows with a later one or never."""
    patch.setattr(Partition, "reopen", lambda self, dones: list(dones) and None)


@mutant
def parked_rows_are_not_written(patch: pytest.MonkeyPatch) -> None:
    honest = Partition.apply

    def apply(self: Partition, done: Done, trigger: Trigger, state: EntityState | None) -> None:
        honest(self, done, trigger, state)
        done.parked.clear()

    patch.setattr(Partition, "apply", apply)


@mutant
def parked_rows_are_not_restored(patch: pytest.MonkeyPatch) -> None:
    honest = Partition.restore
    patch.setattr(Partition, "restore", lambda self, restored: honest(self, restored._replace(parked=[])))


@mutant
def timers_are_not_restored(patch: pytest.MonkeyPatch) -> None:
    honest = Partition.restore
    patch.setattr(Partition, "restore", lambda self, restored: honest(self, restored._replace(timers=[])))


@mutant
def decision_numbers_start_over_at_restart(patch: pytest.MonkeyPatch) -> None:
    honest = Partition.restore

    def restore(self: Partition, restored: Restored) -> None:
        bare = {entity: EntityState(0, state.seen) for entity, state in restored.entities.items()}
        honest(self, restored._replace(entities=bare))

    patch.setattr(Partition, "restore", restore)


@mutant
def a_refused_burst_names_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Engine, "refuse_burst", lambda self, burst: None)


@mutant
def calls_start_before_the_rows_they_rest_on(patch: pytest.MonkeyPatch) -> None:
    def calls_to_start(self: Engine, **_: bool) -> list[Any]:
        calls, self._waits.to_start = self._waits.to_start, []
        return calls

    patch.setattr(Engine, "calls_to_start", calls_to_start)


@mutant
def answers_of_dropped_steps_are_taken(patch: pytest.MonkeyPatch) -> None:
    honest = Engine._drop

    def drop(self: Engine, partition: Partition) -> None:
        lanes = dict(self._waits.lanes)
        honest(self, partition)
        self._waits.lanes.update(lanes)

    patch.setattr(Engine, "_drop", drop)


@mutant
def a_position_ahead_of_unread_input_is_committed(patch: pytest.MonkeyPatch) -> None:
    """Counts what was fetched as finished, as a plain consumer's position would."""
    honest = Progress.snapshot
    patch.setattr(Progress, "snapshot", lambda self: Snapshot(max(honest(self).low, self.position), ()))


@mutant
def held_back_steps_are_dropped(patch: pytest.MonkeyPatch) -> None:
    honest = burst_module._hold_back

    def hold_back(partition: Partition, chosen: list[Done], finished: deque[Done], owner: str) -> list[Done]:
        return honest(partition, chosen, deque(), owner)

    patch.setattr(burst_module, "_hold_back", hold_back)


@mutant
def offset_maps_are_cut_off_where_they_do_not_fit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(burst_module, "_fits", lambda commits: True)
    honest = burst_module.encode_metadata

    def encode(snapshot: Snapshot, owner: str) -> str:
        full = honest(snapshot, owner)
        return full if len(full) <= burst_module.METADATA_CHARS_MAX else honest(Snapshot(snapshot.low, ()), owner)

    patch.setattr(burst_module, "encode_metadata", encode)


# -- the session -------------------------------------------------------------------------------------------------------


@mutant
@shown_by("a commit of unknown outcome", "crash")
def an_unknown_outcome_counts_as_aborted(patch: pytest.MonkeyPatch) -> None:
    honest = Session._not_committed

    def not_committed(self: Session, burst: Burst, ended: Ended) -> None:
        honest(self, burst, ended._replace(result=Result.ABORTED) if ended.result is Result.UNKNOWN else ended)

    patch.setattr(Session, "_not_committed", not_committed)


@mutant
@shown_by("a commit of unknown outcome", "crash")
def an_unknown_outcome_counts_as_committed(patch: pytest.MonkeyPatch) -> None:
    honest = Transaction.finish

    def finish(self: Transaction, offsets: Any) -> Ended:
        ended = honest(self, offsets)
        return ended._replace(result=Result.COMMITTED) if ended.result is Result.UNKNOWN else ended

    patch.setattr(Transaction, "finish", finish)


@mutant
def an_aborted_transaction_counts_as_committed(patch: pytest.MonkeyPatch) -> None:
    honest = Transaction.finish

    def finish(self: Transaction, offsets: Any) -> Ended:
        ended = honest(self, offsets)
        return ended._replace(result=Result.COMMITTED) if ended.result is Result.REBALANCING else ended

    patch.setattr(Transaction, "finish", finish)


@mutant
def a_fenced_worker_starts_over(patch: pytest.MonkeyPatch) -> None:
    """Two workers of one name fence each other for ever."""
    honest = Session._not_committed

    def not_committed(self: Session, burst: Burst, ended: Ended) -> None:
        honest(self, burst, ended._replace(result=Result.UNKNOWN) if ended.result is Result.FENCED else ended)

    patch.setattr(Session, "_not_committed", not_committed)
    patch.setattr(Transaction, "probe", lambda self, topic: Result.ABORTED)


@mutant
def stores_take_rows_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    honest = InternalRecords.produced

    def produced(self: InternalRecords, burst: Burst, **topics: Any) -> Any:
        session: Any = pointed_module.current().session
        records = honest(self, burst, **topics)
        ends = {
            (one.topic, one.partition): session._process.world.bus.end_offset(one.topic, one.partition)
            for one in records[1]
        }
        session._transaction.ends = ends
        session._apply(burst)
        return records

    patch.setattr(InternalRecords, "produced", produced)


@mutant
def stores_never_take_rows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "_apply", lambda self, burst: None)


@mutant
@shown_by("an old leader", "late")
def offsets_are_sent_before_the_records(patch: pytest.MonkeyPatch) -> None:
    """Harmless alone, as the next one is: two defences against the same schedule."""
    honest = Transaction._finish

    def finish(self: Transaction, offsets: Any) -> Ended:
        producer: Any = self._producer
        late, producer._queue = producer._queue, deque()
        flush, send = producer.flush, producer.send_offsets_to_transaction

        def send_offsets(*arguments: Any) -> None:
            send(*arguments)
            producer._queue = late
            producer.process.switch()
            flush(1.0)

        producer.send_offsets_to_transaction = send_offsets
        try:
            return honest(self, offsets)
        finally:
            del producer.send_offsets_to_transaction

    patch.setattr(Transaction, "_finish", finish)
    patch.setattr(clients_module, "EARLY", 0.0)
    _a_restore_reads_the_ends_first(patch)


def _a_restore_reads_the_ends_first(patch: pytest.MonkeyPatch) -> None:
    honest, ends_of = Restorer._committed, Restorer._state_ends

    def committed(self: Any, ticket: int, numbers: tuple[int, ...]) -> Any:
        self.early = ends_of(self, numbers, lambda: True)
        return honest(self, ticket, numbers)

    patch.setattr(Restorer, "_committed", committed)
    patch.setattr(Restorer, "_state_ends", lambda self, numbers, is_wanted: self.early)


@mutant
def a_zombie_commits_with_the_membership_of_its_second_life(patch: pytest.MonkeyPatch) -> None:
    """The group metadata is read when the offsets are sent, and the callbacks drop nothing first."""
    honest, begin = Transaction._finish, Transaction.begin

    def begun(self: Any, records: Any, reported: Any, consumer: Any) -> Any:
        self.consumer = consumer
        return begin(self, records, reported, consumer)

    def finish(self: Any, offsets: Any) -> Ended:
        self._producer.flush(1.0)
        self._metadata = self.consumer.consumer_group_metadata()
        return honest(self, offsets)

    def on_lost(self: Any, consumer: Any, lost: Any) -> None:
        consumer.incremental_unassign([])

    def on_assign(self: Any, consumer: Any, assigned: Any) -> None:
        assigned_before(self, consumer, [one for one in assigned if not self.engine.owns(one.partition)])

    assigned_before = Session._on_assign
    patch.setattr(Transaction, "begin", begun)
    patch.setattr(Transaction, "_finish", finish)
    patch.setattr(Session, "_on_lost", on_lost)
    patch.setattr(Session, "_on_assign", on_assign)


@mutant
def a_revocation_keeps_the_partitions(patch: pytest.MonkeyPatch) -> None:
    honest = Session._forget
    patch.setattr(Session, "_forget", lambda self, numbers: honest(self, set()))


@mutant
@shown_by("an event with a row", "last zombie")
def metadata_of_no_member_is_sent(patch: pytest.MonkeyPatch) -> None:
    """A group that is empty at the moment accepts it like an administrator's."""
    patch.setattr(transaction_module, "is_member", lambda metadata: True)


@mutant
def a_restore_that_was_given_up_is_taken(patch: pytest.MonkeyPatch) -> None:
    honest = Session._take_result

    def take(self: Any, result: Any) -> None:
        if self.engine.owns(result.number) and not self.engine._partitions[result.number].ready:
            self._tickets[result.number] = result.ticket
        honest(self, result)

    patch.setattr(Session, "_take_result", take)
    patch.setattr(Restorer, "forget", lambda self, numbers: None)
    patch.setattr(Restorer, "_hand_over", lambda self, result: self.results.put(result))
    patch.setattr(Restorer, "_is_wanted", lambda self, ticket: True)


@mutant
def fetching_starts_one_too_late(patch: pytest.MonkeyPatch) -> None:
    honest = MemoryConsumer.incremental_assign

    def assign(self: Any, places: Any) -> None:
        honest(self, [type(one)(one.topic, one.partition, one.offset + 1) for one in places])

    patch.setattr(MemoryConsumer, "incremental_assign", assign)


@mutant
def backpressure_never_ends(patch: pytest.MonkeyPatch) -> None:
    honest = Session._throttle

    def throttle(self: Any) -> None:
        paused = set(self._paused)
        honest(self)
        if self._paused < paused:
            self._consumer.pause([TopicPartition(*place) for place in paused - self._paused])

    patch.setattr(Session, "_throttle", throttle)


@mutant
@shown_by("a stop without patience", "crash")
def the_waiting_thread_ends_before_the_last_revocation(patch: pytest.MonkeyPatch) -> None:
    """Found by a world: an orderly stop then waited for ever."""
    honest = Session.close

    def close(self: Any, *, orderly: bool) -> None:
        self._committer.close()
        honest(self, orderly=orderly)

    patch.setattr(Session, "close", close)


# -- the restore -------------------------------------------------------------------------------------------------------


@mutant
@shown_by("a burst over partitions", "dangling")
def a_restore_reads_the_ends_at_read_committed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Restorer, "_state_ends", _asked_ends)
    committed = SimpleNamespace(READ_UNCOMMITTED=IsolationLevel.READ_COMMITTED)
    patch.setattr(log_ends_module, "IsolationLevel", committed)


@mutant
@shown_by("an old leader", "takeover")
def a_restore_believes_old_ends(patch: pytest.MonkeyPatch) -> None:
    """As a node names them that does not know yet that others lead."""
    patch.setattr(Restorer, "_state_ends", _asked_ends)


def _asked_ends(self: Any, numbers: tuple[int, ...], is_wanted: object) -> dict[tuple[str, int], int]:
    return self._offsets(self._state_topics(), numbers, OffsetSpec.latest())  # type: ignore[no-any-return]


@mutant
@shown_by("an old coordinator", "takeover")
def a_restore_believes_old_offsets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Mark, "stands_in", lambda self, answer: True)


@mutant
@shown_by("a call", "zombie")
def a_restore_takes_unstable_offsets(patch: pytest.MonkeyPatch) -> None:
    honest = Restorer._group_client
    patch.setattr(Restorer, "_group_client", lambda self, *, stable: honest(self, stable=False))


@mutant
def a_restore_reads_uncommitted_rows(patch: pytest.MonkeyPatch) -> None:
    honest = restore_module.reader
    patch.setattr(
        restore_module, "reader", lambda bootstrap, security: honest(bootstrap, security, read_committed=False)
    )


@mutant
def a_restore_ends_with_the_first_topic(patch: pytest.MonkeyPatch) -> None:
    honest = Restorer._prepare

    def prepare(self: Any, building: Any, ends: Any) -> Any:
        places = honest(self, building, ends)[:1]
        building.pending = {place.topic for place in places}
        return places

    patch.setattr(Restorer, "_prepare", prepare)


@mutant
def abandoned_transactions_are_left_open(patch: pytest.MonkeyPatch) -> None:
    """Heirs wait until the coordinator ends them: more than a restore may take."""
    patch.setattr(Restorer, "_end_transactions", lambda self, owners: True)
    patch.setattr(World, "_time_out_transactions", lambda self: None)


@mutant
@shown_by("rows on disk", "last zombie")
def a_store_on_disk_is_thought_to_be_further_than_it_is(patch: pytest.MonkeyPatch) -> None:
    honest = RocksStore.apply

    def apply(self: Any, writes: Any, next_offset: int | None, at_ms: int) -> None:
        honest(self, writes, None if next_offset is None else next_offset + 5, at_ms)

    patch.setattr(RocksStore, "apply", apply)


@mutant
@shown_by("partitions of nobody", "crash")
def partitions_of_nobody_stay_with_nobody(patch: pytest.MonkeyPatch) -> None:
    """A static member that died between giving up and joining again comes back without a rebalance."""
    patch.setattr(Unowned, "found", lambda self, now_ms: frozenset())
