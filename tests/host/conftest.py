"""A small project on disk, and a fake engine with the interface that the host uses."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from choreo.runtime.site import Site

ORDER = """{"type": "record", "name": "Order", "namespace": "shop",
"fields": [{"name": "customer", "type": "string"}, {"name": "amount", "type": "long"}]}"""
TOTAL = """{"type": "record", "name": "Total", "namespace": "shop",
"fields": [{"name": "customer", "type": "string"}, {"name": "amount", "type": "long", "default": 0}]}"""
TOPOLOGY = """\
choreo: 1
topology: shop
owner: tests
defaults: {partitions: 2, retention: 1d}
topics:
  orders: {schema: Order, key: customer}
  totals: {schema: Total, key: customer}
  copies: {schema: Total, key: customer}
tables:
  sums: {schema: Total, key: customer}
  tallies: {schema: Total, key: customer}
agents:
  adder:
    app: host_adder
    reads: [orders]
    writes: [totals]
    tables: [sums]
  counter:
    app: host_counter
    kind: faust
    reads: [orders]
    writes: [copies]
    tables: [tallies]
"""
EVENTS = '''\
from typing import ClassVar
import choreo


class Order(choreo.Record):
    __avro_name__: ClassVar[str] = "shop.Order"
    __avro_schema__: ClassVar[str] = """@ORDER@"""
    customer: str
    amount: int


class Total(choreo.Record):
    __avro_name__: ClassVar[str] = "shop.Total"
    __avro_schema__: ClassVar[str] = """@TOTAL@"""
    customer: str
    amount: int = 0
'''.replace("@ORDER@", ORDER).replace("@TOTAL@", TOTAL)
ADDER = '''\
import choreo
from host_events import Order, Total

app = choreo.App("topologies/shop.yaml", agent="adder")


@app.on(Order)
async def add(event: Order, ctx: choreo.Context) -> None:
    total = ctx.row(Total)
    total.amount += event.amount
    ctx.emit(Total(customer=event.customer, amount=total.amount))


@app.page("/hello")
async def hello(view, request):
    return view.json({"hello": "world"})


@app.timer(0.05)
async def tick():
    print("ticked", flush=True)


@app.command()
async def greet():
    """Says hello."""
    print("greetings")
'''
COUNTER = '''\
import choreo
from host_events import Order, Total

app = choreo.App("topologies/shop.yaml", agent="counter")
orders = app.topic("orders", value_type=Order)
copies = app.topic("copies", value_type=Total)
tallies = app.Table("tallies", value_type=Total)


@app.agent(orders)
async def count(stream):
    """Counts orders."""
    async for order in stream:
        before = tallies.get(order.customer)
        total = Total(customer=order.customer, amount=(before.amount if before else 0) + order.amount)
        tallies[order.customer] = total
        await copies.send(value=total)
'''


class FakeStatus:
    """A snapshot of the fake engine."""

    def __init__(self, alive: bool, ready: bool, polled_s_ago: float) -> None:
        self.alive = alive
        self.ready = ready
        self.polled_s_ago = polled_s_ago

    def as_json(self) -> Mapping[str, Any]:
        return {"in_flight": 0, "ready": self.ready}


class FakeEngine:
    """What ``choreo.runtime.shell.EngineShell`` looks like from its host."""

    def __init__(self, site: Site, instance: str, failed: Callable[[BaseException], None]) -> None:
        self.site = site
        self.instance = instance
        self.failed = failed
        self.failure: BaseException | None = None
        self.started_on: asyncio.AbstractEventLoop | None = None
        self.drained_s: float | None = None
        self.snapshot = FakeStatus(True, True, 0.1)

    def start(self, loop: asyncio.AbstractEventLoop, /) -> None:
        self.started_on = loop

    async def stop(self, drain_s: float, /) -> None:
        self.drained_s = drain_s

    def status(self) -> FakeStatus:
        return self.snapshot


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with one agent of kind handlers and one of kind faust, as the working directory."""
    for folder in ("topologies", "schemas"):
        (tmp_path / folder).mkdir()
    (tmp_path / "topologies/shop.yaml").write_text(TOPOLOGY)
    (tmp_path / "schemas/Order.avsc").write_text(ORDER)
    (tmp_path / "schemas/Total.avsc").write_text(TOTAL)
    (tmp_path / "host_events.py").write_text(EVENTS)
    (tmp_path / "host_adder.py").write_text(ADDER)
    (tmp_path / "host_counter.py").write_text(COUNTER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("CHOREO_BROKERS", "CHOREO_TOPOLOGY", "CHOREO_PROFILE", "CHOREO_INSTANCE", "CHOREO_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    for name in ("host_events", "host_adder", "host_counter"):
        sys.modules.pop(name, None)
