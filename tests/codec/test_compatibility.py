"""An incompatible change names the field at fault; what the avro package objects to is never let through."""

from __future__ import annotations

import json
import warnings
from typing import Any

import avro.schema
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from hypothesis import given, settings
from hypothesis import strategies as st

from choreo.codec.compat import Level, check, check_versions, require
from choreo.codec.schema import Schema
from choreo.codec.wire import Decoder, encode
from choreo.errors import DecodeError, SchemaError
from tests.codec.shapes import logical

BASE: list[dict[str, Any]] = [
    {"name": "id", "type": "string"},
    {"name": "kind", "type": {"type": "enum", "name": "a.K", "symbols": ["x", "y"]}},
    {
        "name": "inner",
        "type": {
            "type": "record",
            "name": "a.In",
            "fields": [
                {"name": "q", "type": "int"},
                {"name": "list", "type": {"type": "array", "items": "int"}},
                {"name": "map", "type": {"type": "map", "values": ["null", "string"]}},
            ],
        },
    },
    {"name": "opt", "type": ["null", "string"], "default": None},
    {"name": "price", "type": logical("bytes", "decimal", precision=6, scale=2)},
    {"name": "at", "type": logical("long", "timestamp-millis")},
    {"name": "hash", "type": {"type": "fixed", "name": "a.H", "size": 4}},
]


def schema(fields: list[dict[str, Any]], name: str = "a.R") -> Schema:
    return Schema.parse(json.dumps({"type": "record", "name": name, "fields": fields}))


def changed(path: str, value: Any) -> Schema:
    """The base with one part replaced; ``path`` as in ``2.type.fields.0.type``, the value None removes it."""
    fields = json.loads(json.dumps(BASE))
    *steps, last = path.split(".")
    place: Any = fields
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if isinstance(place, list):
        place[int(last) : int(last) + 1] = [] if value is None else [value]
    else:
        place[last] = value
    return schema(fields)


OLD = schema(BASE)
CASES: list[tuple[str, Schema, Level, list[str]]] = [
    ("nothing", OLD, "FULL", []),
    ("field without default", changed("7", {"name": "z", "type": "int"}), "BACKWARD", ["a.R.z"]),
    ("field with default", changed("7", {"name": "z", "type": "int", "default": 0}), "FULL", []),
    ("field removed", changed("0", None), "BACKWARD", []),
    ("field removed, old readers", changed("0", None), "FORWARD", ["a.R.id"]),
    ("optional field removed", changed("3", None), "FULL", []),
    ("another type", changed("0.type", "int"), "BACKWARD", ["a.R.id"]),
    ("promotion", changed("2.type.fields.0.type", "double"), "BACKWARD", []),
    ("promotion, old readers", changed("2.type.fields.0.type", "double"), "FORWARD", ["a.R.inner.q"]),
    ("symbol removed", changed("1.type.symbols", ["x"]), "BACKWARD", ["a.R.kind"]),
    ("symbol added", changed("1.type.symbols", ["x", "y", "z"]), "FULL", ["a.R.kind"]),
    ("items", changed("2.type.fields.1.type.items", "string"), "BACKWARD", ["a.R.inner.list[]"]),
    ("values in a union", changed("2.type.fields.2.type.values", ["null", "int"]), "BACKWARD", ["a.R.inner.map{}"]),
    ("union narrowed", changed("3", {"name": "opt", "type": "string"}), "BACKWARD", ["a.R.opt"]),
    ("union widened", changed("0.type", ["null", "string"]), "BACKWARD", []),
    ("union widened, old readers", changed("0.type", ["null", "string"]), "FORWARD", ["a.R.id"]),
    ("scale", changed("4.type.scale", 3), "BACKWARD", ["a.R.price"]),
    ("fewer digits", changed("4.type.precision", 5), "BACKWARD", ["a.R.price"]),
    ("instant to local time", changed("5.type.logicalType", "local-timestamp-millis"), "BACKWARD", ["a.R.at"]),
    ("millis to micros", changed("5.type.logicalType", "timestamp-micros"), "FULL", []),
    ("size", changed("6.type.size", 5), "BACKWARD", ["a.R.hash"]),
    ("inner record renamed", changed("2.type.name", "a.Other"), "BACKWARD", ["a.R.inner"]),
    (
        "inner record renamed with alias",
        changed("2.type", {**BASE[2]["type"], "name": "a.O", "aliases": ["a.In"]}),
        "BACKWARD",
        [],
    ),
    ("record renamed", schema(BASE, "a.Q"), "BACKWARD", ["a.Q"]),
    ("anything goes", changed("0.type", "int"), "NONE", []),
]


