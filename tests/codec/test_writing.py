"""Writing field by field gives what fastavro's public function gives, and where it would not, it is not used."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.codec import writing
from choreo.codec.schema import Schema
from choreo.codec.wire import Decoder, Encoder
from choreo.codec.writing import write_by_field, write_whole
from choreo.errors import SchemaError
from tests.codec.shapes import FLIGHT, FLIGHT_VALUE, SCHEMAS, TYPES

ONE_BRANCH = [name for name in TYPES if not name.startswith("union_of")]  # others are written with names, and whole


def by_field() -> Callable[..., None]:
    assert writing._write_data is not None, "this fastavro has no function for one field, or another one"
    return writing._write_data


@pytest.mark.parametrize("name", ONE_BRANCH)
@given(data=st.data())
def test_every_type_is_written_alike_by_field_and_whole(name: str, data: st.DataObject) -> None:
    value = {"value": data.draw(TYPES[name][1])}
    parsed = SCHEMAS[name].parsed
    assert write_by_field(b"ab", parsed, by_field())(value) == write_whole(b"ab", parsed)(value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tials": "N1"}, "has no field 'tials'"),
        ({"tail": ...}, "tail is missing"),
        ({"tail": ..., "tials": "N1"}, "has no field 'tials'"),
        ({"tail": 7}, "tail holds 7"),
        ({"stops": [1]}, "stops"),
        ({"colour": "pink"}, "pink"),
    ],
)
def test_what_does_not_fit_is_refused_alike(change: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {name: one for name, one in (FLIGHT_VALUE | change).items() if one is not ...}
    messages = []
    for found in (by_field(), None):
        monkeypatch.setattr(writing, "_write_data", found)
        with pytest.raises(SchemaError) as refused:
            Encoder(1_000, FLIGHT).encode(value)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]
    assert said in messages[0]


def test_missing_fields_with_defaults_are_completed() -> None:
    value = {name: one for name, one in FLIGHT_VALUE.items() if name not in ("note", "stops")}
    data = Encoder(1_000, FLIGHT).encode(value)
    assert Decoder(FLIGHT, lambda _: FLIGHT).decode(data) == FLIGHT_VALUE | {"note": None, "stops": []}


def _other_arguments(out: bytearray, value: object) -> None:
    out += b"x"


def _other_bytes(out: bytearray, *_: object) -> None:
    out += b"x"


@pytest.mark.parametrize("function", [_other_arguments, _other_bytes, None])
def test_a_fastavro_with_another_function_writes_whole_records(
    function: Callable[..., None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = writing.import_module("fastavro._write")
    expected = Encoder(1_000, FLIGHT).encode(FLIGHT_VALUE)
    other = SimpleNamespace() if function is None else SimpleNamespace(write_data=function)
    monkeypatch.setattr(writing, "import_module", lambda _: other)
    assert writing._found() is None
    monkeypatch.setattr(writing, "import_module", lambda _: module)
    assert writing._found() is module.write_data
    monkeypatch.setattr(writing, "_write_data", None)
    assert Encoder(1_000, FLIGHT).encode(FLIGHT_VALUE) == expected


def test_a_record_that_names_a_type_twice_is_written_by_field() -> None:
    point = '{"type": "record", "name": "t.P", "fields": [{"name": "x", "type": "int"}]}'
    schema = Schema.parse(
        '{"type": "record", "name": "t.Line", "fields": ['
        f'{{"name": "a", "type": {point}}}, {{"name": "b", "type": "t.P"}}]}}'
    )
    value = {"a": {"x": 1}, "b": {"x": 2}}
    assert write_by_field(b"", schema.parsed, by_field())(value) == write_whole(b"", schema.parsed)(value)
