"""Reading and writing Avro in the Confluent format with fastavro alone: nothing of choreo's own code is in the way."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro

BUILTIN_LOCK = Path(__file__).parents[2] / "choreo" / "records" / "registry.lock.json"


@dataclass(frozen=True)
class Wire:
    """One record type: its parsed schema and the id that stands in front of its bytes."""

    schema: Any
    schema_id: int

    @classmethod
    def load(cls, file: Path, schema_id: int) -> Wire:
        return cls(fastavro.parse_schema(json.loads(file.read_text("utf-8"))), schema_id)

    def encode(self, value: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        out.write(struct.pack(">bI", 0, self.schema_id))
        fastavro.schemaless_writer(out, self.schema, value)
        return out.getvalue()

    def decode(self, data: bytes) -> dict[str, Any]:
        magic, schema_id = struct.unpack(">bI", data[:5])
        if (magic, schema_id) != (0, self.schema_id):
            raise AssertionError(f"magic {magic}, schema id {schema_id}; expected 0 and {self.schema_id}")
        rest = io.BytesIO(data[5:])
        value = fastavro.schemaless_reader(rest, self.schema, None)
        if rest.read(1):
            raise AssertionError("bytes are left after the record")
        assert isinstance(value, dict)
        return value


def builtin(name: str) -> Wire:
    """One of choreo's own records, by the id that its published lock file gives it."""
    lock = json.loads(BUILTIN_LOCK.read_text("utf-8"))
    for schema_id, entry in lock["schemas"].items():
        if entry["schema"]["name"] == name:
            return Wire(fastavro.parse_schema(entry["schema"]), int(schema_id))
    raise AssertionError(f"{name} is not in {BUILTIN_LOCK.name}")
