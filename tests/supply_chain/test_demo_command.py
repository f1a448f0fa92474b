"""`choreo demo` finds the demos of a project and refuses what is none, in one line and with its exit code."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from choreo.cli._demo.latency import Latency
from choreo.cli._demo.run import Outcome
from choreo.cli._main import run
from choreo.cli.demo import find_demo
from choreo.errors import EXIT_OK, EXIT_REFUSED, EXIT_USAGE, HostError
from choreo.runtime.project import Project
from choreo.topology.lints import lint
from tests.supply_chain.made_up_run import history
from tests.supply_chain.test_report import RIGHT


def test_a_demo_that_does_not_exist_is_refused_with_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "moon_landing", "--json"]) == EXIT_USAGE
    shown = capsys.readouterr()
    assert shown.err.startswith("CH0807 ")
    assert "supply_chain" in shown.err
    assert json.loads(shown.out)["error"]["code"] == "CH0807"


@pytest.mark.parametrize("option", [["--events", "0"], ["--rate", "0"], ["--events", "many"]])
def test_numbers_that_make_no_run_are_wrong_usage(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "supply_chain", *option]) == EXIT_USAGE
    assert capsys.readouterr().err.startswith("CH0807 ")


def test_a_project_without_demos_says_so(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="this project has: none"):
        find_demo(tmp_path, "supply_chain")


@pytest.mark.parametrize(("lost", "code"), [(0, EXIT_OK), (1, EXIT_REFUSED)])
def test_the_exit_code_says_whether_all_is_accounted_for(
    lost: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = replace(RIGHT, totals={"lost": lost})
    outcome = Outcome(counted, history(), Latency(1.0, 2.0, 3), {}, 1.0, counted.events, 0, {})
    monkeypatch.setattr("choreo.cli.demo._cluster", nullcontext)
    monkeypatch.setattr("choreo.cli.demo.stage_of", lambda demo, project: None)
    monkeypatch.setattr("choreo.cli._demo.run.run", lambda stage, facts, **more: outcome)
    assert run(["demo", "supply_chain", "--events", "10", "--json"]) == code
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["ok"], last["lost"]) == (not lost, lost)


def test_the_topology_has_neither_errors_nor_warnings() -> None:
    project = Project.find()
    topology = project.load_topology("topologies/supply_chain.yaml")
    assert [str(problem) for problem in lint(topology, project.schemas())] == []


def test_every_topic_of_the_feed_is_declared_as_such() -> None:
    project = Project.find()
    topology = project.load_topology("topologies/supply_chain.yaml")
    fed = {fact.topic for fact in find_demo(project.root, "supply_chain").facts(events=2_000, seed=1)}
    assert fed <= {topic.name for topic in topology.topics.values() if topic.ingress}
