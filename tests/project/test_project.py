"""A project is found from anywhere inside it; its files become values or one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest

from choreo.errors import ChoreoError, HostError, TopologyError
from choreo.runtime.project import Project
from choreo.runtime.site import Site

TOPOLOGY = """\
choreo: 1
topology: shop
owner: tests
defaults: {partitions: 2, retention: 1d}
topics:
  orders: {schema: Order, key: customer}
  totals: {schema: Total, key: customer}
agents:
  adder:
    app: agents.adder
    reads: [orders]
    writes: [totals]
"""
SCHEMA = '{"type": "record", "name": "%s", "fields": [{"name": "customer", "type": "string"}]}'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("topologies", "schemas", "agents/deep"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "topologies/shop.yaml").write_text(TOPOLOGY)
    for name in ("Order", "Total"):
        (tmp_path / f"schemas/{name}.avsc").write_text(SCHEMA % name)
    return tmp_path


def project(root: Path, **environment: str) -> Project:
    return Project.find(root, environment=environment)


def refusal(root: Path, path: str | None = None, **environment: str) -> ChoreoError:
    with pytest.raises(ChoreoError) as refused:
        project(root, **environment).load_topology(path)
    return refused.value


def test_found_from_any_folder_below(root: Path) -> None:
    found = Project.find(root / "agents/deep", environment={})
    assert found.root == root.resolve()
    assert found.state_dir == root.resolve() / ".choreo"


def test_no_project_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(HostError) as refused:
        Project.find(tmp_path, environment={})
    assert refused.value.code == "CH0804"
    assert "choreo new" in str(refused.value)


@pytest.mark.parametrize("path", [None, "shop", "topologies/shop.yaml", "absolute"])
def test_a_topology_is_found_by_path_name_or_because_it_is_the_only_one(
    root: Path, path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root / "agents")
    wanted = str(root / "topologies/shop.yaml") if path == "absolute" else path
    assert project(root).load_topology(wanted).name == "shop"


def test_overlays_and_cases_are_not_topologies(root: Path) -> None:
    (root / "topologies/shop.prod.yaml").write_text("defaults: {partitions: 4}\n")
    (root / "topologies/shop.test.yaml").write_text("cases: []\n")
    assert [file.name for file in project(root).topology_files()] == ["shop.yaml"]


def test_several_topologies_ask_which(root: Path) -> None:
    (root / "topologies/other.yaml").write_text(TOPOLOGY)
    assert "has: other, shop" in str(refusal(root))
    assert project(root, CHOREO_TOPOLOGY="topologies/shop.yaml").load_topology().name == "shop"


def test_a_missing_file_names_those_there_are(root: Path) -> None:
    error = refusal(root, "topologies/shp.yaml")
    assert error.code == "CH0804"
    assert "topologies/shop.yaml" in str(error)


def test_a_profile_lays_its_file_over(root: Path) -> None:
    (root / "topologies/shop.prod.yaml").write_text("defaults: {partitions: 4}\n")
    topology = project(root, CHOREO_PROFILE="prod").load_topology()
    assert topology.topics["orders"].partitions == 4
    assert refusal(root, CHOREO_PROFILE="stage").where == "topologies/shop.stage.yaml"


def test_all_errors_of_a_file_are_in_one_message(root: Path) -> None:
    (root / "topologies/shop.yaml").write_text(TOPOLOGY.replace("owner: tests", "ownr: x\nretention: 3 parsecs"))
    error = refusal(root)
    assert isinstance(error, TopologyError)
    assert error.where is not None and error.where.startswith("topologies/shop.yaml:")
    assert "more:\n  CH01" in error.message


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: [", b""])
def test_unreadable_files_are_errors_with_a_place(root: Path, content: bytes) -> None:
    (root / "topologies/shop.yaml").write_bytes(content)
    assert "shop.yaml" in str(refusal(root).where)


def test_an_unknown_agent_is_refused_with_the_names_there_are(root: Path) -> None:
    with pytest.raises(TopologyError) as refused:
        Site.load(None, "ader", start=root, environment={})
    assert refused.value.code == "CH0103"
    assert "it has: adder" in str(refused.value)
    assert "did you mean 'adder'?" in str(refused.value)


def test_brokers_come_from_the_environment_then_the_file_then_an_error(root: Path) -> None:
    topology = project(root).load_topology()
    assert project(root, CHOREO_BROKERS="a:1").bootstrap(topology) == "a:1"
    with pytest.raises(HostError) as refused:
        project(root).bootstrap(topology)
    assert refused.value.exit_code == 69
    assert "choreo broker" in str(refused.value)


def test_schemas_are_read_once_by_name(root: Path) -> None:
    assert [schema.full_name for schema in project(root).schemas()] == ["Order", "Total"]
