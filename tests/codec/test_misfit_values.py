"""A value that does not fit its schema is refused when it is encoded, naming the field and what it should hold."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest

from choreo.codec.wire import Decoder, encode
from choreo.errors import SchemaError
from tests.codec.shapes import FLIGHT, FLIGHT_VALUE, SCHEMAS

NAIVE = datetime(2013, 1, 1)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tail": None}, "t.Flight.tail holds nothing, expected string"),
        ({"tail": 7}, "t.Flight.tail holds 7 (int), expected string"),
        ({"tail": b"N1"}, "t.Flight.tail holds b'N1' (bytes), expected string"),
        ({"tail": "\ud800"}, "t.Flight.tail holds text that is not valid Unicode"),
        ({"delay": 2**31}, "t.Flight.delay holds 2147483648, outside the range of int (-2147483648 to 2147483647)"),
        ({"delay": 1.5}, "t.Flight.delay holds 1.5 (float), expected int"),
        ({"delay": True}, "t.Flight.delay holds True (bool), expected int"),
        ({"distance": -(2**63) - 1}, "t.Flight.distance holds -9223372036854775809, outside the range of long"),
        ({"speed": "451"}, "t.Flight.speed holds '451' (str), expected double"),
        ({"landed": 1}, "t.Flight.landed holds 1 (int), expected boolean"),
        ({"note": 3}, "t.Flight.note holds 3 (int), expected string"),
        ({"at": NAIVE}, "t.Flight.at holds the datetime 2013-01-01T00:00:00 without a time zone"),
        ({"at": 1357016400000}, "t.Flight.at holds 1357016400000 (int), expected timestamp-millis (long)"),
        ({"colour": "pink"}, "t.Flight.colour holds 'pink', expected one of red, green, blue"),
        ({"stops": ["IAH", 5]}, "t.Flight.stops[1] holds 5 (int), expected string"),
        ({"stops": "IAH"}, "t.Flight.stops holds 'IAH' (str), expected array of string"),
        ({"tails": 1}, "t.Flight has no field 'tails'; its fields: tail, delay"),
    ],
)
def test_the_message_names_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        encode(1000, FLIGHT, {**FLIGHT_VALUE, **change})
    assert caught.value.code == "CH0204"
    assert message in caught.value.message


def test_a_missing_field_without_default_is_named() -> None:
    with pytest.raises(SchemaError, match=r"t\.Flight\.delay is missing and has no default"):
        encode(1000, FLIGHT, {"tail": "N1"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("null", 0, "value holds 0 (int), expected null"),
        ("bytes", "ab", "expected bytes"),
        ("float", 1e300, "expected float"),
        ("fixed", b"abc", "expected fixed t.Four of 4 bytes"),
        ("uuid", "c0ffee00-0000-4000-8000-000000000001", "expected uuid (string)"),
        ("date", datetime(2013, 1, 1, tzinfo=UTC), "expected date (int)"),
        ("time_micros", "05:17", "expected time-micros (long)"),
        ("local_timestamp_micros", datetime(2013, 1, 1, tzinfo=UTC), "expected local-timestamp-micros (long)"),
        ("decimal_bytes", Decimal("1.2345"), "which is no decimal of 12 digits, 3 of them after the point"),
        ("decimal_bytes", Decimal("1E+20"), "which is no decimal of 12 digits"),
        ("decimal_bytes", Decimal("NaN"), "which is no decimal"),
        ("decimal_bytes", 1.5, "expected decimal (bytes)"),
        ("decimal_fixed", Decimal(10) ** 17, "which is no decimal of 18 digits"),
        ("array_of_optional", [1, "x"], "value[1] holds 'x' (str), expected int"),
        ("array_of_doubles", [1.0, True], "value[1] holds True (bool), expected double"),
        ("map", [], "value holds [] (list), expected map of long"),
        ("map", {1: 2}, "expected map of long"),
        ("map", {"a": "b"}, "value['a'] holds 'b' (str), expected long"),
        ("record", {"x": 1, "y": 2, "z": 3}, "t.Record.value has no field 'z'"),
        ("record", {"x": 1, "y": 2**40}, "t.Record.value.y holds 1099511627776"),
        ("optional_record", {"x": 1, "y": 2**40}, "value.y holds 1099511627776"),
        ("optional_instant", NAIVE, "without a time zone"),
        ("optional", ("string", "late"), "value holds ('string', 'late') (tuple), expected string"),
        ("union_of_plain", ("long", 5), "expected null or long or double or string"),
        ("union_of_records", {"x": 1}, "expected null or record t.Point or record t.Circle"),
        ("union_of_records", ("t.Square", {}), "names the branch 't.Square', which is not in the union"),
        ("recursive", {"label": "a", "next": {"label": 5}}, "value.next.label holds 5 (int)"),
    ],
)
def test_every_type_has_its_reason(name: str, value: object, message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        encode(1000, SCHEMAS[name], {"value": value})
    assert caught.value.code == "CH0204"
    assert message in caught.value.message


class _Colour(StrEnum):
    GREEN = "green"


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("double", 3, 3.0),
        ("array_of_doubles", [3], [3.0]),
        ("enum", _Colour.GREEN, "green"),
        ("string", _Colour.GREEN, "green"),
        ("bytes", bytearray(b"ab"), b"ab"),
        ("array", (1, 2), [1, 2]),
        ("decimal_bytes", 5, Decimal("5.000")),
        ("decimal_bytes", Decimal("-0.1"), Decimal("-0.100")),
        ("union_of_plain", 2**40, 2**40),
        ("union_of_records", {"r": 1.0}, ("t.Circle", {"r": 1.0})),
    ],
)
def test_what_means_the_same_is_accepted(name: str, given: object, read: object) -> None:
    schema = SCHEMAS[name]
    assert Decoder(schema, lambda _: schema).decode(encode(1000, schema, {"value": given})) == {"value": read}


def test_sixteen_bytes_of_uuid_are_a_uuid() -> None:
    schema = SCHEMAS["uuid"]
    value = {"value": UUID(int=7)}
    assert Decoder(schema, lambda _: schema).decode(encode(1000, schema, value)) == value


def test_values_without_end_are_refused() -> None:
    value: dict[str, Any] = {"label": "a", "next": None, "children": []}
    for _ in range(5_000):
        value = {"label": "a", "next": value, "children": []}
    with pytest.raises(SchemaError, match="is nested too deeply") as caught:
        encode(1000, SCHEMAS["recursive"], {"value": value})
    assert caught.value.code == "CH0204"


def test_values_without_end_are_refused_whatever_the_recursion_limit() -> None:
    looped: dict[str, Any] = {"label": "a", "next": None, "children": []}
    looped["children"].append(looped)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)  # as property tests raise it: fastavro's recursion is in C and has no other stop
    try:
        with pytest.raises(SchemaError, match="is nested too deeply"):
            encode(1000, SCHEMAS["recursive"], {"value": looped})
    finally:
        sys.setrecursionlimit(limit)
