"""``choreo.App`` is a Faust app: nothing of Faust's is shadowed, its commands work, and refusals are one line."""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import faust
import pytest

import choreo
from choreo.errors import ChoreoError, EngineError, FencedSignal, HostError, TopologyError
from choreo.runtime import engine_service
from choreo.runtime.app import App
from choreo.runtime.engine_service import EngineService
from choreo.runtime.preflight import needed_topics
from choreo.runtime.site import Site
from tests.host.conftest import FakeEngine, FakeStatus

# What choreo overrides of Faust on purpose: hooks that Faust calls, never names that users call.
OVERRIDDEN = {
    "BootStrategy",
    "__doc__",
    "__init__",
    "__module__",
    "_create_directories",
    "_load_settings",
    "_new_transport",
    "on_started_init_extra_services",
    "on_webserver_init",
    "worker_init",
}


def faust_command(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHOREO_")}
    return subprocess.run(
        [sys.executable, "-m", "faust", *arguments],
        cwd=root,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_no_name_of_fausts_is_shadowed() -> None:
    shadowed = {name for name in vars(App) if hasattr(faust.App, name)}
    assert shadowed <= OVERRIDDEN | {"__annotations__", "__abstractmethods__", "_abc_impl", "logger"}
    assert {"on", "on_timer", "definition"}.isdisjoint(dir(faust.App))


def test_making_an_app_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = choreo.App("topologies/nowhere.yaml", agent="nobody")
    assert app.definition.name == "nobody"
    with pytest.raises(ChoreoError) as refused:
        _ = app.conf
    assert refused.value.code == "CH0804"


def test_handlers_are_registered_and_stay_functions(shop: Path) -> None:
    module = importlib.import_module("host_adder")
    assert [one.event.__name__ for one in module.app.definition.registrations] == ["Order"]
    assert asyncio.iscoroutinefunction(module.add)


def test_faust_settings_come_from_the_topology(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOREO_BROKERS", "one:9092,two:9093")
    app = App("topologies/shop.yaml", agent="adder", stream_buffer_maxsize=7)
    assert app.conf.id == "shop.adder"
    assert [str(url) for url in app.conf.broker] == ["kafka://one:9092", "kafka://two:9093"]
    assert app.conf.datadir == shop.resolve() / ".choreo/faust/shop.adder"
    assert app.conf.web_bind == "127.0.0.1"
    assert app.conf.topic_partitions == 2
    assert app.conf.stream_buffer_maxsize == 7
    assert app.producer_only
    assert not App("topologies/shop.yaml", agent="counter").conf.topic_allow_declare


def test_an_explicit_web_port_wins(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert App("topologies/shop.yaml", agent="adder", web_port=7001).conf.web_port == 7001
    monkeypatch.setenv("WEB_PORT", "7002")
    assert App("topologies/shop.yaml", agent="adder").conf.web_port == 7002


def test_choreo_topology_overrides_the_code(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (shop / "topologies/shop.yaml").read_text()
    (shop / "topologies/other.yaml").write_text(text.replace("topology: shop", "topology: other"))
    monkeypatch.setenv("CHOREO_TOPOLOGY", "topologies/other.yaml")
    assert App("topologies/shop.yaml", agent="adder").conf.id == "other.adder"


def test_fausts_commands_list_agents_and_tables(shop: Path) -> None:
    agents = faust_command(shop, "-A", "host_adder", "agents")
    assert agents.returncode == 0, agents.stderr
    assert "@adder" in agents.stdout and "orders" in agents.stdout and "writes totals" in agents.stdout
    tables = faust_command(shop, "-A", "host_adder", "tables")
    assert "sums" in tables.stdout and "one row per customer" in tables.stdout


@pytest.mark.slow
def test_fausts_own_agents_and_commands_work_beside(shop: Path) -> None:
    assert "Counts orders." in faust_command(shop, "-A", "host_counter", "agents").stdout
    assert "greetings" in faust_command(shop, "-A", "host_adder", "greet").stdout


def test_an_unknown_agent_is_refused_in_one_line(shop: Path) -> None:
    file = shop / "host_adder.py"
    file.write_text(file.read_text().replace('agent="adder"', 'agent="ader"'))
    shown = faust_command(shop, "-A", "host_adder", "worker")
    assert shown.returncode == 1
    assert shown.stderr.startswith("CH0103 topologies/shop.yaml: the topology declares no agent 'ader'")
    assert "did you mean 'adder'?" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_worker_without_brokers_exits_69_with_the_way_out(shop: Path) -> None:
    shown = faust_command(shop, "-A", "host_adder", "worker")
    assert shown.returncode == 69
    assert "CH0801" in shown.stderr and "choreo broker" in shown.stderr
    assert "Traceback" not in shown.stderr
    refused = faust_command(shop, "-A", "host_adder", "worker", CHOREO_BROKERS="127.0.0.1:1")
    assert refused.returncode == 69
    assert "connection refused" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_bad_setting_is_refused_in_one_line(shop: Path) -> None:
    shown = faust_command(shop, "-A", "host_adder", "agents", CHOREO_SESSION_TIMEOUT="soon")
    assert shown.returncode == 1
    assert shown.stderr.startswith("CH0806 environment: CHOREO_SESSION_TIMEOUT is 'soon'; expected a duration")


def test_faust_agents_need_the_kind(shop: Path) -> None:
    module = importlib.import_module("host_adder")
    module.app.agent(module.app.topic("orders"))(consume)
    with pytest.raises(TopologyError, match=r"@app\.agent needs an agent of kind faust"):
        module.app.worker_init()


async def consume(stream: Any) -> None:
    """A Faust agent where none belongs."""


def test_handlers_need_their_kind(shop: Path) -> None:
    counter, adder = importlib.import_module("host_counter"), importlib.import_module("host_adder")
    counter.app.definition.registrations.extend(adder.app.definition.registrations)
    with pytest.raises(TopologyError, match="handlers would never run"):
        counter.app.worker_init()


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs an async test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


# -- the service around the engine -------------------------------------------------------------------------------------


class Host:
    """An ``EngineService`` over a fake engine and a cluster that has what it needs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, missing: str = "") -> None:
        self.site = Site.load("topologies/shop.yaml", "adder", environment={"CHOREO_BROKERS": "127.0.0.1:1"})
        self.failures: list[ChoreoError] = []
        self.engines: list[FakeEngine] = []
        there = {name: count or 1 for name, count in needed_topics(self.site.topology, self.site.agent).items()}
        there.pop(missing, None)
        monkeypatch.setattr(engine_service, "cluster_topics", lambda admin, bootstrap: there)
        self.service = EngineService(self.site, self.make, on_failure=self.failures.append, url=lambda: "http://x")

    def make(self, site: Site, instance: str, failed: Any) -> FakeEngine:
        self.engines.append(FakeEngine(site, instance, failed))
        return self.engines[-1]

    @property
    def engine(self) -> FakeEngine:
        return self.engines[-1]


@in_a_loop
async def test_the_engine_starts_drains_and_gives_its_slot_back(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, other = Host(monkeypatch), Host(monkeypatch)
    async with host.service:
        assert host.engine.started_on is asyncio.get_running_loop()
        assert host.engine.instance.endswith("-0")
        async with other.service:
            assert other.engine.instance.endswith("-1")
            notes = sorted((shop / ".choreo/workers").iterdir())
            assert len(notes) == 2
    assert host.engine.drained_s == 10.0
    assert list((shop / ".choreo/workers").iterdir()) == []
    again = Host(monkeypatch)
    async with again.service:
        assert again.engine.instance == host.engine.instance


@in_a_loop
async def test_missing_topics_stop_the_worker_before_it_joins(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, missing="orders")
    async with host.service:
        assert host.engines == []
    assert [failure.code for failure in host.failures] == ["CH0805"]
    assert "orders" in str(host.failures[0]) and "choreo apply topologies/shop.yaml" in str(host.failures[0])


@in_a_loop
async def test_health_and_readiness_follow_the_engine(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch)
    assert (host.service.health().ok, host.service.readiness().ok) == (True, False)
    async with host.service:
        for snapshot, failure, health, ready in (
            (FakeStatus(True, True, 0.1), None, True, True),
            (FakeStatus(True, False, 0.1), None, True, False),
            (FakeStatus(True, True, 31.0), None, False, False),
            (FakeStatus(False, True, 0.1), None, False, False),
            (FakeStatus(True, True, 0.1), HostError("gone"), False, False),
        ):
            host.engine.snapshot, host.engine.failure = snapshot, failure
            assert (host.service.health().ok, host.service.readiness().ok) == (health, ready), vars(snapshot)


@in_a_loop
async def test_failures_reach_the_worker_with_their_code(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch)
    async with host.service:
        host.engine.failed(EngineError("offsets are gone", code="CH0307"))
        host.engine.failed(FencedSignal())
        await asyncio.sleep(0)
    assert [failure.code for failure in host.failures] == ["CH0307", "CH0306"]
    assert "CHOREO_INSTANCE" in str(host.failures[1])


@in_a_loop
async def test_a_defect_crashes_the_worker(
    shop: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(monkeypatch)
    async with host.service:
        host.engine.failed(ZeroDivisionError("a defect"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert host.service.crashed
        assert isinstance(host.service.crash_reason, ZeroDivisionError)
        logged = [one for one in caplog.records if "the engine failed" in one.getMessage()]
        assert [one.exc_info[0] for one in logged if one.exc_info] == [ZeroDivisionError]
    assert host.failures == []
