"""Values as people type them: JSON and CSV cells to what an Avro schema calls for.

JSON has no times, decimals, UUIDs or bytes; they are written as text (ISO 8601, digits, hex with dashes, base64). CSV
has only text, so every cell is read as its field's type says; an empty cell is null where the field allows it, else its
default. What comes out is complete enough for the encoder, which checks everything once more.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Final
from uuid import UUID

from choreo.codec.schema import Schema
from choreo.codec.types import Array, Enum, Field, Fixed, Logical, Map, Primitive, Record, Type, Union, described
from choreo.errors import SchemaError

TRUE = frozenset({"true", "yes", "1"})
FALSE = frozenset({"false", "no", "0"})
# Spreadsheets write 12 as 12.0. A long has 19 digits; some more may be zeros before them.
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,40}(\.0*)?")


def from_json(schema: Schema, value: object, where: str | None = None) -> dict[str, object]:
    """A record from parsed JSON.

    Raises:
        SchemaError: CH0204, naming the field that does not fit.
    """
    try:
        return _record(schema.root, value, schema.root.name, where)
    except RecursionError:
        message = f"a value of {schema.full_name} is nested too deeply"
        raise SchemaError(message, code="CH0204", where=where) from None


def from_cells(schema: Schema, cells: Mapping[str, str], where: str | None = None) -> dict[str, object]:
    """A record from the cells of one CSV line, by column name.

    Raises:
        SchemaError: CH0204, an unknown column, or a cell that does not fit its field.
    """
    values: dict[str, object] = {}
    for name, text in cells.items():
        field = schema.field(name)
        if field is None:
            known = ", ".join(one.name for one in schema.root.fields)
            raise SchemaError(
                f"{schema.full_name} has no field {name!r}; its fields: {known}", code="CH0204", where=where
            )
        if text == "" and not _is_text(field):
            if _allows_null(field.type):
                values[name] = None
            continue  # the default, if it has one; the encoder says so if not
        values[name] = _cell(field.type, text, f"{schema.root.name}.{name}", where)
    return values


def _is_text(field: Field) -> bool:
    return isinstance(field.type, Primitive) and field.type.name == "string" and field.type.logical is None


def _allows_null(node: Type) -> bool:
    return isinstance(node, Union) and any(isinstance(one, Primitive) and one.name == "null" for one in node.branches)


def _cell(node: Type, text: str, path: str, where: str | None) -> object:
    match node:
        case Union(branches=branches):
            for branch in branches:
                if isinstance(branch, Primitive) and branch.name == "null":
                    continue
                return _cell(branch, text, path, where)
        case Primitive(logical=None, name="boolean"):
            if text.strip().lower() in TRUE | FALSE:
                return text.strip().lower() in TRUE
        case Primitive(logical=None, name=("int" | "long")):
            if _WHOLE.fullmatch(text.strip()):
                return int(text.strip().partition(".")[0])
        case Primitive(logical=None, name=("float" | "double")):
            try:
                return float(text)
            except ValueError as error:
                raise _misfit(node, text, path, where) from error
        case Primitive() | Enum() | Fixed():
            return _value(node, text, path, where)
        case _:
            raise SchemaError(
                f"{path}: {described(node)} does not fit into a CSV cell", code="CH0204", where=where, hint="use JSON"
            )
    raise _misfit(node, text, path, where)


def _value(node: Type, value: object, path: str, where: str | None) -> object:
    match node:
        case Record():
            return _record(node, value, path, where)
        case Array(items=items):
            if not isinstance(value, list):
                raise _misfit(node, value, path, where)
            return [_value(items, one, f"{path}[{index}]", where) for index, one in enumerate(value)]
        case Map(values=values):
            if not isinstance(value, Mapping):
                raise _misfit(node, value, path, where)
            return {str(name): _value(values, one, f"{path}[{name!r}]", where) for name, one in value.items()}
        case Union():
            return _union(node, value, path, where)
        case Primitive(logical=Logical() as logical) | Fixed(logical=Logical() as logical):
            return _logical(node, logical, value, path, where)
        case Primitive(name="bytes") | Fixed():
            if not isinstance(value, str):
                raise _misfit(node, value, path, where)
            try:
                return b64decode(value, validate=True)
            except ValueError as error:
                raise _misfit(node, value, path, where) from error
        case _:
            return value  # the encoder checks ranges, symbols and the rest


def _record(node: Record, value: object, path: str, where: str | None) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise _misfit(node, value, path, where)
    unknown = [name for name in value if node.field(str(name)) is None]
    if unknown:
        known = ", ".join(field.name for field in node.fields)
        raise SchemaError(f"{path} has no field {unknown[0]!r}; its fields: {known}", code="CH0204", where=where)
    return {
        field.name: _value(field.type, value[field.name], f"{path}.{field.name}", where)
        for field in node.fields
        if field.name in value
    }


def _union(node: Union, value: object, path: str, where: str | None) -> object:
    if value is None:
        return None
    reasons: list[SchemaError] = []
    for branch in node.branches:
        if isinstance(branch, Primitive) and branch.name == "null":
            continue
        try:
            made = _value(branch, value, path, where)
        except SchemaError as error:
            reasons.append(error)
        else:
            return (branch.name, made) if node.records > 1 and isinstance(branch, Record) else made
    raise reasons[0]


def _logical(node: Type, logical: Logical, value: object, path: str, where: str | None) -> object:
    if not isinstance(value, str):
        if isinstance(value, int) and not isinstance(value, bool) and logical.name == "decimal":
            return Decimal(value)
        raise _misfit(node, value, path, where)
    try:
        match logical.name:
            case "timestamp-millis" | "timestamp-micros":
                moment = datetime.fromisoformat(value)
                return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            case "local-timestamp-millis" | "local-timestamp-micros":
                return datetime.fromisoformat(value)
            case "date":
                return date.fromisoformat(value)
            case "time-millis" | "time-micros":
                return time.fromisoformat(value)
            case "decimal":
                return Decimal(value)
            case _:
                return UUID(value)
    except (ValueError, InvalidOperation) as error:
        raise _misfit(node, value, path, where) from error


def _misfit(node: Type, value: object, path: str, where: str | None) -> SchemaError:
    seen = "nothing" if value is None else f"{value!r:.80}"
    return SchemaError(f"{path} holds {seen}, expected {described(node)}", code="CH0204", where=where)
