"""What ``choreo.Producer`` decides before Kafka sees anything: topic, key, headers, and what it refuses."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from choreo.errors import SchemaError, UndeclaredError
from choreo.kernel.envelope import constant_headers, parse_headers
from choreo.kernel.ids import Identity
from choreo.kernel.values import Delivery, InputTopic
from choreo.runtime import producer as module
from choreo.runtime.producer import Producer, client_settings, root_headers, topic_of
from choreo.runtime.project import Project
from choreo.topology.model import Topology

CONSTANTS = constant_headers(Identity("shop", "producer"), "shop.Order")


class FakeKafka:
    """Takes what the producer hands over."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.records: list[tuple[str, bytes, bytes, list[tuple[str, bytes]]]] = []

    def produce(self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Any) -> None:
        self.records.append((topic, value, key, headers))

    def poll(self, timeout: float) -> int:
        return 0

    def flush(self, timeout: float) -> int:
        return 0


@pytest.fixture
def events(shop: Path) -> Any:
    project = Project.find(shop, environment={})
    topology = project.load_topology()
    for topic in topology.topics.values():
        project.registry(topology).register(f"{topic.name}-value", project.schemas().by_name(topic.schema))
    return importlib.import_module("host_events")


@pytest.fixture
def topology(shop: Path) -> Topology:
    return Project.find(shop, environment={}).load_topology()


@pytest.fixture
def sending(events: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Producer]:
    monkeypatch.setattr(module, "KafkaProducer", FakeKafka)
    with Producer("topologies/shop.yaml", brokers="127.0.0.1:1") as producer:
        yield producer


def records(producer: Producer) -> list[tuple[str, bytes, bytes, list[tuple[str, bytes]]]]:
    client: Any = producer._client
    assert isinstance(client, FakeKafka)
    return client.records


def test_the_class_chooses_topic_and_key(sending: Producer, events: Any) -> None:
    event_id = sending.send(events.Order(customer="ada", amount=3))
    ((topic, value, key, headers),) = records(sending)
    assert (topic, key) == ("orders", b"ada")
    assert value[0] == 0
    assert dict(headers)["ce_id"] == event_id.encode()
    assert dict(headers)["ce_subject"] == b"ada"
    assert dict(headers)["ce_source"] == b"/choreo/shop/producer"


def test_an_event_from_outside_starts_a_chain(sending: Producer, events: Any) -> None:
    ids = {sending.send(events.Order(customer="ada", amount=3), at=datetime(2013, 1, 1, tzinfo=UTC)) for _ in range(9)}
    assert len(ids) == 9
    for topic, value, key, headers in records(sending):
        envelope = parse_headers(Delivery(topic, 0, 0, 5, key, value, headers), InputTopic(topic))
        assert envelope.correlation_id == envelope.event_id == envelope.traceparent[3:35]
        assert (envelope.causation_id, envelope.hop, envelope.type) == ("", 0, "shop.Order")
        assert envelope.time_ms == 1_356_998_400_000


def test_several_topics_ask_which(topology: Topology, events: Any) -> None:
    with pytest.raises(UndeclaredError, match="Total goes to totals, copies: say topic="):
        topic_of(topology, events.Total, None)
    assert topic_of(topology, events.Total, "copies").name == "copies"


@pytest.mark.parametrize(("wanted", "seen"), [("nowhere", "is not declared"), ("orders", "carries Order")])
def test_a_topic_that_does_not_carry_the_event_is_refused(
    wanted: str, seen: str, topology: Topology, events: Any
) -> None:
    with pytest.raises(UndeclaredError, match=seen):
        topic_of(topology, events.Total, wanted)


def test_an_event_without_topic_names_the_line_to_add(topology: Topology, events: Any) -> None:
    stranger = type("Stranger", (events.Order,), {"__avro_name__": "shop.Stranger"})
    with pytest.raises(UndeclaredError, match="no topic of the topology carries Stranger") as refused:
        topic_of(topology, stranger, None)
    assert "{schema: Stranger, key: …}" in str(refused.value)


def test_an_event_time_needs_a_zone() -> None:
    with pytest.raises(SchemaError, match="has no time zone"):
        root_headers(CONSTANTS, "a" * 32, b"k", datetime(2013, 1, 1))  # noqa: DTZ001 - the point of the test


def test_an_unregistered_schema_is_refused(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = importlib.import_module("host_events")
    monkeypatch.setattr(module, "KafkaProducer", FakeKafka)
    with pytest.raises(SchemaError) as refused:
        Producer("topologies/shop.yaml", brokers="127.0.0.1:1").send(events.Order(customer="a", amount=1))
    assert refused.value.code == "CH0205"


def test_delivery_is_idempotent_and_partitioned_as_java_does() -> None:
    plain = client_settings("a:1", {}, None)
    assert (plain["enable.idempotence"], plain["acks"], plain["partitioner"]) == (True, "all", "murmur2_random")
    assert "transactional.id" not in plain
    assert client_settings("a:1", {}, "feed")["transactional.id"] == "feed"
