"""A static member that dies between giving partitions up and joining again: they must not stay without an owner."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException, TopicPartition

from choreo.runtime import kafka_config
from choreo.runtime.unowned import LOOK_EVERY_MS, Unowned
from choreo.testing.broker import RunningBroker
from tests.engine.live import Live, running, wait_until

# A member with the engine's settings that dies in the callback, before librdkafka joins again.
DIES_WHILE_REVOKING = """
import json, os, sys
from confluent_kafka import Consumer

def assigned(consumer, partitions):
    consumer.incremental_assign(partitions)
    if partitions:
        print(len(partitions), flush=True)

consumer = Consumer(json.loads(sys.argv[1]))
consumer.subscribe([sys.argv[2]], on_assign=assigned, on_revoke=lambda *_: os._exit(9))
while True:
    consumer.poll(0.1)
"""


@pytest.mark.kafka
def test_partitions_given_up_by_a_member_that_died_get_an_owner(
    kafka_broker: RunningBroker, kafka_topic_prefix: str, tmp_path: Path
) -> None:
    """Without ``unowned`` half of the keys of this test are never answered."""
    live = Live(kafka_broker.bootstrap, kafka_topic_prefix + "gap", tmp_path, partitions=4)
    settings = kafka_config.group_consumer(
        live.bootstrap, {}, group=live.group, instance="a", session_timeout_ms=45_000
    )
    settings["auto.offset.reset"] = "earliest"
    first = subprocess.Popen(
        [sys.executable, "-c", DIES_WHILE_REVOKING, json.dumps(settings), live.input], stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline().strip() == "4"
        second, heir = live.shell("b"), live.shell("a")
        with running(second):
            assert first.wait(60) == 9  # it was asked to give half of them to the second
            with running(heir):
                live.feed([(f"k{number}".encode(), b"1") for number in range(40)])
                wait_until(
                    lambda: sum(_steps(shell) for shell in (second, heir)) >= 40, "an answer to each key", timeout_s=60
                )
    finally:
        first.kill()
        first.wait(30)
        if first.stdout is not None:
            first.stdout.close()
    assert live.failures == []


def _steps(shell: Any) -> int:
    status = shell.status()
    return 0 if status.engine is None else status.engine.committed


class Assignment(NamedTuple):
    topic_partitions: list[TopicPartition]


class Member(NamedTuple):
    group_instance_id: str
    assignment: Assignment


class Group(NamedTuple):
    state: ConsumerGroupState
    members: list[Member]


class Client:
    """Answers each look with the next of what it was given; None: no answer yet, an error: that."""

    def __init__(self, *answers: Group | KafkaException | None) -> None:
        self.answers = list(answers)
        self.looks = 0

    def describe_consumer_groups(self, names: list[str], *, request_timeout: float) -> dict[str, Future[Any]]:
        self.looks += 1
        future: Future[Any] = Future()
        answer = self.answers.pop(0)
        if isinstance(answer, KafkaException):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(answer)
        return dict.fromkeys(names, future)


def group(*owned: list[int], state: ConsumerGroupState = ConsumerGroupState.STABLE) -> Group:
    members = [
        Member(f"w{number}", Assignment([TopicPartition("in", partition) for partition in partitions]))
        for number, partitions in enumerate(owned)
    ]
    return Group(state, members)


def look(client: Client, instance: str = "w0", *, times: int) -> list[frozenset[int]]:
    """What each of so many looks finds."""
    watch = Unowned(client, group="g", topic="in", partitions=4, instance=instance)  # type: ignore[arg-type]
    found = []
    for number in range(1, times + 1):
        assert watch.found(number * LOOK_EVERY_MS) == frozenset()  # asks
        found.append(watch.found(number * LOOK_EVERY_MS + 1))
    return found


def test_three_looks_in_a_row_make_sure_and_only_the_first_member_acts() -> None:
    half = group([0], [1])
    assert look(Client(half, half, half, half), times=4) == [frozenset(), frozenset(), frozenset({2, 3}), frozenset()]
    assert look(Client(half, half, half), "w1", times=3) == [frozenset()] * 3


@pytest.mark.parametrize(
    "between",
    [
        group([0, 1], [2, 3]),
        group([0], [2, 3]),
        group([0], [1], state=ConsumerGroupState.PREPARING_REBALANCING),
        group(),
        KafkaException(KafkaError(KafkaError._TRANSPORT)),
    ],
    ids=["all owned", "others missing", "not stable", "empty", "no answer"],
)
def test_a_look_that_finds_something_else_begins_the_count_anew(between: Group | KafkaException) -> None:
    half = group([0], [1])
    assert look(Client(half, half, between, half, half), times=5) == [frozenset()] * 5


def test_one_question_at_a_time_and_none_too_early() -> None:
    client = Client(None)
    watch = Unowned(client, group="g", topic="in", partitions=4, instance="w0")  # type: ignore[arg-type]
    for now_ms in range(1_000, 20_000, 100):
        assert watch.found(now_ms) == frozenset()
    assert client.looks == 1
    client = Client(group([0, 1, 2, 3]), group([0, 1, 2, 3]))
    watch = Unowned(client, group="g", topic="in", partitions=4, instance="w0")  # type: ignore[arg-type]
    for now_ms in range(1_000, 1_000 + LOOK_EVERY_MS, 100):
        watch.found(now_ms)
    assert client.looks == 1
    watch.found(10)  # the clock was set back: it asks rather than wait for the old time to come again
    assert client.looks == 2
