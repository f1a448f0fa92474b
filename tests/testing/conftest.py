"""A project in a temporary directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from choreo.runtime.project import Project
from tests.agent.world import CLASSES

TOPOLOGY = """\
choreo: 1
topology: logistics
owner: ops-team
cluster: {bootstrap: "127.0.0.1:1", schema_registry: file}
defaults: {partitions: 4, retention: 7d}
topics:
  flights:     {schema: FlightDeparted, key: tail_number, ingress: true}
  delay-risks: {schema: DelayRisk, key: tail_number}
  reroutes:    {schema: Rerouted, key: tail_number}
tables:
  aircraft:    {schema: AircraftState, key: tail_number}
  risks:       {schema: RiskCount, key: tail_number}
  airports:    {schema: Airport, key: iata, reference: true}
tools:
  weather_at:
    {kind: python, function: "tests.testing.logistics.aircraft_tracker:weather_at", effect: read, timeout: 5s}
  doubled:
    {kind: python, function: "tests.testing.logistics.aircraft_tracker:doubled", effect: pure, timeout: 5s}
agents:
  aircraft_tracker:
    app: tests.testing.logistics.aircraft_tracker
    reads: [flights]
    writes: [delay-risks]
    tables: [aircraft, airports]
    tools: [weather_at, doubled]
  recovery:
    app: tests.testing.logistics.recovery
    reads: [delay-risks]
    writes: [reroutes]
    tables: [risks]
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "topologies").mkdir()
    (tmp_path / "schemas").mkdir()
    (tmp_path / "topologies" / "logistics.yaml").write_text(TOPOLOGY)
    for cls in CLASSES:
        (tmp_path / "schemas" / f"{cls.__name__}.avsc").write_text(cls.__avro_schema__)
    return Project.find(tmp_path, environment={})
