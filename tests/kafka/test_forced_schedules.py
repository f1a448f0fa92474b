"""Schedules that go wrong without a rule of the engine, each forced on a real broker.

The schedules are forced, not hoped for: a client of the test plays the zombie, the dead owner or the careless producer,
with confluent-kafka alone; the worker under test is ``faust -A agents.counter worker``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import OffsetSpec

from choreo.testing.broker import RunningBroker
from tests.chaos import reader
from tests.chaos.feeder import Feed
from tests.chaos.project_copy import counting
from tests.chaos.run import Run
from tests.chaos.target import Target

pytestmark = pytest.mark.kafka

CALL_S = 30.0


def transactional(bootstrap: str, transactional_id: str, *, timeout_ms: int = 60_000) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": timeout_ms,
            "partitioner": "murmur2_random",
            "metadata.recovery.strategy": "none",
            "log_level": 0,
        }
    )
    producer.init_transactions(CALL_S)
    return producer


@contextmanager
def member(target: Target) -> Iterator[Consumer]:
    """A member of the worker's own group that leaves it when it is closed."""
    consumer = Consumer(
        {
            "bootstrap.servers": target.bootstrap,
            "group.id": target.group,
            "partition.assignment.strategy": "cooperative-sticky",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "metadata.recovery.strategy": "none",
            "log_level": 0,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def write_row(producer: Producer, target: Target, partition: int, entity: str, total: int) -> None:
    value = target.row.encode({"entity": entity, "total": total})
    producer.produce(target.changelog, key=entity.encode(), value=value, partition=partition)


def test_rows_of_a_late_commit_are_not_missed_by_a_restore(kafka_broker: RunningBroker, tmp_path: Path) -> None:
    """Rule: stable committed offsets first, then the changelogs' ends, then the rows.

    A sends offsets within its transaction while its rows are still to come, and pauses. B takes over and restores. A
    goes on: rows, outputs, commit; all of that is valid. Had B looked for the changelog's end before it asked for the
    offsets, it would start behind A's inputs with an empty table.
    """
    target = counting(kafka_broker.bootstrap, tmp_path, "latecommit")
    with Run(target, seed=21, workers=1, feed=Feed(target.inputs, keys=40)) as run:
        run.feeder.pump(200)
        (arrivals,) = target.inputs
        zombie = transactional(target.bootstrap, "late-zombie")
        taken = []
        with member(target) as consumer:
            consumer.subscribe([arrivals])
            deadline = time.monotonic() + CALL_S
            while len(taken) < 200 and time.monotonic() < deadline:
                taken += [message for message in consumer.consume(500, 0.5) if message.error() is None]
            ends: dict[int, int] = {}
            for message in taken:
                ends[message.partition()] = message.offset() + 1
            zombie.begin_transaction()
            offsets = [TopicPartition(arrivals, partition, offset) for partition, offset in ends.items()]
            zombie.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), CALL_S)
        worker = run.join(run.workers[0])
        time.sleep(2)  # a restore takes a fraction of this; it must be waiting for the offsets now
        assert len(run.follower) == 0, "the worker started although the group's offsets were not stable"
        totals: dict[str, int] = {}
        for message in taken:
            entity = message.key().decode()
            totals[entity] = totals.get(entity, 0) + 1
            event = target.inputs[arrivals].decode(message.value())
            write_row(zombie, target, message.partition(), entity, totals[entity])
            zombie.produce(
                target.output,
                key=message.key(),
                value=target.event.encode({**event, "total": totals[entity], "padding": b""}),
                headers=[("ce_causationid", dict(message.headers())["ce_id"])],
            )
        zombie.commit_transaction(CALL_S)
        run.finish()
        live = run.live_rows()
        assert worker.alive
        run.stop_workers()
        run.report(live=live, faults=False).require()


def test_an_open_transaction_holds_up_its_own_partition_only(kafka_broker: RunningBroker, tmp_path: Path) -> None:
    """Rules: ends are asked for at READ_UNCOMMITTED (a read_committed consumer's watermark is the last stable offset);
    the restore runs beside the group, and a partition resumes when it is ready.

    An unknown producer leaves a transaction open on one changelog partition. Up to the last stable offset there is
    nothing to read, so that a restore which trusts it starts at once; rows of the transaction would be missed. The
    other partitions, and a second worker that joins, must not wait.
    """
    target = counting(kafka_broker.bootstrap, tmp_path, "openend")
    with Run(target, seed=22, workers=1, feed=Feed(target.inputs, keys=60)) as run:
        blocker = transactional(target.bootstrap, "unknown-owner")
        blocker.begin_transaction()
        write_row(blocker, target, 0, "nobody", 99)
        blocker.flush(CALL_S)
        run.feeder.start()
        run.join(run.workers[0])
        others = range(1, target.partitions)
        run.follower.wait(
            lambda: all(run.follower.counts()[number] >= 5 for number in others),
            stalled_s=20,
            why="outputs of the partitions that nobody holds up",
        )
        run.join(target.worker("w1"))
        time.sleep(2)  # an heir loses patience after half a second; whom it fences then must not be a live worker
        ends = run.follower.ends()
        run.follower.wait(
            lambda: all(run.follower.count_from(number, ends[number]) >= 5 for number in others),
            stalled_s=20,
            why="outputs while a second worker is there",
        )
        assert run.follower.counts()[0] == 0, "partition 0 started before its changelog was stable"
        blocker.abort_transaction(CALL_S)
        run.progress_everywhere(5)
        run.finish()
        live = run.live_rows()
        assert all(worker.alive for worker in run.workers), "a live worker was fenced for another's transaction"
        run.stop_workers()
        run.report(live=live, faults=False).require()


