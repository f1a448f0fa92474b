"""The graph in its four forms: every declared edge, nothing else, and names that cannot break out."""

from __future__ import annotations

from xml.etree import ElementTree

from choreo.topology import drawing
from choreo.topology.graph import graph, graph_json, mermaid, text
from tests.topology.shared import example


def test_json_has_every_declared_edge() -> None:
    body = graph_json(example())
    edges = {(one["from"], one["kind"], one["to"]) for one in body["edges"]}  # type: ignore[attr-defined]
    assert edges == {
        ("topic:orders", "reads", "agent:tracker"),
        ("topic:scans", "reads", "agent:tracker"),
        ("agent:tracker", "writes", "topic:delays"),
        ("agent:tracker", "keeps", "table:parcels"),
        ("table:depots", "looks up", "agent:tracker"),
        ("topic:delays", "reads", "agent:desk"),
        ("agent:desk", "writes", "topic:apologies"),
    }
    assert len(body["nodes"]) == 8  # type: ignore[arg-type]


def test_text_says_who_hears_whom() -> None:
    assert text(example()).splitlines()[:8] == [
        "parcels",
        "",
        "tracker",
        "  ← orders  from outside",
        "  ← scans  from outside",
        "  → delays  to desk",
        "  ⌂ parcels",
        "  ? depots  (reference)",
    ]


def test_mermaid_declares_each_node_and_edge_once() -> None:
    lines = mermaid(example()).splitlines()
    assert lines[0] == "flowchart LR"
    found = graph(example())
    assert sum("-->" in line or "-.-" in line for line in lines) == len(found.edges)
    for node in found.nodes:
        assert sum(line.startswith(f"  {node.key}") and node.name in line for line in lines) == 1


def test_page_is_well_formed_and_loads_nothing() -> None:
    page = drawing.page(example("owner: a<b>&c\nagents: {desk: {writes: [apologies, delays]}}"))
    tree = ElementTree.fromstring(page.removeprefix("<!doctype html>\n"))
    assert len(tree.findall(".//{http://www.w3.org/2000/svg}g")) == 8
    assert "a&lt;b&gt;&amp;c" in page
    assert (
        "<script" not in page and "src=" not in page and "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    )


def test_empty_topology_can_be_drawn() -> None:
    from choreo.topology.parse import parse

    empty = parse("choreo: 1\ntopology: t\n", "x.yaml").topology
    assert empty is not None
    assert drawing.page(empty).startswith("<!doctype html>")
    assert mermaid(empty).startswith("flowchart LR")
    assert text(empty) == "t"
