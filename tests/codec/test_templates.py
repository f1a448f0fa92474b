"""A template's values are those that the encoder writes; where marks cannot be told apart there is no template."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from choreo.codec.schema import Schema
from choreo.codec.template import Kind, Template, repeated_bytes, text_bytes, whole_bytes
from choreo.codec.wire import Decoder, Encoder

SCHEMA = Schema.parse(
    """{"type": "record", "name": "t.Trip", "fields": [
        {"name": "who", "type": "string"},
        {"name": "seats", "type": "int"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "note", "type": ["null", "string"]},
        {"name": "legs", "type": {"type": "array", "items": {"type": "record", "name": "Leg", "fields": [
            {"name": "to", "type": "string"}, {"name": "miles", "type": "long"}, {"name": "raw", "type": "bytes"}]}}},
        {"name": "tail", "type": "string"}]}"""
)
ENCODER = Encoder(1_000, SCHEMA)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
LONGS = st.integers(-(2**63), 2**63 - 1)
LEGS = st.fixed_dictionaries({"to": TEXTS, "miles": LONGS, "raw": st.binary(max_size=300)})
TRIPS = st.fixed_dictionaries(
    {
        "who": TEXTS,
        "seats": st.integers(-(2**31), 2**31 - 1),
        "at": st.integers(0, 253_402_300_799_999).map(lambda ms: EPOCH + timedelta(milliseconds=ms)),
        "note": st.one_of(st.none(), TEXTS),
        "legs": st.lists(LEGS, min_size=2, max_size=2),
        "tail": st.just("N1"),
    }
)
PLACES = [
    (("who",), Kind.TEXT),
    (("seats",), Kind.INT),
    (("at",), Kind.MOMENT),
    (("legs", 0, "to"), Kind.TEXT),
    (("legs", 0, "miles"), Kind.LONG),
    (("legs", 0, "raw"), Kind.DATA),
    (("legs", 1, "to"), Kind.TEXT),
    (("legs", 1, "miles"), Kind.LONG),
    (("legs", 1, "raw"), Kind.DATA),
]


def filled(template: Template, value: dict[str, Any]) -> bytes:
    places = [
        text_bytes(value["who"].encode()),
        repeated_bytes(value["seats"]),
        whole_bytes((value["at"] - EPOCH) // timedelta(milliseconds=1)),
    ]
    for leg in value["legs"]:
        places += (text_bytes(leg["to"].encode()), whole_bytes(leg["miles"]), text_bytes(leg["raw"]))
    return template.fill(places)


@given(TRIPS, TRIPS)
def test_what_a_template_writes_is_what_the_encoder_writes(first: dict[str, Any], second: dict[str, Any]) -> None:
    template = Template.made(ENCODER, first, PLACES)
    assert template is not None
    second["note"] = first["note"]
    data = filled(template, second)
    assert data == ENCODER.encode(second)
    assert Decoder(SCHEMA, lambda _: SCHEMA).decode(data) == second


def test_marks_that_cannot_be_told_apart_make_no_template() -> None:
    value = {"who": "a", "seats": 1, "at": EPOCH, "note": "\x02place 0\x03", "legs": [], "tail": "N1"}
    assert Template.made(ENCODER, value, [(("who",), Kind.TEXT)]) is None


def test_places_in_another_order_than_the_schemas_make_no_template() -> None:
    value = {"who": "a", "seats": 1, "at": EPOCH, "note": None, "legs": [], "tail": "N1"}
    places = [(("tail",), Kind.TEXT), (("who",), Kind.TEXT)]
    assert Template.made(ENCODER, value, places) is None
