"""No record is skipped at a handover: a partition is fetched from the offset its restore names, and from nowhere else.

A consumer that is assigned at the end of a partition asks the broker where that is. If it is moved by ``seek`` while
the answer is under way, librdkafka (2.16.1) fetches once from the new place, asks again 500 ms later and goes on at the
end: what was written in between never arrives, and no error says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from confluent_kafka import Consumer, TopicPartition

from choreo.runtime import session
from choreo.runtime.shell import EngineShell
from choreo.testing.broker import RunningBroker
from tests.engine.live import Live, running, wait_until

pytestmark = pytest.mark.kafka

EVENTS = 60


class Watched(Consumer):
    """Notes where the engine starts to read."""

    assigned: ClassVar[list[tuple[str, int, int]]] = []

    def incremental_assign(self, partitions: Iterable[TopicPartition], *args: Any, **kwargs: Any) -> None:
        places = list(partitions)
        self.assigned.extend((place.topic, place.partition, place.offset) for place in places)
        super().incremental_assign(places, *args, **kwargs)

    def incremental_unassign(self, partitions: Iterable[TopicPartition], *args: Any, **kwargs: Any) -> None:
        places = list(partitions)
        self.pause(places)  # as backpressure may have done just before
        super().incremental_unassign(places, *args, **kwargs)

    def seek(self, partition: TopicPartition, *args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"seek of {partition}: a late answer of the broker undoes it")


def _events(start: int, end: int) -> list[tuple[bytes, bytes]]:
    return [(b"k%d" % (n % 10), b"k%d:%d" % (n % 10, n)) for n in range(start, end)]


def test_partitions_are_assigned_once_restored_and_where_they_go_on(
    kafka_broker: RunningBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "Consumer", Watched)
    live = Live(kafka_broker.bootstrap, f"explicit{time.time_ns() % 10**9}", tmp_path)
    live.feed(_events(0, EVENTS))
    for life in range(2):
        Watched.assigned = []
        worker = live.shell("w0")
        with running(worker):
            _wait_ready(worker)
            if life:
                live.feed(_events(EVENTS, 2 * EVENTS))
            assert len(live.emitted(live.output, EVENTS * (life + 1))) == EVENTS * (life + 1)
        assert not live.failures
        starts = {number: offset for topic, number, offset in Watched.assigned if topic == live.input}
        assert all(offset >= 0 for _, _, offset in Watched.assigned)
        assert len(Watched.assigned) == 2 * live.partitions, "each partition of the input and of the inbox, once"
        assert set(starts) == set(range(live.partitions))
        if life:
            assert sum(starts.values()) >= EVENTS, "the second life goes on where the first one ended"


def test_partitions_given_up_while_paused_are_read_when_they_come_back(
    kafka_broker: RunningBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka keeps the pause of a partition from one assignment to the next."""
    monkeypatch.setattr(session, "Consumer", Watched)
    live = Live(kafka_broker.bootstrap, f"paused{time.time_ns() % 10**9}", tmp_path)
    first, second = live.shell("w0"), live.shell("w1")
    with running(first):
        live.feed(_events(0, EVENTS))
        assert len(live.emitted(live.output, EVENTS)) == EVENTS
        with running(second):
            wait_until(lambda: _owned(first) == _owned(second) == 1, "each has one")
        wait_until(lambda: _owned(first) == live.partitions, "the first has them back")
        live.feed(_events(EVENTS, 2 * EVENTS))
        assert len(live.emitted(live.output, 2 * EVENTS)) == 2 * EVENTS
    assert not live.failures


def _owned(worker: EngineShell) -> int:
    engine = worker.status().engine
    return 0 if engine is None else sum(partition.ready for partition in engine.partitions)


def _wait_ready(worker: EngineShell) -> None:
    wait_until(lambda: worker.status().ready, "ready")
