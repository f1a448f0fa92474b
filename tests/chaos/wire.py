"""Reading and writing Avro in the Confluent format with fastavro alone: nothing of choreo's own code is in the way."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro


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
