"""Real workers on a real Kafka: choreo's engine under Faust, plain Faust beside it, `choreo.Producer` in front."""

from __future__ import annotations

import signal
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import choreo
from choreo.kernel.envelope import parse_headers
from choreo.kernel.values import Delivery, InputTopic
from choreo.runtime.project import Project
from choreo.runtime.topic_reader import read_topic
from choreo.testing.broker import RunningBroker
from tests.host.cluster import prepare, wait_for, worker

pytestmark = pytest.mark.kafka
EVENTS = 40


@pytest.fixture
def cluster(shop: Path, kafka_broker: RunningBroker, kafka_topic_prefix: str) -> tuple[Project, str]:
    """The shop under a topology name of its own, so that runs share a broker."""
    name = kafka_topic_prefix.strip("-").replace("-", "_")[-60:].lstrip("_0123456789")
    file = shop / "topologies/shop.yaml"
    text = file.read_text().replace("topology: shop", f"topology: {name}")
    for topic in ("orders", "totals", "copies"):
        text = text.replace(f"{topic}:", f"{kafka_topic_prefix}{topic}:").replace(
            f"[{topic}]", f"[{kafka_topic_prefix}{topic}]"
        )
    file.write_text(text)
    counter = shop / "host_counter.py"
    counter.write_text(
        counter.read_text()
        .replace('"orders"', f'"{kafka_topic_prefix}orders"')
        .replace('"copies"', f'"{kafka_topic_prefix}copies"')
    )
    return prepare(shop, kafka_broker.bootstrap), kafka_topic_prefix


def sent(project: Project, bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, int], list[str]]:
    """Orders from outside; the amounts that have to come out, and the events' ids."""
    from host_events import Order  # type: ignore[import-not-found]

    expected: dict[str, int] = defaultdict(int)
    ids = []
    with choreo.Producer(brokers=bootstrap, transactional_id=f"feed-{project.root.name}") as producer:
        for number in range(EVENTS):
            customer = f"customer-{number % 7}"
            expected[customer] += number
            ids.append(producer.send(Order(customer=customer, amount=number), at=datetime(2013, 1, 1, tzinfo=UTC)))
            if number % 10 == 9:
                producer.flush()
    return expected, ids


def values(project: Project, bootstrap: str, topic: str) -> list[tuple[dict[str, Any], Delivery]]:
    from choreo.codec.wire import Decoder

    registry = project.registry(project.load_topology())
    schema = project.schemas().by_name("Total")
    decoder = Decoder(schema, registry.schema_by_id)
    return [(decoder.decode(one.value), one) for one in read_topic(bootstrap, {}, topic) if one.value is not None]


def check_chain(deliveries: list[Delivery], ids: list[str], source: str) -> None:
    """Outputs continue the chains of the inputs: one hop on, caused by exactly these, with ids of their own."""
    envelopes = [parse_headers(one, InputTopic(one.topic)) for one in deliveries]
    assert sorted(one.causation_id for one in envelopes) == sorted(ids)
    assert {one.correlation_id for one in envelopes} == set(ids)
    assert {one.hop for one in envelopes} == {1}
    assert len({one.event_id for one in envelopes}) == len(ids)
    assert {one.time_ms for one in envelopes} == {1_356_998_400_000}
    assert {dict(one.headers)["ce_source"].decode() for one in deliveries} == {source}
    assert all(one.traceparent[3:35] == one.correlation_id for one in envelopes)


def test_an_agent_runs_under_faust_worker_and_drains_on_sigterm(
    cluster: tuple[Project, str], kafka_broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, prefix = cluster
    bootstrap = kafka_broker.bootstrap
    with worker(project.root, "host_adder", CHOREO_BROKERS=bootstrap) as running:
        wait_for(lambda: running.get("/ready")[0] == 200 or running.process.poll(), "the worker to be ready")
        assert running.process.poll() is None, running.output()
        expected, ids = sent(project, bootstrap, monkeypatch)
        totals = wait_for(
            lambda: (found := values(project, bootstrap, f"{prefix}totals")) and len(found) >= EVENTS and found,
            "the totals",
        )
        assert running.get("/health") == (200, {**running.get("/health")[1], "ok": True, "reason": "running"})
        assert running.get("/hello") == (200, {"hello": "world"})
        # the page shows a snapshot that the engine renews twice a second
        status = wait_for(
            lambda: (page := running.get("/status")[1])["engine"]["committed"] >= EVENTS and page, "the page to follow"
        )
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0, running.output()
        log = running.output()
    assert len(totals) == EVENTS
    last = {value["customer"]: value["amount"] for value, _ in totals}
    assert last == expected
    topology = project.load_topology()
    check_chain([delivery for _, delivery in totals], ids, f"/choreo/{topology.name}/adder")
    assert status["ready"] is True
    assert {one["partition"] for one in status["engine"]["partitions"]} == {0, 1}
    assert "ticked" in log, "Faust's timer did not run beside the engine"
    assert "Traceback" not in log


def test_a_plain_faust_agent_takes_part(
    cluster: tuple[Project, str], kafka_broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, prefix = cluster
    bootstrap = kafka_broker.bootstrap
    with worker(project.root, "host_counter", CHOREO_BROKERS=bootstrap) as running:
        wait_for(lambda: running.get("/ready")[0] == 200 or running.process.poll(), "the worker to be ready")
        assert running.process.poll() is None, running.output()
        expected, ids = sent(project, bootstrap, monkeypatch)
        copies = wait_for(
            lambda: (found := values(project, bootstrap, f"{prefix}copies")) and len(found) >= EVENTS and found,
            "the copies",
        )
        log = running.output()
    assert {value["customer"]: value["amount"] for value, _ in copies} == expected
    topology = project.load_topology()
    check_chain([delivery for _, delivery in copies], ids, f"/choreo/{topology.name}/counter")
    assert "Traceback" not in log
    rows = values(project, bootstrap, f"{topology.name.replace('_', '-')}.counter.changelog.tallies")
    assert {value["customer"]: value["amount"] for value, _ in rows} == expected


def test_two_workers_with_one_name_the_newer_wins(cluster: tuple[Project, str], kafka_broker: RunningBroker) -> None:
    project, _ = cluster
    names = {"CHOREO_BROKERS": kafka_broker.bootstrap, "CHOREO_INSTANCE": "same"}
    with worker(project.root, "host_adder", **names) as older:
        wait_for(lambda: older.get("/ready")[0] == 200 or older.process.poll(), "the older worker")
        with worker(project.root, "host_adder", **names) as newer:
            wait_for(lambda: older.process.poll() is not None, "the older worker to give way")
            assert older.process.returncode == 1, older.output()
            assert "CH0306" in older.output()
            assert "another worker took over from 'same'" in older.output()
            wait_for(lambda: newer.get("/ready")[0] == 200, "the newer worker")


def test_missing_topics_are_refused_with_the_command_that_helps(
    shop: Path, kafka_broker: RunningBroker, kafka_topic_prefix: str
) -> None:
    file = shop / "topologies/shop.yaml"
    file.write_text(file.read_text().replace("orders", f"{kafka_topic_prefix}orders"))
    with worker(shop, "host_adder", CHOREO_BROKERS=kafka_broker.bootstrap) as running:
        assert running.process.wait(30) == 1
        log = running.output()
    assert "CH0805" in log
    assert "choreo apply topologies/shop.yaml" in log
    assert "Traceback" not in log
