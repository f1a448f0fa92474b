"""How fastavro is asked to write a record: whole, or field by field, which takes half the time.

fastavro's public ``schemaless_writer`` makes sets of the names of the value and of the schema before it writes, to find
fields that the schema does not have. That is 1 µs of the 2 µs for a small record, and here the number of fields says as
much: ``value[name]`` finds what is missing, so that a record with as many fields as the schema has no others. The
function that ``schemaless_writer`` then calls for each field, ``write_data``, is in fastavro's compiled module and not
documented. So it is tried once, when this module is imported, on a record with every kind of field; a fastavro whose
function is another one, or gone, writes whole records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib import import_module
from io import BytesIO
from typing import Any, Final
from uuid import UUID

from fastavro import parse_schema, schemaless_writer

Write = Callable[[Mapping[str, Any]], bytes]
"""Bytes of a value with all of its fields, plainly typed; raises what fastavro raises."""

_OPTIONS: Final = {"strict": True, "strict_allow_default": False, "disable_tuple_notation": True}


def write_whole(start: bytes, parsed: Any, *, branches_named: bool = False) -> Write:
    """Writes records with the public function.

    Args:
        start: comes before the record's bytes.
        parsed: the schema as ``fastavro.parse_schema`` gives it.
        branches_named: values of unions are (name, value); otherwise fastavro tries which branch fits.
    """
    tuples_are_values = not branches_named

    def write(value: Mapping[str, Any]) -> bytes:
        out = BytesIO()
        out.write(start)
        schemaless_writer(out, parsed, value, True, False, tuples_are_values)
        return out.getvalue()

    return write


def write_by_field(start: bytes, parsed: Any, write_data: Callable[..., None]) -> Write:
    """Writes records field by field; otherwise like ``write_whole``."""
    fields = [(field["name"], field["type"]) for field in parsed["fields"]]
    count = len(fields)
    named = dict(parsed["__named_schemas"])

    def write(value: Mapping[str, Any]) -> bytes:
        if len(value) != count:
            raise ValueError("the record has other fields than its schema")
        out = bytearray(start)
        for name, kind in fields:
            write_data(out, value[name], kind, named, name, _OPTIONS)
        return bytes(out)

    return write


def writer(start: bytes, parsed: Any) -> Write:
    """The fastest way that works."""
    if _write_data is None:
        return write_whole(start, parsed)
    return write_by_field(start, parsed, _write_data)


_PART: Final = {"type": "record", "name": "t.Part", "fields": [{"name": "n", "type": "long"}]}
_TRIAL: Final[list[tuple[Any, Any]]] = [
    ("null", None),
    ("boolean", True),
    ("int", -7),
    ("long", 2**40),
    ("float", 0.5),
    ("double", 0.1),
    ("bytes", b"\0\xff"),
    ("string", "żółw"),
    ({"type": "fixed", "name": "t.F", "size": 2}, b"ab"),
    ({"type": "enum", "name": "t.E", "symbols": ["A", "B"]}, "B"),
    ({"type": "array", "items": _PART}, [{"n": 1}, {"n": 2}]),
    ({"type": "map", "values": "t.Part"}, {"x": {"n": 3}}),
    (["null", "t.E"], "A"),
    (["null", "string"], None),
    (["null", "t.Part", "double"], {"n": 4}),
    ({"type": "long", "logicalType": "timestamp-millis"}, datetime(2013, 1, 1, 5, 17, tzinfo=UTC)),
    ({"type": "int", "logicalType": "date"}, date(2013, 1, 1)),
    ({"type": "string", "logicalType": "uuid"}, UUID(int=7)),
    ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("-1.50")),
]


def _found() -> Callable[..., None] | None:
    """fastavro's function for one field, if there is one that does what it is used for."""
    fields = [{"name": f"f{number}", "type": kind} for number, (kind, _) in enumerate(_TRIAL)]
    parsed = parse_schema({"type": "record", "name": "t.Trial", "fields": fields})
    value = {f"f{number}": one for number, (_, one) in enumerate(_TRIAL)}
    try:
        found: Callable[..., None] = import_module("fastavro._write").write_data
        works = write_by_field(b"start", parsed, found)(value) == write_whole(b"start", parsed)(value)
    except (ImportError, AttributeError, TypeError, ValueError, LookupError):
        return None
    return found if works else None


_write_data: Final = _found()
