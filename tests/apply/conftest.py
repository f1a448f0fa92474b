"""A project in a temporary directory, and the commands run in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from choreo.cli._main import run

TOPOLOGY = """\
choreo: 1
topology: {name}
cluster: {{bootstrap: "${{CHOREO_BROKERS}}"}}
defaults: {{partitions: 2}}
topics:
  {prefix}orders: {{schema: Order, key: id, ingress: true, dedupe: {{window: 1h}}}}
  {prefix}done:   {{schema: Done, key: id, retention: 3d}}
tables:
  totals: {{schema: Total, key: id}}
  rates:  {{schema: Rate, key: code, reference: true}}
agents:
  clerk:
    reads: [{prefix}orders]
    writes: [{prefix}done]
    tables: [totals, rates]
"""

SCHEMAS = {
    "Order": [("id", "string"), ("amount", "int")],
    "Done": [("id", "string")],
    "Total": [("id", "string"), ("sum", "int", 0)],
    "Rate": [("code", "string"), ("rate", "double")],
}


def schema_text(name: str, fields: list[Any]) -> str:
    entries = [dict(zip(("name", "type", "default"), one, strict=False)) for one in fields]
    return json.dumps({"type": "record", "name": name, "namespace": "shop", "fields": entries})


@dataclass
class Shop:
    """A project with one topology, and what its commands print."""

    root: Path
    prefix: str
    capture: pytest.CaptureFixture[str]

    @property
    def name(self) -> str:
        return self.prefix.strip("-").replace("-", "_")

    @property
    def internal(self) -> str:
        """What internal topics of the agent begin with."""
        return f"{self.prefix.strip('-')}.clerk."

    def write(self, edit: Callable[[str], str] = lambda text: text) -> None:
        text = edit(TOPOLOGY.format(name=self.name, prefix=self.prefix))
        (self.root / "topologies" / "shop.yaml").write_text(text, "utf-8")

    def schema(self, name: str, fields: list[Any]) -> None:
        (self.root / "schemas" / f"{name}.avsc").write_text(schema_text(name, fields), "utf-8")

    def choreo(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command."""
        self.capture.readouterr()
        code = run(arguments)
        out = self.capture.readouterr()
        assert "Traceback" not in out.err
        return code, out.out, out.err

    def json(self, *arguments: str) -> tuple[int, Any]:
        code, out, _ = self.choreo(*arguments, "--json")
        return code, json.loads(out)


@pytest.fixture
def shop(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kafka_topic_prefix: str,
) -> Shop:
    for folder in ("topologies", "schemas", "agents"):
        (tmp_path / folder).mkdir()
    for variable in ("CHOREO_BROKERS", "CHOREO_PROFILE", "CHOREO_TOPOLOGY", "CHOREO_SCHEMA_REGISTRY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    found = Shop(tmp_path, kafka_topic_prefix, capsys)
    found.write()
    for name, fields in SCHEMAS.items():
        found.schema(name, fields)
    return found
