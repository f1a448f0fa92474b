"""A static member that dies between giving partitions up and joining again: they must not stay without an owner."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from choreo.runtime import kafka_config
from choreo.runtime.group_look import NO_GROUP, STABLE, Group, Member
from choreo.runtime.unowned import LOOK_EVERY_MS, Unowned, assigned
from choreo.testing.broker import RunningBroker
from tests.engine.live import Live, running, wait_until
from tests.engine.looks import answers

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


class Groups:
    """Answers each look with the next of what it was given; None: no answer before the test ends, an error: that."""

    def __init__(self, *answers: Group | KafkaException | None) -> None:
        self.answers = list(answers)
        self.looks = 0
        self.topics = ["other", "in"]
        self.over = threading.Event()

    def look(self, group: str, timeout_s: float) -> Group:
        self.looks += 1
        answer = self.answers.pop(0)
        if answer is None:
            assert self.over.wait(60)
            return Group(NO_GROUP, ())
        if isinstance(answer, KafkaException):
            raise answer
        return answer

    def list_topics(self, *, timeout: float) -> Any:
        return SimpleNamespace(topics=dict.fromkeys(self.topics))


def assignment(*topics: tuple[str, list[int]]) -> bytes:
    packed = struct.pack(">hi", 1, len(topics))
    for name, partitions in topics:
        packed += struct.pack(">h", len(name)) + name.encode()
        packed += struct.pack(f">i{len(partitions)}i", len(partitions), *partitions)
    return packed + struct.pack(">i", -1)  # no user data


def group(*owned: list[int], state: str = STABLE) -> Group:
    members = (
        Member(f"w{number}-id", f"w{number}", assignment(("other", [0, 1, 2, 3]), ("in", partitions)))
        for number, partitions in enumerate(owned)
    )
    return Group(state, tuple(members))


def watch_of(groups: Groups, member_id: str = "w0-id") -> Unowned:
    return Unowned(groups, groups, group="g", topic="in", partitions=4, member_id=lambda: member_id)


def look(groups: Groups, member_id: str = "w0-id", *, times: int) -> list[frozenset[int]]:
    """What each of so many looks finds."""
    watch = watch_of(groups, member_id)
    found = answers(watch._lookout, watch.found, every_ms=LOOK_EVERY_MS, times=times)
    watch.stop()
    return found


def test_three_looks_in_a_row_make_sure_and_only_the_first_member_acts() -> None:
    half = group([0], [1])
    assert look(Groups(half, half, half, half), times=4) == [frozenset(), frozenset(), frozenset({2, 3}), frozenset()]
    assert look(Groups(half, half, half), "w1-id", times=3) == [frozenset()] * 3


@pytest.mark.parametrize(
    "between",
    [
        group([0, 1], [2, 3]),
        group([0], [2, 3]),
        group([0], [1], state="preparing rebalance"),
        group(),
        group([], []),
        KafkaException(KafkaError(KafkaError._TRANSPORT)),
    ],
    ids=["all owned", "others missing", "not stable", "empty", "topic gone", "no answer"],
)
def test_a_look_that_finds_something_else_begins_the_count_anew(between: Group | KafkaException) -> None:
    half = group([0], [1])
    groups = Groups(half, half, between, half, half)
    groups.topics.remove("in")  # asked for only where nobody owns anything
    assert look(groups, times=5) == [frozenset()] * 5


def test_partitions_that_were_all_given_up_are_found() -> None:
    """A topic of one partition, for instance: nobody owns anything, and it is not the topic that is gone."""
    nobody = group([], [])
    assert look(Groups(nobody, nobody, nobody), times=3)[-1] == frozenset({0, 1, 2, 3})


def test_one_question_at_a_time_and_none_too_early() -> None:
    groups = Groups(None)
    watch = watch_of(groups)
    for now_ms in range(1_000, 20_000, 100):
        assert watch.found(now_ms) == frozenset()
    groups.over.set()
    watch.stop()
    assert groups.looks == 1
    groups = Groups(group([0, 1, 2, 3]), group([0, 1, 2, 3]))
    watch = watch_of(groups)
    for now_ms in range(1_000, 1_000 + LOOK_EVERY_MS, 100):
        watch.found(now_ms)
        wait([watch._lookout.asked] if watch._lookout.asked is not None else [])
    assert groups.looks == 1
    watch.found(10)  # the clock was set back: it asks rather than wait for the old time to come again
    assert watch._lookout.asked is not None
    wait([watch._lookout.asked])
    watch.stop()
    assert groups.looks == 2


def test_members_without_partitions_are_members() -> None:
    assert assigned(b"", "in") == []
    assert assigned(assignment(), "in") == []
    assert assigned(assignment(("a", [1]), ("in", [2, 3]), ("b", [])), "in") == [2, 3]
