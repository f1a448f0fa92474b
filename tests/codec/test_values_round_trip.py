"""What is written is read back equal, for every type and logical type; and as the avro package reads it."""

from __future__ import annotations

import io
import json
import warnings
from typing import Any

import avro.io
import avro.schema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choreo.codec.wire import Decoder, encode, split
from tests.codec.shapes import FLIGHT, FLIGHT_VALUE, SCHEMAS, TYPES


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_type_survives_the_wire(name: str, data: st.DataObject) -> None:
    schema = SCHEMAS[name]
    value = {"value": data.draw(TYPES[name][1])}
    wire = encode(1000, schema, value)
    assert Decoder(schema, lambda _: schema).decode(wire) == value


def test_the_envelope_is_confluents_version_zero() -> None:
    wire = encode(0x01020304, FLIGHT, FLIGHT_VALUE)
    assert wire[:5] == b"\x00\x01\x02\x03\x04"
    schema_id, payload = split(wire)
    assert schema_id == 0x01020304
    assert bytes(payload) == wire[5:]


@pytest.mark.parametrize(
    "name", ["recursive", "union_of_records", "map_of_records", "decimal_fixed", "timestamp_micros"]
)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_avro_package_reads_the_same_bytes(name: str, data: st.DataObject) -> None:
    value = data.draw(TYPES[name][1])
    wire = encode(1000, SCHEMAS[name], {"value": value})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = avro.schema.parse(SCHEMAS[name].text)
    decoder = avro.io.BinaryDecoder(io.BytesIO(wire[5:]))
    assert avro.io.DatumReader(schema).read(decoder) == {"value": _untagged(value)}


def _untagged(value: Any) -> Any:
    return value[1] if isinstance(value, tuple) else value


def test_missing_fields_get_typed_defaults() -> None:
    value = {key: FLIGHT_VALUE[key] for key in FLIGHT_VALUE if key not in ("note", "colour", "stops")}
    decoded = Decoder(FLIGHT, lambda _: FLIGHT).decode(encode(1000, FLIGHT, value))
    assert decoded == {**value, "note": None, "colour": "red", "stops": []}


def test_texts_are_canonical() -> None:
    again = type(FLIGHT).parse(json.dumps(json.loads(FLIGHT.text), indent=3))
    assert again == FLIGHT
    assert again.text == FLIGHT.text
