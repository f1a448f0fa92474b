"""Keys are the same text in every language, and rows get their key fields back from it."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.codec.keys import encode_key, key_text, key_values
from choreo.codec.types import Field, Primitive
from choreo.errors import DecodeError, SchemaError
from tests.codec.shapes import COLOUR, LONG, TEXT, logical, record

ID = UUID("C0FFEE00-0000-4000-8000-00000000000A")
KEYED = record(
    "Keyed",
    ("text", "string"),
    ("number", "long"),
    ("id", logical("string", "uuid")),
    ("colour", COLOUR),
    ("day", logical("int", "date")),
)
TEXT_FIELD, NUMBER, UUID_FIELD, ENUM, DAY = KEYED.root.fields


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        (["N14228"], b"N14228"),
        ([""], b""),
        (["Zürich"], "Zürich".encode()),
        ([42], b"42"),
        ([-7], b"-7"),
        ([ID], b"c0ffee00-0000-4000-8000-00000000000a"),
        (["EWR", 3], b'["EWR",3]'),
        ([ID, "ü\n"], '["c0ffee00-0000-4000-8000-00000000000a","ü\\n"]'.encode()),
    ],
)
def test_keys_are_text(parts: list[object], key: bytes) -> None:
    assert encode_key(parts) == key


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([None], "a key field holds nothing"),
        ([1.5], "a key field holds a float"),
        ([True], "a key field holds a bool"),
        (["a", b"b"], "a key field holds a bytes"),
        ([], "a key has at least one field"),
        (["\ud800"], "not valid Unicode"),
        (["a", "\ud800"], "not valid Unicode"),
    ],
)
def test_what_is_no_key_is_refused(parts: list[object], message: str) -> None:
    with pytest.raises(SchemaError, match=message) as caught:
        encode_key(parts)
    assert caught.value.code == "CH0206"


@pytest.mark.parametrize(("key", "message"), [(None, "has no key"), (b"\xff\xfe", "is not UTF-8 text")])
def test_records_without_a_readable_key_are_refused(key: bytes | None, message: str) -> None:
    with pytest.raises(DecodeError, match=message) as caught:
        key_text(key, "flights/0/5")
    assert (caught.value.code, caught.value.where) == ("CH0206", "flights/0/5")


@given(TEXT, LONG, st.uuids(), st.sampled_from(["red", "green"]))
def test_key_fields_come_back_as_the_schema_types_them(text: str, number: int, id_: UUID, colour: str) -> None:
    for field, value in ((TEXT_FIELD, text), (NUMBER, number), (UUID_FIELD, id_), (ENUM, colour)):
        assert key_values(key_text(encode_key([value])), [field]) == {field.name: value}
    fields = [TEXT_FIELD, NUMBER, UUID_FIELD, ENUM]
    values = [text, number, id_, colour]
    assert list(key_values(key_text(encode_key(values)), fields).values()) == values


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("x", [NUMBER]),
        ("007", [NUMBER]),
        ("+7", [NUMBER]),
        ("-0", [NUMBER]),
        ("٣", [NUMBER]),
        ("9" * 5_000, [NUMBER]),
        ("no-uuid", [UUID_FIELD]),
        ("pink", [ENUM]),
        ("15706", [DAY]),
        ("EWR", [TEXT_FIELD, NUMBER]),
        ('["EWR"]', [TEXT_FIELD, NUMBER]),
        ('["EWR","x"]', [TEXT_FIELD, NUMBER]),
        ("[" * 100_000, [TEXT_FIELD, NUMBER]),
        ('{"a":1}', [TEXT_FIELD, NUMBER]),
    ],
)
def test_a_key_that_does_not_fit_is_a_decode_error(text: str, fields: list[Field]) -> None:
    with pytest.raises(DecodeError) as caught:
        key_values(text, fields)
    assert caught.value.code == "CH0206"


def test_an_upper_case_uuid_names_the_same_entity_as_its_row() -> None:
    assert encode_key([ID]) == encode_key([key_values(str(ID).upper(), [UUID_FIELD])["id"]])
    assert isinstance(TEXT_FIELD.type, Primitive)
