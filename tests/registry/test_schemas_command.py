"""`choreo schemas generate | check | list`: exit codes, messages and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from choreo.cli.schemas import command
from choreo.errors import ChoreoError, SchemaError
from choreo.runtime.registry_file import FileRegistry
from tests.codec.shapes import record

TOPOLOGY = """\
choreo: 1
topology: t
owner: me
topics:
  flights: {schema: Flight, key: tail}
  hubs: {schema: Hub, key: iata, compatibility: NONE}
agents:
  watch:
    app: agents.watch
    reads: [flights]
    writes: [hubs]
"""
FLIGHT = {"type": "record", "name": "Flight", "namespace": "t", "fields": [{"name": "tail", "type": "string"}]}
HUB = {"type": "record", "name": "Hub", "namespace": "t", "fields": [{"name": "iata", "type": "string"}]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("topologies", "schemas"):
        (tmp_path / folder).mkdir()
    (tmp_path / "topologies" / "t.yaml").write_text(TOPOLOGY)
    (tmp_path / "schemas" / "Flight.avsc").write_text(json.dumps(FLIGHT))
    (tmp_path / "schemas" / "Hub.avsc").write_text(json.dumps(HUB))
    monkeypatch.chdir(tmp_path)
    for name in ("CHOREO_SCHEMA_REGISTRY", "CHOREO_PROFILE", "CHOREO_TOPOLOGY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def failure(result: Result) -> ChoreoError:
    assert isinstance(result.exception, ChoreoError), result.output
    return result.exception


def test_generate_writes_and_check_keeps_it_honest(project: Path) -> None:
    assert run("generate", "--check").exit_code == 2
    assert not (project / "schemas" / "flight.py").exists()
    assert "schemas/flight.py written" in run("generate").output
    assert run("generate", "--check").exit_code == 0
    (project / "schemas" / "Flight.avsc").write_text(json.dumps(FLIGHT).replace('"string"', '"long"'))
    stale = run("generate", "--check", "--json")
    assert stale.exit_code == 2
    assert json.loads(stale.output) == {"changed": ["flight.py"], "removed": [], "same": 2, "check": True}
    (project / "schemas" / "Flight.avsc").unlink()
    assert "schemas/flight.py removed" in run("generate").output
    assert not (project / "schemas" / "flight.py").exists()


def test_generate_without_schemas_says_so(project: Path) -> None:
    for file in (project / "schemas").glob("*.avsc"):
        file.unlink()
    assert failure(run("generate")).code == "CH0804"


def test_a_window_that_cannot_be_is_named(project: Path) -> None:
    window = {"name": "w", "type": "choreo.Window", "window": {"kind": "slid", "size": "5m"}}
    (project / "schemas" / "Hub.avsc").write_text(json.dumps({**HUB, "fields": [*HUB["fields"], window]}))
    error = failure(run("generate"))
    assert (error.code, error.where) == ("CH0202", "Hub.avsc: t.Hub.w")
    assert "a window's kind is sliding or tumbling, saw 'slid'" in error.message


def test_check_compares_with_every_registered_version(project: Path) -> None:
    assert [row["state"] for row in json.loads(run("check", "--json").output)] == ["new", "new"]
    registry = FileRegistry(project / "schemas" / "registry.lock.json")
    registry.register("flights-value", record("Flight", ("tail", "string")))
    registry.register("hubs-value", record("Hub", ("iata", "int")))
    rows = json.loads(run("check", "--json").output)
    assert [(row["state"], row["versions"]) for row in rows] == [("same", 1), ("changed", 1)]
    registry.register("flights-value", record("Flight", ("tail", "int")))
    result = run("check")
    assert "refused" in result.output
    error = failure(result)
    assert isinstance(error, SchemaError)
    assert error.code == "CH0203"
    assert "flights: t.Flight.tail: its type is string, records have int" in error.message


def test_list_shows_subjects_and_ids(project: Path) -> None:
    FileRegistry(project / "schemas" / "registry.lock.json").register("flights-value", record("Flight"))
    rows = json.loads(run("list", "--json").output)
    assert {"subject": "flights-value", "version": 1, "id": 1000, "record": "t.Flight"} in rows
    assert {"subject": "choreo.Checkpoint", "version": 1, "id": 1, "record": "choreo.Checkpoint"} in rows
    assert "flights-value" in run("list").output
