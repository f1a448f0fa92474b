"""What people type becomes what the schema says, or an error that names the field."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import pytest

from choreo.codec.schema import Schema
from choreo.codec.wire import Decoder, encode
from choreo.errors import SchemaError
from choreo.runtime.json_values import from_cells, from_json

SCHEMA = Schema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "Everything",
            "namespace": "tests",
            "fields": [
                {"name": "text", "type": "string"},
                {"name": "count", "type": "int", "default": 7},
                {"name": "share", "type": "double", "default": 0.0},
                {"name": "open", "type": "boolean", "default": False},
                {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None},
                {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
                {"name": "clock", "type": ["null", {"type": "int", "logicalType": "time-millis"}], "default": None},
                {
                    "name": "price",
                    "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}],
                    "default": None,
                },
                {"name": "id", "type": ["null", {"type": "string", "logicalType": "uuid"}], "default": None},
                {"name": "raw", "type": "bytes", "default": ""},
                {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}, "default": "A"},
                {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
                {"name": "sizes", "type": {"type": "map", "values": "long"}, "default": {}},
                {
                    "name": "inner",
                    "type": ["null", {"type": "record", "name": "Inner", "fields": [{"name": "n", "type": "long"}]}],
                    "default": None,
                },
            ],
        }
    )
)


def written_and_read(values: dict[str, object]) -> dict[str, object]:
    return Decoder(SCHEMA, lambda _: SCHEMA).decode(encode(1, SCHEMA, values))


def test_json_of_every_type_survives_the_wire() -> None:
    typed = {
        "text": "é",
        "count": -3,
        "share": 0.5,
        "open": True,
        "at": "2013-01-01T05:17:00.250Z",
        "day": "2013-01-01",
        "clock": "05:17:00",
        "price": "12.50",
        "id": "00000000-0000-0000-0000-00000000002A",
        "raw": "AAE=",
        "kind": "B",
        "tags": ["x", "y"],
        "sizes": {"a": 1},
        "inner": {"n": 5},
    }
    assert written_and_read(from_json(SCHEMA, typed)) == {
        **typed,
        "at": datetime(2013, 1, 1, 5, 17, 0, 250_000, UTC),
        "day": date(2013, 1, 1),
        "clock": time(5, 17),
        "price": Decimal("12.50"),
        "id": UUID(int=42),
        "raw": b"\x00\x01",
    }


def test_what_is_left_out_takes_its_default() -> None:
    assert written_and_read(from_json(SCHEMA, {"text": "x"}))["count"] == 7


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ({"text": "x", "at": "yesterday"}, "Everything.at"),
        ({"text": "x", "at": 5}, "Everything.at"),
        ({"text": "x", "price": "dear"}, "Everything.price"),
        ({"text": "x", "id": "42"}, "Everything.id"),
        ({"text": "x", "raw": "§"}, "Everything.raw"),
        ({"text": "x", "tags": "x"}, "Everything.tags"),
        ({"text": "x", "sizes": []}, "Everything.sizes"),
        ({"text": "x", "inner": {"m": 1}}, "Everything.inner"),
        ({"text": "x", "colour": 1}, "colour"),
        ([], "Everything"),
        ("x", "Everything"),
        (None, "Everything"),
    ],
)
def test_json_that_does_not_fit_names_the_field(value: object, seen: str) -> None:
    with pytest.raises(SchemaError) as refused:
        from_json(SCHEMA, value, "stdin:3")
    assert refused.value.code == "CH0204"
    assert seen in refused.value.message
    assert refused.value.where == "stdin:3"


def test_cells_are_read_as_their_field_says() -> None:
    cells = {
        "text": "12",
        "count": " 12.0",
        "share": "1e3",
        "open": "Yes",
        "at": "2013-01-01T05:17:00+01:00",
        "price": "3.10",
        "kind": "B",
        "day": "",
    }
    values = written_and_read(from_cells(SCHEMA, cells))
    assert values["text"] == "12"
    assert values["count"] == 12
    assert values["share"] == 1000.0
    assert values["open"] is True
    assert values["at"] == datetime(2013, 1, 1, 4, 17, tzinfo=UTC)
    assert values["price"] == Decimal("3.10")
    assert values["day"] is None


def test_an_empty_cell_is_null_or_the_default_and_empty_text_stays() -> None:
    values = written_and_read(from_cells(SCHEMA, {"text": "", "count": "", "at": ""}))
    assert (values["text"], values["count"], values["at"]) == ("", 7, None)


@pytest.mark.parametrize(
    ("cells", "seen"),
    [
        ({"count": "1.5"}, "count"),
        ({"count": "nan"}, "count"),
        ({"share": "much"}, "share"),
        ({"open": "maybe"}, "open"),
        ({"tags": "a"}, "tags"),
        ({"": "a"}, "no field ''"),
    ],
)
def test_cells_that_do_not_fit_name_the_field(cells: dict[str, str], seen: str) -> None:
    with pytest.raises(SchemaError) as refused:
        from_cells(SCHEMA, {"text": "x", **cells})
    assert refused.value.code == "CH0204"
    assert seen in refused.value.message
