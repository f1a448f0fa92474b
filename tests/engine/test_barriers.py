"""Before it reads, a restore writes: a mark among the group's offsets, and a record into every state topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from choreo.errors import EngineError, HostError
from choreo.runtime import kafka_config
from choreo.runtime.barrier import KEY, Mark, written_ends
from choreo.testing.broker import RunningBroker
from tests.engine.live import Live

MARK = Mark([TopicPartition("j", 0), TopicPartition("j", 1)], "m")


def test_mark_is_left_at_every_place() -> None:
    left: list[TopicPartition] = []
    MARK.leave(left.extend)
    assert [(one.topic, one.partition, one.metadata) for one in left] == [("j", 0, "m"), ("j", 1, "m")]


@pytest.mark.parametrize(
    ("metadata", "right"),
    [(["m", "m"], True), (["m", "l"], False), (["m", ""], False)],
)
def test_every_place_has_to_show_the_mark(metadata: list[str], right: bool) -> None:
    places = [TopicPartition("j", number, 0, one) for number, one in enumerate(metadata)]
    assert MARK.stands_in(places) is right


class Writer:
    """A producer whose records get the offsets; None: an error instead."""

    def __init__(self, *offsets: int | None, left: int = 0) -> None:
        self.offsets, self.left = list(offsets), left
        self.reports: list[tuple[Callable[..., None], Any]] = []
        self.calls: list[str] = []

    def init_transactions(self, timeout_s: float) -> None:
        self.calls.append("init")

    def begin_transaction(self) -> None:
        self.calls.append("begin")

    def produce(
        self, topic: str, value: None, key: bytes, partition: int, report: Callable[..., None], *, headers: list[Any]
    ) -> None:
        assert (key, headers) == (KEY, [])
        self.reports.append((report, _Written(topic, partition, self.offsets.pop(0))))

    def flush(self, timeout_s: float) -> int:
        for report, message in self.reports[: len(self.reports) - self.left]:
            report(None if message.at is not None else KafkaError(KafkaError._MSG_TIMED_OUT), message)
        return self.left

    def abort_transaction(self, timeout_s: float) -> None:
        self.calls.append("abort")


class _Written:
    def __init__(self, topic: str, partition: int, at: int | None) -> None:
        self.place, self.at = (topic, partition), at

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def offset(self) -> int | None:
        return self.at


def test_ends_are_what_follows_the_acknowledged_records() -> None:
    writer = Writer(4, 0)
    assert written_ends({}, "b", [("t", 0), ("t", 1)], lambda _: writer) == {("t", 0): 5, ("t", 1): 1}
    assert writer.calls == ["init", "begin", "abort"]


@pytest.mark.parametrize("writer", [Writer(4, None), Writer(4, 0, left=1)], ids=["refused", "late"])
def test_a_record_without_acknowledgement_ends_the_session(writer: Writer) -> None:
    with pytest.raises(HostError) as caught:
        written_ends({}, "b", [("t", 0), ("t", 1)], lambda _: writer)
    assert caught.value.code == "CH0801"


def test_a_missing_acl_says_so() -> None:
    class Denied(Writer):
        def init_transactions(self, timeout_s: float) -> None:
            raise KafkaException(KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED))

    with pytest.raises(EngineError) as caught:
        written_ends({}, "b", [("t", 0)], lambda _: Denied(1))
    assert caught.value.code == "CH0805"


def test_an_exception_that_a_delivery_report_covered_is_found() -> None:
    class Covered(Writer):
        def flush(self, timeout_s: float) -> int:
            raise SystemError("a report ran") from KafkaException(KafkaError(KafkaError._FENCED))

    with pytest.raises(HostError) as caught:
        written_ends({}, "b", [("t", 0)], lambda _: Covered(1))
    assert caught.value.code == "CH0801"


@pytest.mark.kafka
def test_nobody_sees_the_records(kafka_broker: RunningBroker, kafka_topic_prefix: str, tmp_path: Any) -> None:
    live = Live(kafka_broker.bootstrap, f"{kafka_topic_prefix}barrier", tmp_path)
    settings = kafka_config.transactional_producer(live.bootstrap, {}, transactional_id="w:restore")
    places = [(live.output, 0), (live.output, 1)]
    first, second = (written_ends(settings, live.bootstrap, places) for _ in range(2))
    assert all(second[place] > first[place] > 0 for place in places)
    assert live.emitted(live.output, 0) == []
