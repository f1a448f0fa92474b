"""`choreo lint`, `graph`, and what `plan` and `apply` say before they reach a cluster."""

from __future__ import annotations

import json
import socket

import pytest

from choreo.apply import inspect
from tests.apply.conftest import Shop


def test_good_file_has_no_problems(shop: Shop) -> None:
    code, out, err = shop.choreo("lint")
    assert (code, err) == (0, "")
    assert out == "topologies/shop.yaml: no problems (1 agents, 2 topics, 2 tables)\n"


def test_errors_are_listed_with_place_and_exit_1(shop: Shop) -> None:
    shop.write(lambda text: text.replace("tables: [totals, rates]", "tables: [total, rates]\n    kinds: x"))
    code, out, _ = shop.choreo("lint", "topologies/shop.yaml")
    assert code == 1
    assert "topologies/shop.yaml:16:5: error CH0102: agents.clerk has the unknown field 'kinds'" in out
    shop.write(lambda text: text.replace("tables: [totals, rates]", "tables: [total, rates]"))
    code, body = shop.json("lint")
    assert code == 1
    assert (body["errors"], body["warnings"]) == (1, 1)
    first = next(one for one in body["problems"] if one["severity"] == "error")
    assert (first["code"], first["position"]) == ("CH0111", "topologies/shop.yaml:15:14")
    assert first["hint"] == "did you mean 'totals'?"


def test_warnings_alone_exit_0(shop: Shop) -> None:
    shop.write(lambda text: text.replace(", ingress: true", ""))
    code, body = shop.json("lint")
    assert (code, body["errors"], [one["code"] for one in body["problems"]]) == (0, 0, ["CH0121"])


def test_lint_checks_the_overlay_that_is_meant(shop: Shop) -> None:
    (shop.root / "topologies" / "shop.prod.yaml").write_text("agents: {clerk: {kind: hundlers}}", "utf-8")
    assert shop.choreo("lint")[0] == 0
    code, out, _ = shop.choreo("lint", "--profile", "prod")
    assert code == 1
    assert "topologies/shop.prod.yaml:1:24: error CH0102" in out


def test_bad_schema_is_one_coded_error(shop: Shop) -> None:
    (shop.root / "schemas" / "Order.avsc").write_text("{", "utf-8")
    code, _, err = shop.choreo("lint")
    assert code == 1
    assert err.startswith("CH0202 ")


def test_schema_and_explanations(shop: Shop) -> None:
    code, out, _ = shop.choreo("lint", "--schema")
    assert code == 0
    assert json.loads(out)["title"] == "choreo topology"
    code, out, _ = shop.choreo("lint", "--explain", "ch0123")
    assert code == 0 and "Bad::" in out
    assert shop.json("lint", "--explain", "CH0801")[1]["title"]
    assert shop.choreo("lint", "--explain", "CH9999")[0] != 0


@pytest.mark.parametrize("form", ["text", "mermaid", "json", "html"])
def test_graph_in_every_form(shop: Shop, form: str) -> None:
    code, out, _ = shop.choreo("graph", "--format", form)
    assert code == 0
    assert "clerk" in out and "totals" in out


@pytest.mark.parametrize("command", ["plan", "apply"])
class TestBeforeTheCluster:
    def test_nobody_says_where_kafka_is(self, shop: Shop, command: str) -> None:
        code, _, err = shop.choreo(command)
        assert code == 69
        assert err.startswith("CH0801 ")

    def test_lint_errors_come_first(self, shop: Shop, command: str) -> None:
        shop.write(lambda text: text.replace("[totals, rates]", "[total, rate]"))
        code, body = shop.json(command, "--brokers", "127.0.0.1:1")
        assert code == 1
        assert body["error"]["code"] == "CH0111"
        assert "'rate'" in body["error"]["message"]

    def test_silent_cluster_is_given_up(self, shop: Shop, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inspect, "REQUEST_TIMEOUT_S", 0.2)
        with socket.socket() as silent:  # bound and never listening: connections are refused
            silent.bind(("127.0.0.1", 0))
            code, body = shop.json(command, "--brokers", f"127.0.0.1:{silent.getsockname()[1]}")
        assert code == 69
        assert body["error"]["code"] == "CH0801"
