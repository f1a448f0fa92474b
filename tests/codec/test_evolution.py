"""A reader reads what other versions wrote: by the writer's id, with typed defaults, or says what is in the way."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from choreo.codec.compat import check
from choreo.codec.schema import Schema
from choreo.codec.wire import Decoder, encode
from choreo.errors import DecodeError
from tests.codec.shapes import logical, record

MILLIS = logical("long", "timestamp-millis")
MICROS = logical("long", "timestamp-micros")
AT = datetime(2013, 1, 1, 5, tzinfo=UTC)
AT_MS = int(AT.timestamp() * 1000)


def enum(*symbols: str, **more: object) -> dict[str, object]:
    return {"type": "enum", "name": "t.E", "symbols": list(symbols), **more}


def decimal(precision: int, scale: int) -> dict[str, object]:
    return logical("bytes", "decimal", precision=precision, scale=scale)


def inner(*fields: tuple[str, object] | tuple[str, object, object], name: str = "t.In") -> object:
    body = json.loads(record("X", *fields).text)
    return {**body, "name": name}


READABLE: dict[str, tuple[object, object, object, object]] = {
    # case: (writer's type, written, reader's type, read)
    "int to long": ("int", 7, "long", 7),
    "int to double": ("int", 7, "double", 7.0),
    "long to float": ("long", 7, "float", 7.0),
    "float to double": ("float", 0.5, "double", 0.5),
    "string to bytes": ("string", "é", "bytes", "é".encode()),
    "bytes to string": ("bytes", "é".encode(), "string", "é"),
    "to an optional": ("string", "a", ["null", "string"], "a"),
    "from an optional": (["null", "string"], "a", "string", "a"),
    "to a wider union": (["null", "int"], 5, ["null", "string", "long"], 5),
    "union reordered": (["null", "string"], "a", ["string", "null"], "a"),
    "promotion inside a union": (["null", "int"], 5, ["null", "double"], 5.0),
    "array items": ({"type": "array", "items": "int"}, [1, 2], {"type": "array", "items": "double"}, [1.0, 2.0]),
    "map values": ({"type": "map", "values": "int"}, {"a": 1}, {"type": "map", "values": "double"}, {"a": 1.0}),
    "enum grows": (enum("a", "b"), "b", enum("a", "b", "c"), "b"),
    "enum shrinks with a default": (enum("a", "b"), "b", enum("a", "z", default="z"), "z"),
    "a symbol that is still there": (enum("a", "b"), "a", enum("a"), "a"),
    "number becomes an instant": ("long", AT_MS, MILLIS, AT),
    "an instant becomes a number": (MILLIS, AT, "long", AT_MS),
    "millis to micros keep the instant": (MILLIS, AT, MICROS, AT),
    "micros to millis keep the instant": (MICROS, AT, MILLIS, AT),
    "micros to millis round down": (MICROS, AT.replace(microsecond=1_999), MILLIS, AT.replace(microsecond=1_000)),
    "a long that a float cannot hold exactly": ("long", 2**24 + 1, "float", float(2**24)),
    "an int becomes a date": ("int", 15706, logical("int", "date"), date(2013, 1, 1)),
    "a date becomes a long": (logical("int", "date"), date(2013, 1, 1), "long", 15706),
    "text becomes a uuid": ("string", str(UUID(int=9)), logical("string", "uuid"), UUID(int=9)),
    "a uuid becomes text": (logical("string", "uuid"), UUID(int=9), "string", str(UUID(int=9))),
    "a decimal gets more digits": (decimal(4, 2), Decimal("1.25"), decimal(9, 2), Decimal("1.25")),
    "a decimal that fits fewer digits": (decimal(9, 2), Decimal("1.25"), decimal(4, 2), Decimal("1.25")),
    "a decimal becomes bytes": (decimal(4, 2), Decimal("-1.25"), "bytes", b"\x83"),
    "a field is dropped": (inner(("a", "int"), ("b", "int")), {"a": 1, "b": 2}, inner(("a", "int")), {"a": 1}),
    "a field is added": (
        inner(("a", "int")),
        {"a": 1},
        inner(("a", "int"), ("at", MILLIS, AT_MS), ("raw", "bytes", "\u00ff"), ("price", decimal(4, 2), "}")),
        {"a": 1, "at": AT, "raw": b"\xff", "price": Decimal("1.25")},
    ),
    "fields are reordered": (
        inner(("a", "int"), ("b", "int")),
        {"a": 1, "b": 2},
        inner(("b", "int"), ("a", "int")),
        {"a": 1, "b": 2},
    ),
    "a union of records grows": (
        ["null", inner(("a", "int"), name="t.A")],
        {"a": 1},
        ["null", inner(("b", "int"), name="t.B"), inner(("a", "int"), name="t.A")],
        ("t.A", {"a": 1}),
    ),
    "a union of records shrinks": (
        [inner(("a", "int"), name="t.A"), inner(("b", "int"), name="t.B")],
        ("t.A", {"a": 1}),
        ["null", inner(("a", "long"), name="t.A")],
        {"a": 1},
    ),
    "an array in a union": (
        ["null", {"type": "array", "items": "int"}],
        [1],
        ["null", {"type": "array", "items": "double"}],
        [1.0],
    ),
    "namespace changes": (
        inner(("a", "int"), name="old.In"),
        {"a": 1},
        inner(("a", "int"), name="new.In"),
        {"a": 1},
    ),
}


def read(writer: Schema, reader: Schema, value: dict[str, Any]) -> dict[str, Any]:
    known = {1000: writer, 1001: reader}
    return Decoder(reader, known.__getitem__).decode(encode(1000, writer, value), "t/0/1")


@pytest.mark.parametrize("name", READABLE)
def test_every_allowed_change_is_read(name: str) -> None:
    old, written, new, expected = READABLE[name]
    assert read(record("R", ("f", old)), record("R", ("f", new)), {"f": written}) == {"f": expected}


UNREADABLE: dict[str, tuple[object, object, object, str]] = {
    "another type": ("string", "a", "int", "written as string, read as int"),
    "narrower number": ("long", 7, "int", "written as long, read as int"),
    "null into a plain field": (["null", "string"], None, "string", "t.R.f: None has no place in the reader's string"),
    "a branch that is gone": (["null", "int", "string"], "a", ["null", "int"], "'a' has no place"),
    "a symbol that is gone": (enum("a", "b"), "b", enum("a"), "t.R.f: the symbol 'b' is unknown to the reader"),
    "another enum": (enum("a"), "a", {**enum("a"), "name": "t.F"}, "written as enum t.E, read as enum t.F"),
    "another record": (inner(("a", "int")), {"a": 1}, inner(("a", "int"), name="t.On"), "read as record t.On"),
    "a field without default": (inner(("a", "int")), {"a": 1}, inner(("b", "int")), "'b' has no default"),
    "another scale": (decimal(4, 2), Decimal("1.25"), decimal(4, 3), "written as decimal (bytes)"),
    "too many digits": (decimal(9, 2), Decimal("12345.67"), decimal(4, 2), "has more than the reader's 4 digits"),
    "an instant becomes local": (MILLIS, AT, logical("long", "local-timestamp-millis"), "read as local-timestamp"),
    "text that is no uuid": ("string", "x", logical("string", "uuid"), "badly formed hexadecimal UUID string"),
    "a number that is no date": ("int", 2**31 - 1, logical("int", "date"), "outside the years"),
    "bytes that are no text": ("bytes", b"\xff", "string", "can't decode byte"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_one_decode_error(name: str) -> None:
    old, written, new, message = UNREADABLE[name]
    with pytest.raises(DecodeError) as caught:
        read(record("R", ("f", old)), record("R", ("f", new)), {"f": written})
    assert caught.value.code == "CH0201"
    assert caught.value.where == "t/0/1"
    assert message in caught.value.message


@pytest.mark.parametrize("name", [*READABLE, *UNREADABLE])
def test_what_the_check_allows_can_be_read(name: str) -> None:
    old, written, new, *_ = (READABLE | UNREADABLE)[name]
    writer, reader = record("R", ("f", old)), record("R", ("f", new))
    if not check(reader, writer, "BACKWARD"):
        try:
            read(writer, reader, {"f": written})
        except DecodeError as error:  # a value outside the new type's range: no check of schemas can see it
            assert "cannot be used" not in error.message


def test_renamed_fields_are_found_by_alias() -> None:
    writer = record("R", ("tail", "string"))
    body = json.loads(record("R", ("tail_number", "string")).text)
    body["fields"][0]["aliases"] = ["tail"]
    assert read(writer, Schema.parse(json.dumps(body)), {"tail": "N1"}) == {"tail_number": "N1"}


def test_a_renamed_record_is_found_by_alias() -> None:
    body = json.loads(record("Departed", ("tail", "string")).text)
    reader = Schema.parse(json.dumps({**body, "aliases": ["t.Left"]}))
    assert read(record("Left", ("tail", "string")), reader, {"tail": "N1"}) == {"tail": "N1"}


def test_recursive_records_evolve_at_every_level() -> None:
    def node(*more: dict[str, object]) -> Schema:
        fields = [{"name": "v", "type": "int"}, {"name": "next", "type": ["null", "t.N"], "default": None}, *more]
        return Schema.parse(json.dumps({"type": "record", "name": "t.N", "fields": fields}))

    value = {"v": 1, "next": {"v": 2, "next": {"v": 3, "next": None}}}
    extra: dict[str, Any] = {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []}
    found: Any = read(node(), node(extra), value)
    assert found["next"]["next"] == {"v": 3, "next": None, "tags": []}
    assert read(node(extra), node(), found) == value


def test_defaults_are_not_shared_between_rows() -> None:
    writer, reader = (
        record("R", ("a", "int")),
        record("R", ("a", "int"), ("tags", {"type": "array", "items": "int"}, [1])),
    )
    first = read(writer, reader, {"a": 1})
    first["tags"].append(2)
    assert read(writer, reader, {"a": 1})["tags"] == [1]


def test_each_writer_is_looked_up_once() -> None:
    asked: list[int] = []
    writer, reader = record("R", ("a", "int")), record("R", ("a", "long"))

    def lookup(schema_id: int) -> Schema:
        asked.append(schema_id)
        return writer if schema_id == 1000 else reader

    decoder = Decoder(reader, lookup)
    for _ in range(3):
        assert decoder.decode(encode(1000, writer, {"a": 1})) == {"a": 1}
        assert decoder.decode(encode(1001, reader, {"a": 2})) == {"a": 2}
    assert asked == [1000, 1001]
