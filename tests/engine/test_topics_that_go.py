"""Input topics that are deleted, or made again under their old name: their partitions stop and say so."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic

from choreo.runtime import facts
from choreo.runtime.topic_watch import LOOK_EVERY_MS, TopicWatch
from choreo.testing.broker import RunningBroker
from tests.engine.live import Live, running, wait_until
from tests.engine.looks import answers


@pytest.mark.kafka
@pytest.mark.parametrize("again", [False, True], ids=["deleted", "made again"])
def test_an_input_topic_that_goes_stops_its_partitions_and_says_so(
    kafka_broker: RunningBroker, kafka_topic_prefix: str, tmp_path: Path, again: bool
) -> None:
    live = Live(kafka_broker.bootstrap, f"{kafka_topic_prefix}gone", tmp_path)
    live.feed([(b"k%d" % (number % 5), b"now-%d" % number) for number in range(40)])
    worker = live.shell("w0")
    with running(worker):
        live.emitted(live.output, 40)
        live.admin.delete_topics([live.input])[live.input].result(30)
        if again:
            wait_until(lambda: live.input not in live.admin.list_topics(timeout=30).topics, "the topic is gone")
            live.admin.create_topics([NewTopic(live.input, live.partitions, 1)])[live.input].result(30)
        wait_until(lambda: len(worker.status().stopped) == live.partitions, "all partitions are stopped")
        status = worker.status()
    assert not status.ready
    assert all("CH0308" in message and "deleted" in message for message in status.stopped.values())
    assert not live.failures


def found(monkeypatch: pytest.MonkeyPatch, *looks: dict[str, str | None] | Exception) -> list[frozenset[str]]:
    """What each look finds of topics ``in`` (id 1) and ``inbox`` (id 2); an answer is the id of each, None: gone."""
    left = list(looks)

    def describe(client: Any, names: Iterable[str]) -> dict[str, Any]:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {name: None if (one := answer[name]) is None else SimpleNamespace(topic_id=one) for name in names}

    monkeypatch.setattr(facts, "describe_topics", describe)
    watch = TopicWatch(None, {"in": "1", "inbox": "2"})  # type: ignore[arg-type]
    gone = answers(watch._lookout, watch.gone, every_ms=LOOK_EVERY_MS, times=len(looks))
    watch.stop()
    return gone


NOTHING: frozenset[str] = frozenset()
ALL = {"in": "1", "inbox": "2"}


@pytest.mark.parametrize("what", [{"in": None, "inbox": "2"}, {"in": "9", "inbox": "2"}], ids=["deleted", "made again"])
def test_two_looks_that_agree_make_sure_and_a_topic_is_named_once(
    monkeypatch: pytest.MonkeyPatch, what: dict[str, str | None]
) -> None:
    assert found(monkeypatch, what, what, what, what) == [NOTHING, frozenset({"in"}), NOTHING, NOTHING]


@pytest.mark.parametrize(
    "between",
    [ALL, {"in": None, "inbox": None}, KafkaException(KafkaError(KafkaError._TRANSPORT)), TimeoutError()],
    ids=["all there", "another too", "no answer", "late"],
)
def test_a_look_that_finds_something_else_begins_anew(
    monkeypatch: pytest.MonkeyPatch, between: dict[str, str | None] | Exception
) -> None:
    gone: dict[str, str | None] = {"in": None, "inbox": "2"}
    assert found(monkeypatch, gone, between, gone) == [NOTHING] * 3
    assert found(monkeypatch, ALL, ALL, ALL) == [NOTHING] * 3


def test_engine_threads_never_wait_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    asked = []

    def describe(client: Any, names: Iterable[str]) -> dict[str, Any]:
        asked.append(names)
        assert over.wait(60)
        return {name: SimpleNamespace(topic_id=ALL[name]) for name in names}

    monkeypatch.setattr(facts, "describe_topics", describe)
    watch = TopicWatch(None, ALL)  # type: ignore[arg-type]
    for now_ms in range(1_000, 30_000, 100):
        assert watch.gone(now_ms) == NOTHING
    over.set()
    watch.stop()
    assert len(asked) == 1


def test_whoever_asked_is_freed_when_the_asking_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client holds connections and threads, and a worker's collector rarely looks for cycles."""
    monkeypatch.setattr(facts, "describe_topics", lambda client, names: dict.fromkeys(names))
    watch = TopicWatch(None, ALL)  # type: ignore[arg-type]
    watch.gone(LOOK_EVERY_MS)
    assert watch._lookout.asked is not None
    wait([watch._lookout.asked])
    watch.stop()
    freed = weakref.ref(watch)
    del watch
    wait_until(lambda: freed() is None, "the thread that asked has let go")