def open_transaction(target: Target) -> bool:
    """Whether some changelog partition holds records whose transaction is neither committed nor aborted."""
    client = reader.admin(target.bootstrap)
    places = [TopicPartition(target.changelog, number) for number in range(target.partitions)]
    stable = client.list_offsets(
        dict.fromkeys(places, OffsetSpec.latest()), isolation_level=IsolationLevel.READ_COMMITTED
    )
    ends = reader.ends(target.bootstrap, target.changelog)
    return any(future.result(CALL_S).offset < ends[place.partition] for place, future in stable.items())


def test_an_heir_ends_the_open_transaction_of_a_dead_worker(kafka_broker: RunningBroker, tmp_path: Path) -> None:
    """Rule: the committed metadata names the owner's transactional id, and ``init_transactions`` on it ends what the
    owner left open. Without it the heir waits for the transaction's timeout, some 16 s after the kill at the least;
    with it, for the dead worker's session (6 s) only."""
    target = counting(kafka_broker.bootstrap, tmp_path, "heir", latency_s=0.2)
    with Run(target, seed=23, workers=1, feed=Feed(target.inputs, keys=60)) as run:
        run.begin()
        owner = run.workers[0]
        run.plan("open transaction")
        for _ in range(15):
            run.progress_everywhere(1)
            time.sleep(run.chance.random() * 0.1)
            assert owner.kill()
            if open_transaction(target):
                break
            owner.start()
        killed_at = time.monotonic()
        run.note("open transaction", fired=open_transaction(target))
        run.join(target.worker("heir"))
        run.progress_everywhere(1)
        waited_s = time.monotonic() - killed_at
        assert waited_s < 13.0, f"the heir committed {waited_s:.1f} s after the kill"
        run.end().require()


def test_of_two_workers_with_one_name_the_newer_wins(kafka_broker: RunningBroker, tmp_path: Path) -> None:
    """Rule: fenced means exit, never rejoin. Two that both rejoin throw each other out for ever."""
    target = counting(kafka_broker.bootstrap, tmp_path, "samename")
    with Run(target, seed=24, workers=1) as run:
        run.begin()
        older = run.workers[0]
        run.plan("same name")
        newer = run.join(target.worker("w0"))  # same name, same log file
        code = older.wait_exit(30)
        run.note("same name", fired=code == 1)
        assert "CH0306" in older.log()
        run.progress_everywhere(5)
        assert newer.alive
        run.end().require()


def test_wrong_group_offsets_stop_their_partition_and_say_why(kafka_broker: RunningBroker, tmp_path: Path) -> None:
    """Rules: ``auto.offset.reset=error``; committed offsets are compared with the journal's checkpoint and the log.

    Partition 0: somebody moved the group back. Partition 1: retention deleted input that was not read. Both would
    repeat or skip events silently; both stop. Partitions 2 and 3 go on.
    """
    target = counting(kafka_broker.bootstrap, tmp_path, "offsets")
    (arrivals,) = target.inputs
    with Run(target, seed=25, workers=1, feed=Feed(target.inputs, keys=60)) as run:
        run.begin()
        worker = run.workers[0]
        run.finish()
        assert worker.stop() == 0
        before = run.follower.ends()
        run.feeder.pump(200)
        client = reader.admin(target.bootstrap)
        log_ends = reader.ends(target.bootstrap, arrivals)
        # The worker is a static member; its session has to end before anybody may alter the group's offsets.
        deadline = time.monotonic() + CALL_S
        moved = ConsumerGroupTopicPartitions(target.group, [TopicPartition(arrivals, 0, 1)])
        while True:
            (future,) = client.alter_consumer_group_offsets([moved]).values()
            failure = future.exception(CALL_S)
            if failure is None and all(place.error is None for place in future.result().topic_partitions):
                break
            assert time.monotonic() < deadline, failure
            time.sleep(0.2)
        for future in client.delete_records([TopicPartition(arrivals, 1, log_ends[1])]).values():
            future.result(CALL_S)
        worker.start()
        run.follower.wait(
            lambda: all(run.follower.count_from(number, before[number]) >= 5 for number in (2, 3)),
            stalled_s=20,
            why="outputs of the partitions whose offsets are right",
        )
        log = worker.log()
        assert "CH0307" in log and f"{arrivals}/0" in log
        assert "CH0308" in log and f"{arrivals}/1" in log
        assert run.follower.count_from(0, before[0]) == 0
        assert run.follower.count_from(1, before[1]) == 0
        run.stop_workers()
