"""The engine thread on a real broker: what must come out, whatever happens to it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from choreo.testing.broker import RunningBroker
from choreo.topology import names
from tests.engine.live import Live, running, wait_until

pytestmark = pytest.mark.kafka

KEYS = 20


@pytest.fixture
def live(kafka_broker: RunningBroker, kafka_topic_prefix: str, tmp_path: Path) -> Live:
    return Live(kafka_broker.bootstrap, "e" + kafka_topic_prefix.rsplit("-", 3)[-2].replace("-", ""), tmp_path)


def _counted(values: list[bytes]) -> dict[bytes, list[int]]:
    """Counts by key, in the order they came out; a value is ``KEY:NUMBER=COUNT``."""
    counts: dict[bytes, list[int]] = {}
    for value in values:
        name, count = value.rsplit(b"=", 1)
        counts.setdefault(name.split(b":")[0].rsplit(b" ")[-1], []).append(int(count))
    return counts


def _events(start: int, end: int) -> list[tuple[bytes, bytes]]:
    return [
        (b"k%d" % (n % KEYS), b"%sk%d:%d" % (b"call " if n % 7 == 0 else b"", n % KEYS, n)) for n in range(start, end)
    ]


def test_input_with_aborted_records_and_a_deleted_beginning_comes_out_once_in_order(live: Live) -> None:
    live.feed([(b"old%d" % n, b"old") for n in range(50)])
    ends = {TopicPartition(live.input, number): number for number in range(live.partitions)}
    deleted = live.admin.delete_records([TopicPartition(live.input, number, 10) for number in ends.values()])
    left = 50 + 2 * live.partitions - sum(future.result(30).low_watermark for future in deleted.values())
    for burst in range(4):
        live.feed(_events(burst * 100, burst * 100 + 100), abort=False)
        live.feed([(b"k1", b"never")], abort=True)
    workers = [live.shell("w0"), live.shell("w1")]
    with running(*workers):
        wait_until(lambda: all(worker.status().ready for worker in workers), "ready")
        values = live.emitted(live.output, 400)
    values = [value for value in live.emitted(live.output, 400) if not value.startswith(b"old")]
    assert not live.failures
    assert left > 0
    counted = _counted(values)
    assert counted == {b"k%d" % key: list(range(1, 400 // KEYS + 1)) for key in range(KEYS)}


def test_step_whose_decision_no_broker_takes_becomes_a_dead_letter_and_the_rest_goes_on(live: Live) -> None:
    live.feed([(b"k%d" % n, b"big" if n in (3, 11) else b"k%d:0" % n) for n in range(KEYS)])
    worker = live.shell("w0")
    with running(worker):
        dead = live.emitted(names.dead_letters(live.topology.name, "a"), 2)
        values = live.emitted(live.output, KEYS - 2)
    assert dead == [b"big", b"big"]
    assert len(values) == KEYS - 2
    assert not live.failures


def test_rocksdb_partitions_that_wander_between_workers_count_on(kafka_broker: RunningBroker, tmp_path: Path) -> None:
    live = Live(kafka_broker.bootstrap, f"wander{tmp_path.name[-1]}{time.time_ns() % 10**9}", tmp_path, store="rocksdb")
    live.feed(_events(0, 200))
    first, second = live.shell("w0"), live.shell("w1")
    with running(first):
        wait_until(lambda: first.status().ready, "the first is ready")
        with running(second):
            live.feed(_events(200, 400))
            wait_until(lambda: second.status().ready, "the second is ready")
            live.emitted(live.output, 400)
        live.feed(_events(400, 600))
        values = live.emitted(live.output, 600)
    assert not live.failures
    assert first.status().as_json()["sessions"] == 1
    assert _counted(values) == {b"k%d" % key: list(range(1, 600 // KEYS + 1)) for key in range(KEYS)}