@pytest.mark.parametrize(("new", "level", "paths"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_change_names_its_field(new: Schema, level: Level, paths: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problems = check(new, OLD, level)
    assert [problem.path for problem in problems] == paths


def test_every_field_at_fault_is_named_and_every_version_counts() -> None:
    new = schema([{"name": "id", "type": "int"}, {"name": "z", "type": "int"}])
    older = schema([{"name": "id", "type": "string"}])
    with pytest.raises(SchemaError) as caught:
        require(new, [older, OLD], "BACKWARD", "flights-value")
    assert caught.value.code == "CH0203"
    assert caught.value.where == "flights-value"
    assert "a.R.id: its type is int, records have string" in caught.value.message
    assert "a.R.z: it has no default, and records without it exist" in caught.value.message
    assert caught.value.message.count("a.R.id") == 1
    again = schema([{"name": "id", "type": "string"}, {"name": "n", "type": "int", "default": 0}])
    first = schema([{"name": "id", "type": "string"}, {"name": "n", "type": "string"}])
    assert check_versions(again, [older], "BACKWARD") == []
    assert [one.path for one in check_versions(again, [first, older], "BACKWARD")] == ["a.R.n"]


_PLAIN = st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])
_TYPES = st.recursive(
    _PLAIN,
    lambda inner: (
        st.builds(lambda items: {"type": "array", "items": items}, inner)
        | st.builds(lambda values: {"type": "map", "values": values}, inner)
        | st.lists(_PLAIN, min_size=1, max_size=3, unique=True)
    ),
    max_leaves=3,
)
_FIELDS = st.dictionaries(st.sampled_from("abc"), st.tuples(_TYPES, st.booleans()), max_size=3)
_ZERO: dict[str, Any] = {
    "null": None,
    "boolean": False,
    "int": 0,
    "long": 0,
    "float": 0.5,
    "double": 0.5,
    "bytes": "",
    "string": "",
}


def _zero(avro: Any) -> Any:
    if isinstance(avro, list):
        return _zero(avro[0])
    return ([] if avro["type"] == "array" else {}) if isinstance(avro, dict) else _ZERO[avro]


def _made(fields: dict[str, tuple[Any, bool]]) -> Schema:
    return schema(
        [
            {"name": name, "type": avro, **({"default": _zero(avro)} if default else {})}
            for name, (avro, default) in fields.items()
        ]
    )


@settings(max_examples=200, deadline=None)
@given(_FIELDS, _FIELDS)
def test_the_walk_and_the_avro_package_agree(new: dict[str, Any], old: dict[str, Any]) -> None:
    reader, writer = _made(new), _made(old)
    result = ReaderWriterCompatibilityChecker().get_compatibility(
        avro.schema.parse(reader.text), avro.schema.parse(writer.text)
    )
    compatible = result.compatibility is SchemaCompatibilityType.compatible
    assert compatible == (not check(reader, writer, "BACKWARD")), (result.messages, result.locations)


@settings(max_examples=200, deadline=None)
@given(_FIELDS, _FIELDS)
def test_a_compatible_reader_reads_what_the_writer_writes(new: dict[str, Any], old: dict[str, Any]) -> None:
    reader, writer = _made(new), _made(old)
    value = {name: b"" if avro == "bytes" else _zero(avro) for name, (avro, _) in old.items()}
    value = {key: b"" if one == "" and _is_bytes(old[key][0]) else one for key, one in value.items()}
    data = encode(1000, writer, value)
    decoder = Decoder(reader, lambda _: writer)
    if not check(reader, writer, "BACKWARD"):
        assert set(decoder.decode(data)) == set(new)
    else:  # some values may still be readable; never anything but a value or a DecodeError
        try:
            decoder.decode(data)
        except DecodeError as error:
            assert error.code == "CH0201"


def _is_bytes(avro: Any) -> bool:
    return avro == "bytes" or (isinstance(avro, list) and avro[0] == "bytes")
