"""A default as written in a schema (JSON) → the Python value a reader gets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Final, NoReturn
from uuid import UUID

from choreo.codec.types import (
    INT_MAX,
    INT_MIN,
    LONG_MAX,
    LONG_MIN,
    Array,
    Enum,
    Fixed,
    Logical,
    Map,
    Primitive,
    Record,
    Type,
    Union,
    described,
)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_LOCAL: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - local timestamps have no zone by definition
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)


class DefaultError(ValueError):
    """The default does not fit the type; the message says what was seen and what is expected."""


def default_value(node: Type, value: object) -> object:
    """A fresh Python value for a JSON default.

    Raises:
        DefaultError: the JSON does not fit the type.
    """
    match node:
        case Primitive(logical=logical):
            raw = _primitive(node, value)
            return raw if logical is None else _logical(node, logical, raw)
        case Fixed(size=size, logical=logical):
            raw_bytes = _latin1(node, value)
            if len(raw_bytes) != size:
                _refuse(node, value)
            return raw_bytes if logical is None else _logical(node, logical, raw_bytes)
        case Enum(symbols=symbols):
            if value not in symbols:
                _refuse(node, value)
            return value
        case Array(items=items):
            if not isinstance(value, list):
                _refuse(node, value)
            return [default_value(items, one) for one in value]
        case Map(values=values):
            if not isinstance(value, dict):
                _refuse(node, value)
            return {key: default_value(values, one) for key, one in value.items()}
        case Union():
            return _union(node, value)
        case Record():
            return _record(node, value)


def default_factory(node: Type, value: object) -> Callable[[], object]:
    """Makes the default's value, a new one each time if it can be changed (a shared list would leak between rows)."""
    made = default_value(node, value)
    if isinstance(made, list | dict | tuple):
        return lambda: default_value(node, value)
    return lambda: made


def from_raw(logical: Logical, raw: object) -> object:
    """The Python value of a logical type from the value that Avro carries.

    Raises:
        ValueError, OverflowError: outside what Python's type can hold.
    """
    name = logical.name
    if isinstance(raw, int):
        if name == "timestamp-millis":
            return EPOCH + timedelta(milliseconds=raw)
        if name == "timestamp-micros":
            return EPOCH + timedelta(microseconds=raw)
        if name == "local-timestamp-millis":
            return EPOCH_LOCAL + timedelta(milliseconds=raw)
        if name == "local-timestamp-micros":
            return EPOCH_LOCAL + timedelta(microseconds=raw)
        if name == "date":
            return date.fromordinal(raw + _EPOCH_DAY)
        micros = raw * 1000 if name == "time-millis" else raw
        if not 0 <= micros < 86_400_000_000:
            raise ValueError(f"{raw} is not a time of day")
        return (EPOCH + timedelta(microseconds=micros)).time()
    if isinstance(raw, bytes):
        unscaled = int.from_bytes(raw, "big", signed=True)
        context = Context(prec=max(logical.precision, 1))
        return context.create_decimal(unscaled).scaleb(-logical.scale, context)
    assert isinstance(raw, str), f"{logical.name} is carried as {type(raw).__name__}"
    return UUID(raw)


def to_raw(logical: Logical, value: object, size: int | None = None) -> object:
    """The inverse of ``from_raw``. ``size`` is that of the fixed that carries a decimal."""
    if isinstance(value, datetime):
        micros = (value - (EPOCH if value.tzinfo else EPOCH_LOCAL)) // _MICROSECOND
        return micros // 1000 if logical.name.endswith("millis") else micros
    if isinstance(value, date):
        return value.toordinal() - _EPOCH_DAY
    if isinstance(value, time):
        micros = ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
        return micros // 1000 if logical.name.endswith("millis") else micros
    if isinstance(value, Decimal):
        unscaled = int(value.scaleb(logical.scale, Context(prec=max(logical.precision, 1))))
        length = size if size is not None else (unscaled if unscaled >= 0 else -unscaled - 1).bit_length() // 8 + 1
        return unscaled.to_bytes(length, "big", signed=True)
    return str(value)


def _refuse(node: Type, value: object) -> NoReturn:
    raise DefaultError(f"the default {value!r} is not a {described(node)}")


def _latin1(node: Type, value: object) -> bytes:
    if not isinstance(value, str):
        raise DefaultError(f"the default {value!r} is not a {described(node)}; bytes are written as a string")
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        raise DefaultError(f"the default {value!r} has characters above \\u00ff, which are no bytes") from None


def _primitive(node: Primitive, value: object) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match node.name:
        case "null":
            fits = value is None
        case "boolean":
            fits = isinstance(value, bool)
        case "int":
            fits = isinstance(value, int) and whole and INT_MIN <= value <= INT_MAX
        case "long":
            fits = isinstance(value, int) and whole and LONG_MIN <= value <= LONG_MAX
        case "float" | "double":
            if not (whole or isinstance(value, float)):
                _refuse(node, value)
            assert isinstance(value, int | float)
            return float(value)
        case "bytes":
            return _latin1(node, value)
        case "string":
            fits = isinstance(value, str)
    if not fits:
        _refuse(node, value)
    return value


def _logical(node: Type, logical: Logical, raw: object) -> object:
    try:
        return from_raw(logical, raw)
    except (ValueError, OverflowError, ArithmeticError) as error:
        raise DefaultError(f"the default {raw!r} is not a {described(node)}: {error}") from None


def _union(node: Union, value: object) -> object:
    for branch in node.branches:
        try:
            made = default_value(branch, value)
        except DefaultError:
            continue
        return (branch.name, made) if isinstance(branch, Record) and node.records > 1 else made
    raise DefaultError(f"the default {value!r} fits no branch of {described(node)}")


def _record(node: Record, value: object) -> object:
    if not isinstance(value, dict):
        raise DefaultError(f"the default {value!r} is not a {described(node)}")
    unknown = sorted(set(value) - {one.name for one in node.fields})
    if unknown:
        raise DefaultError(f"the default names {unknown[0]!r}, which is no field of {node.name}")
    made: dict[str, object] = {}
    for one in node.fields:
        if one.name in value:
            made[one.name] = default_value(one.type, value[one.name])
        elif one.has_default:
            made[one.name] = default_value(one.type, one.default)
        else:
            raise DefaultError(f"the default leaves out the field {one.name!r} of {node.name}")
    return made
