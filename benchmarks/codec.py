"""What the codec costs per record, against fastavro alone. Run: python benchmarks/codec.py"""

from __future__ import annotations

import io
import json
import sys
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import fastavro

from choreo.codec.schema import Schema
from choreo.codec.wire import Decoder, Encoder
from choreo.runtime.builtin_schemas import builtin_id

ROUNDS, REPEATS = 5_000, 7
AT = datetime(2013, 1, 1, 5, 17, tzinfo=UTC)
FIELDS: list[tuple[str, Any, Any]] = [
    ("tail", "string", "N14228"),
    ("flight", "string", "UA1545"),
    ("delay", "int", 11),
    ("distance", "long", 123_456),
    ("speed", "double", 451.5),
    ("landed", "boolean", True),
    ("note", ["null", "string"], "late"),
    ("at", {"type": "long", "logicalType": "timestamp-millis"}, AT),
]
EVENT = {"type": "record", "name": "b.Event", "fields": [{"name": name, "type": avro} for name, avro, _ in FIELDS]}
DECISION = {
    **dict.fromkeys(("id", "event_id", "correlation_id", "causation_id"), "0123456789abcdef" * 2),
    **{"topology": "supply_chain", "agent": "carrier_watch", "version": 1, "entity": "N14228", "sequence": 7},
    **{"kind": "event", "outcome": "done", "at": AT, "event_time": AT, "event_type": "supply.FlightDeparted"},
    **{"topic": "departures", "partition": 3, "offset": 12_345, "timer": None, "hop": 1, "traceparent": "0" * 55},
    "rows": [{"table": "aircraft", "schema_id": 1_003, "before": b"x" * 60, "after": b"y" * 60}],
    "emits": [{"topic": "late-flights", "event_id": "e" * 32, "type": "supply.Late", "key": "N14228", "size": 77}],
    **{"timers_set": [], "timers_cancelled": [], "calls": [], "references": []},
    **{"sources": [{"table": "aircraft", "event_id": "f" * 32}], "code": None, "message": None},
}


def microseconds(work: Callable[[], object]) -> float:
    return min(timeit.repeat(work, number=ROUNDS, repeat=REPEATS)) / ROUNDS * 1e6


def measure(name: str, schema_id: int, schema: Schema, value: dict[str, Any]) -> None:
    encoder, decoder = Encoder(schema_id, schema), Decoder(schema, lambda _: schema)
    data = encoder.encode(value)
    assert decoder.decode(data) == value
    figures = {
        "encode_us": microseconds(lambda: encoder.encode(value)),
        "encode_fastavro_us": microseconds(lambda: fastavro.schemaless_writer(io.BytesIO(), schema.parsed, value)),
        "decode_us": microseconds(lambda: decoder.decode(data)),
        "decode_fastavro_us": microseconds(lambda: fastavro.schemaless_reader(io.BytesIO(data[5:]), schema.parsed)),
    }
    line = {"record": name, "bytes": len(data), **{key: round(one, 2) for key, one in figures.items()}}
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    measure("event of 8 fields", 1000, Schema.parse(json.dumps(EVENT)), {name: value for name, _, value in FIELDS})
    measure("choreo.Decision", *builtin_id("Decision"), DECISION)
