"""A wrong schema file is refused with its code, the file and field at fault, and what to write instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from choreo.codec.compat import check
from choreo.codec.schema import Schema, SchemaSet
from choreo.codec.wire import Decoder, encode
from choreo.errors import SchemaError
from choreo.runtime.builtin_schemas import library_texts


def field(avro: object, **more: object) -> str:
    return json.dumps({"type": "record", "name": "t.R", "fields": [{"name": "f", "type": avro, **more}]})


WINDOW = {"kind": "sliding", "size": "5m", "every": "30s"}
CASES: dict[str, tuple[str, str, str]] = {
    # case: (text of R.avsc, where, part of the message with its hint)
    "not JSON": ("{", "R.avsc:1:2", "not valid JSON"),
    "a key twice": ('{"type": "record", "type": "record"}', "R.avsc", "the key 'type' occurs twice"),
    "no named type": ('{"type": "array", "items": "int"}', "R.avsc", "does not define a named type at its top level"),
    "a bare name": ('"string"', "R.avsc", "does not define a named type"),
    "no name": ('{"type": "record", "fields": []}', "R.avsc", "a record has no name"),
    "bad name": ('{"type": "record", "name": "my-record", "fields": []}', "R.avsc", "'my-record' is not an Avro name"),
    "Avro's own name": ('{"type": "record", "name": "string", "fields": []}', "R.avsc", "is a name of Avro itself"),
    "no fields": ('{"type": "record", "name": "t.R"}', "R.avsc: t.R", "has no list of fields"),
    "error type": ('{"type": "error", "name": "t.R", "fields": []}', "R.avsc", "write 'record'"),
    "bad field name": (
        '{"type": "record", "name": "t.R", "fields": [{"name": "1st", "type": "int"}]}',
        "R.avsc: t.R",
        "'1st' is not a field name",
    ),
    "field twice": (
        '{"type":"record","name":"t.R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}',
        "R.avsc: t.R",
        "the field 'a' occurs twice",
    ),
    "no type": ('{"type":"record","name":"t.R","fields":[{"name":"a"}]}', "R.avsc: t.R.a", "the field has no type"),
    "unknown type": (field("strng"), "R.avsc: t.R.f", "no file defines the type 'strng' (did you mean 'string'?)"),
    "logicalType beside the type": (
        field("long", logicalType="timestamp-millis"),
        "R.avsc: t.R.f",
        '"type": {"type": "long", "logicalType": "timestamp-millis"}',
    ),
    "logical type on the wrong type": (
        field({"type": "int", "logicalType": "timestamp-millis"}),
        "R.avsc: t.R.f",
        "the logical type timestamp-millis annotates long, not int",
    ),
    "decimal without precision": (
        field({"type": "bytes", "logicalType": "decimal"}),
        "R.avsc: t.R.f",
        "needs a precision from 1 to 1000",
    ),
    "decimal with too large a scale": (
        field({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 5}),
        "R.avsc: t.R.f",
        "scale lies between 0 and its precision 4, saw 5",
    ),
    "decimal that does not fit its fixed": (
        field({"type": "fixed", "name": "t.F", "size": 2, "logicalType": "decimal", "precision": 9}),
        "R.avsc: t.F",
        "9 digits does not fit into 2 bytes",
    ),
    "fixed without size": (field({"type": "fixed", "name": "t.F"}), "R.avsc: t.F", "a fixed needs a size"),
    "empty enum": (field({"type": "enum", "name": "t.E", "symbols": []}), "R.avsc: t.E", "needs a list of symbols"),
    "enum symbol twice": (
        field({"type": "enum", "name": "t.E", "symbols": ["a", "a"]}),
        "R.avsc: t.E",
        "the enum symbol 'a' occurs twice",
    ),
    "bad enum symbol": (
        field({"type": "enum", "name": "t.E", "symbols": ["a-b"]}),
        "R.avsc: t.E",
        "'a-b' is not an enum symbol",
    ),
    "enum default": (
        field({"type": "enum", "name": "t.E", "symbols": ["a"], "default": "b"}),
        "R.avsc: t.E",
        "default 'b' is none of its symbols",
    ),
    "empty union": (field([]), "R.avsc: t.R.f", "a union without branches"),
    "union in a union": (field([["null", "int"]]), "R.avsc: t.R.f", "a union directly inside a union"),
    "union with a branch twice": (field(["int", "int"]), "R.avsc: t.R.f", "two branches of type int"),
    "array without items": (field({"type": "array"}), "R.avsc: t.R.f", "the array has no 'items'"),
    "default of another type": (field("int", default="3"), "R.avsc: t.R.f", "the default '3' is not a int"),
    "default out of range": (field("int", default=2**31), "R.avsc: t.R.f", "the default 2147483648 is not a int"),
    "default of a union": (field(["null", "int"], default="x"), "R.avsc: t.R.f", "fits no branch of null or int"),
    "default date": (
        field({"type": "int", "logicalType": "date"}, default=2**31 - 1),
        "R.avsc: t.R.f",
        "is not a date (int)",
    ),
    "default uuid": (field({"type": "string", "logicalType": "uuid"}, default="x"), "R.avsc: t.R.f", "is not a uuid"),
    "record in itself": (field("t.R"), "R.avsc: t.R", "t.R always contains itself"),
    "records in each other": (
        field({"type": "record", "name": "t.S", "fields": [{"name": "r", "type": ["t.R", "t.S"]}]}),
        "R.avsc: t.R",
        "always contains itself",
    ),
    "window without configuration": (field("choreo.Window"), "R.avsc: t.R.f", "needs its configuration"),
    "configuration without window": (field("int", window=WINDOW), "R.avsc: t.R.f", "configures a field of type"),
    "window in a union": (field(["null", "choreo.Window"]), "R.avsc: t.R.f", "stands inside another type"),
    "nested without end": (field(json.loads("[" * 90 + "]" * 90)), "R.avsc", "nested more than 64 deep"),
    "JSON nested without end": ("[" * 100_000, "R.avsc", "nested too deeply"),
}


def _doubling(levels: int) -> dict[str, object]:
    """A record whose every level has the next one twice."""
    inner: dict[str, object] = {"type": "record", "name": f"t.L{levels}", "fields": []}
    for level in reversed(range(levels)):
        twice = [{"name": "a", "type": inner}, {"name": "b", "type": f"t.L{level + 1}"}]
        inner = {"type": "record", "name": f"t.L{level}", "fields": twice}
    return inner


def test_a_schema_that_doubles_at_every_level_is_refused_at_once() -> None:
    with pytest.raises(SchemaError, match="has more than 20000 values"):
        Schema.parse(json.dumps(_doubling(30)))
    text = json.dumps(_doubling(30)).replace('"t.L', '"t.M')
    with pytest.raises(SchemaError, match="has more than 20000 values"):
        Schema.parse(_optional_with_default(text))
    small = Schema.parse(json.dumps(_doubling(3)))
    assert Decoder(small, lambda _: small).decode(encode(1, small, _filled(3)))


def _optional_with_default(text: str) -> str:
    """The same with every field a union whose default is the inner record."""

    def changed(body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        fields = [
            {"name": one["name"], "type": [changed(one["type"]), "null"], "default": {}} for one in body["fields"]
        ]
        return {**body, "fields": fields}

    return json.dumps(changed(json.loads(text)))


def _filled(levels: int) -> dict[str, object]:
    return {"a": _filled(levels - 1), "b": _filled(levels - 1)} if levels else {}


def test_records_that_all_refer_to_each_other_are_no_trouble() -> None:
    names = [f"t.C{number}" for number in range(14)]
    files = {
        name: json.dumps(
            {
                "type": "record",
                "name": name,
                "fields": [
                    {"name": f"f{number}", "type": ["null", "int", other], "default": None}
                    for number, other in enumerate(names)
                ],
            }
        )
        for name in names
    }
    new = SchemaSet.load(files).by_name("C0")
    old = SchemaSet.load({name: text.replace('"int"', '"string"') for name, text in files.items()}).by_name("C0")
    assert len(check(new, old)) >= 14
    value = Decoder(new, lambda _: new).decode(encode(1, new, {}))
    assert value == {f"f{number}": None for number in range(14)}
    assert Decoder(new, lambda _: old).decode(encode(1, old, {})) == value


@pytest.mark.parametrize("name", CASES)
def test_each_mistake_is_refused_with_its_place(name: str) -> None:
    text, where, message = CASES[name]
    with pytest.raises(SchemaError) as caught:
        SchemaSet.load({"R.avsc": text}, library_texts())
    assert caught.value.code == "CH0202"
    assert caught.value.where is not None
    assert caught.value.where == where
    assert message in f"{caught.value.message} ({caught.value.hint})"


def test_a_type_defined_in_two_files_is_refused() -> None:
    point = json.dumps({"type": "record", "name": "t.P", "fields": []})
    with pytest.raises(SchemaError, match=r"t\.P is defined twice \(A.avsc and B.avsc\)"):
        SchemaSet.load({"A.avsc": point, "B.avsc": point})


def test_files_may_refer_to_each_other_and_to_types_inside_others() -> None:
    leg = {
        "type": "record",
        "name": "Leg",
        "namespace": "t",
        "fields": [
            {"name": "mode", "type": {"type": "enum", "name": "Mode", "symbols": ["air", "road"]}},
            {"name": "carrier", "type": ["null", "Carrier"], "default": None},
        ],
    }
    carrier = {
        "type": "record",
        "name": "t.Carrier",
        "fields": [{"name": "modes", "type": {"type": "array", "items": "t.Mode"}}, {"name": "main", "type": "t.Mode"}],
    }
    schemas = SchemaSet.load({"Leg.avsc": json.dumps(leg), "Carrier.avsc": json.dumps(carrier)})
    assert [schema.full_name for schema in schemas] == ["t.Carrier", "t.Leg"]
    assert schemas.by_name("Leg") is schemas.by_name("t.Leg")
    assert schemas.files["t.Mode"] == "Leg.avsc"
    for schema in schemas:  # each text stands alone
        assert Schema.parse(schema.text) == schema
    assert schemas.by_name("Carrier").text.count('"symbols"') == 1


def test_unknown_and_ambiguous_names_say_what_there_is() -> None:
    one = json.dumps({"type": "record", "name": "a.R", "fields": []})
    two = json.dumps({"type": "record", "name": "b.R", "fields": []})
    schemas = SchemaSet.load({"A.avsc": one, "B.avsc": two})
    with pytest.raises(SchemaError, match=r"the name 'R' is ambiguous \(write one of a\.R, b\.R\)"):
        schemas.by_name("R")
    with pytest.raises(SchemaError, match=r"no \.avsc file defines the record 'Q' \(known records: R, R\)"):
        schemas.by_name("Q")


def test_docs_change_the_text_and_not_the_fingerprint() -> None:
    bare = Schema.parse(field("int"))
    documented = Schema.parse(field("int", doc="what it means"))
    other = Schema.parse(field("int", default=0))
    assert bare == documented
    assert bare.text != documented.text
    assert bare != other


def test_a_window_field_is_empty_by_default() -> None:
    schemas = SchemaSet.load({"R.avsc": field("choreo.Window", window=WINDOW)}, library_texts())
    found = schemas.by_name("R").field("f")
    assert found is not None
    assert found.window == WINDOW
    assert found.default == {"buckets": [], "watermark": -1}
