"""Small schemas that the codec's tests share, each with the values it can hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from choreo.codec.schema import Schema

INT = st.integers(-(2**31), 2**31 - 1)
LONG = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
INSTANT_MS = st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000))
NODE: dict[str, Any] = {
    "type": "record",
    "name": "t.Node",
    "fields": [
        {"name": "label", "type": "string"},
        {"name": "next", "type": ["null", "t.Node"], "default": None},
        {"name": "children", "type": {"type": "array", "items": "t.Node"}, "default": []},
    ],
}


def logical(kind: str, name: str, **more: object) -> dict[str, object]:
    return {"type": kind, "logicalType": name, **more}


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    return st.integers(-(10**precision) + 1, 10**precision - 1).map(lambda number: Decimal(number).scaleb(-scale))


def record(name: str, *fields: tuple[str, object] | tuple[str, object, object]) -> Schema:
    """A record schema from (name, type[, default]) tuples."""
    body = [{"name": one[0], "type": one[1], **({"default": one[2]} if len(one) == 3 else {})} for one in fields]
    return Schema.parse(json.dumps({"type": "record", "name": f"t.{name}", "fields": body}), f"{name}.avsc")


_nodes = st.recursive(
    st.fixed_dictionaries({"label": TEXT, "next": st.none(), "children": st.just([])}),
    lambda inner: st.fixed_dictionaries(
        {"label": TEXT, "next": st.none() | inner, "children": st.lists(inner, max_size=2)}
    ),
    max_leaves=6,
)
COLOUR = {"type": "enum", "name": "t.Colour", "symbols": ["red", "green", "blue"]}
POINT = {"type": "record", "name": "t.Point", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": "int"}]}
CIRCLE = {"type": "record", "name": "t.Circle", "fields": [{"name": "r", "type": "double"}]}
_points = st.fixed_dictionaries({"x": INT, "y": INT})
_floats = st.floats(allow_nan=False)

# name of the case: (Avro type, values)
TYPES: dict[str, tuple[object, st.SearchStrategy[Any]]] = {
    "null": ("null", st.none()),
    "boolean": ("boolean", st.booleans()),
    "int": ("int", INT),
    "long": ("long", LONG),
    "float": ("float", st.floats(width=32, allow_nan=False)),
    "double": ("double", _floats),
    "bytes": ("bytes", st.binary(max_size=40)),
    "string": ("string", TEXT),
    "enum": (COLOUR, st.sampled_from(["red", "green", "blue"])),
    "fixed": ({"type": "fixed", "name": "t.Four", "size": 4}, st.binary(min_size=4, max_size=4)),
    "timestamp_millis": (logical("long", "timestamp-millis"), INSTANT_MS),
    "timestamp_micros": (logical("long", "timestamp-micros"), st.datetimes(timezones=st.just(UTC))),
    "local_timestamp_micros": (logical("long", "local-timestamp-micros"), st.datetimes()),
    "date": (logical("int", "date"), st.dates()),
    "time_micros": (logical("long", "time-micros"), st.times()),
    "uuid": (logical("string", "uuid"), st.uuids()),
    "decimal_bytes": (logical("bytes", "decimal", precision=12, scale=3), decimals(12, 3)),
    "decimal_fixed": (
        {"type": "fixed", "name": "t.Money", "size": 8, "logicalType": "decimal", "precision": 18, "scale": 2},
        decimals(18, 2),
    ),
    "optional": (["null", "string"], st.none() | TEXT),
    "optional_instant": (["null", logical("long", "timestamp-millis")], st.none() | INSTANT_MS),
    "optional_record": (["null", POINT], st.none() | _points),
    "union_of_plain": (["null", "long", "double", "string"], st.none() | LONG | _floats | TEXT),
    "union_of_times": (
        ["null", logical("int", "date"), logical("long", "timestamp-micros")],
        st.none() | st.dates() | st.datetimes(timezones=st.just(UTC)),
    ),
    "union_of_records": (
        ["null", POINT, CIRCLE],
        st.none()
        | st.tuples(st.just("t.Point"), _points)
        | st.tuples(st.just("t.Circle"), st.fixed_dictionaries({"r": _floats})),
    ),
    "array": ({"type": "array", "items": "int"}, st.lists(INT, max_size=5)),
    "array_of_optional": ({"type": "array", "items": ["null", "int"]}, st.lists(st.none() | INT, max_size=5)),
    "array_of_doubles": ({"type": "array", "items": "double"}, st.lists(_floats, max_size=5)),
    "array_of_null": ({"type": "array", "items": "null"}, st.lists(st.none(), max_size=5)),
    "map": ({"type": "map", "values": "long"}, st.dictionaries(TEXT, LONG, max_size=4)),
    "map_of_records": ({"type": "map", "values": POINT}, st.dictionaries(TEXT, _points, max_size=3)),
    "record": (POINT, _points),
    "recursive": (NODE, _nodes),
}
SCHEMAS = {name: record(name.title().replace("_", ""), ("value", avro)) for name, (avro, _) in TYPES.items()}

FLIGHT = record(
    "Flight",
    ("tail", "string"),
    ("delay", "int"),
    ("distance", "long"),
    ("speed", "double"),
    ("landed", "boolean"),
    ("note", ["null", "string"], None),
    ("at", logical("long", "timestamp-millis")),
    ("colour", COLOUR, "red"),
    ("stops", {"type": "array", "items": "string"}, []),
)
FLIGHT_VALUE: dict[str, Any] = {
    "tail": "N14228",
    "delay": 11,
    "distance": 1400,
    "speed": 451.5,
    "landed": True,
    "note": "late",
    "at": datetime(2013, 1, 1, 5, 17, tzinfo=UTC),
    "colour": "green",
    "stops": ["IAH"],
}
