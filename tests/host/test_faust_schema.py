"""``kind: faust`` keeps to the topology: what is undeclared or does not fit is refused with the line to add."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from choreo.errors import SchemaError, UndeclaredError
from choreo.kernel.values import Delivery
from choreo.runtime.faust_schema import Wire, envelope_of
from choreo.runtime.site import Site


class Message:
    """The attributes of a Faust message that are read."""

    def __init__(self, delivery: Delivery) -> None:
        self.topic, self.partition, self.offset = delivery.topic, delivery.partition, delivery.offset
        self.timestamp = delivery.timestamp_ms / 1000
        self.key, self.value, self.headers = delivery.key, delivery.value, delivery.headers


@pytest.fixture
def wire(shop: Path) -> Wire:
    site = Site.load("topologies/shop.yaml", "counter", environment={})
    registry = site.project.registry(site.topology)
    for topic in ("orders", "copies"):
        schema = site.project.schemas().by_name(site.topology.topics[topic].schema)
        registry.register(f"{topic}-value", schema)
    return Wire(site)


@pytest.fixture
def events(shop: Path) -> Any:
    return importlib.import_module("host_events")


def test_values_survive_as_their_class_or_as_a_dict(wire: Wire, events: Any) -> None:
    total = events.Total(customer="ada", amount=3)
    message = Message(Delivery("copies", 0, 0, 0, b"ada", wire.encode("copies", total), ()))
    assert wire.decode(message, events.Total) == total
    assert wire.decode(message, None) == {"customer": "ada", "amount": 3}


@pytest.mark.parametrize("topic", ["totals", "nowhere"])
def test_an_undeclared_topic_is_refused_with_the_line_to_add(topic: str, wire: Wire, events: Any) -> None:
    with pytest.raises(UndeclaredError) as refused:
        wire.encode(topic, events.Total(customer="ada"))
    assert f"writes: [copies, {topic}]" in str(refused.value)


def test_another_record_or_none_is_refused(wire: Wire, events: Any) -> None:
    with pytest.raises(SchemaError, match=r"copies carries shop\.Total, saw a shop\.Order"):
        wire.encode("copies", events.Order(customer="ada", amount=1))
    with pytest.raises(SchemaError, match="saw a int"):
        wire.encode("copies", 7)


def test_keys_come_from_the_code_or_the_event(wire: Wire, events: Any) -> None:
    total = events.Total(customer="ada")
    assert wire.key("copies", None, total) == b"ada"
    assert wire.key("copies", "bob", total) == b"bob"
    assert wire.key("copies", 7, total) == b"7"
    with pytest.raises(SchemaError):
        wire.key("copies", None, None)


def test_an_undeclared_table_is_refused_with_the_line_to_add(shop: Path) -> None:
    module = importlib.import_module("host_counter")
    with pytest.raises(UndeclaredError, match="uses a table 'others'") as refused:
        module.app.Table("others")
    assert "tables: [tallies, others]" in str(refused.value)


def test_an_undeclared_input_is_refused_with_the_line_to_add(shop: Path) -> None:
    module = importlib.import_module("host_counter")
    module.app.agent(module.app.topic("totals"))(consume)
    with pytest.raises(UndeclaredError, match="reads totals, which the topology does not declare") as refused:
        module.app.worker_init()
    assert "reads: [orders, totals]" in str(refused.value)


async def consume(stream: Any) -> None:
    """An agent that reads too much."""


def test_events_without_an_id_get_one_from_their_place(wire: Wire) -> None:
    ids = {
        envelope_of(Message(Delivery(topic, partition, offset, 0, b"k", b"v", ()))).event_id
        for topic in ("orders", "copies")
        for partition in (0, 1)
        for offset in (0, 1)
    }
    assert len(ids) == 8
