"""Does a value fit its schema? Asked before fastavro writes it, because fastavro writes some things that don't.

Of what it accepts silently: an integer beyond 32 bits for an ``int``, a fraction for an integer (it cuts it), anything
for a ``boolean`` or ``null``, a datetime without a zone (as the *machine's* zone) for a timestamp, a datetime for a
date, text for an array. ``quick_checks`` looks at such fields only. What it doubts, or what fastavro refuses, goes to
``fitted``, which makes the value plain (an integer for a double, a tuple for an array, missing fields with defaults,
the branch of a union) or says which field is wrong, what it holds and what it should. ``read_checks`` looks at what
fastavro read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Final, NoReturn
from uuid import UUID

from choreo.codec.defaults import default_value
from choreo.codec.schema import Schema
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
    type_name,
)
from choreo.errors import SchemaError

Check = Callable[[object], bool]
Checks = tuple[tuple[str, Check], ...]
FieldChecks = list[tuple[str, Check]]
FLOAT_MAX: Final = 3.4028234663852886e38  # largest finite 32-bit float


# Types of which fastavro writes other values too, and the class whose values it writes right or refuses.
_EXACT: Final[dict[str, type]] = {"null": type(None), "boolean": bool, "long": int, "double": float, "bytes": bytes}
_EXACT_LOGICAL: Final[dict[str, type]] = {"date": date, "uuid": UUID}


def quick_checks(schema: Schema) -> FieldChecks:
    """Field names of the record with a check that is False, or raises, for what fastavro would write wrongly."""
    return _quick_fields(schema.root, {})


def read_checks(schema: Schema) -> Checks:
    """Field names of the record with a check that is False for what fastavro reads although it is not the schema's:
    integers beyond 32 bits, and decimals with too many digits, which it rounds."""
    return _checks(schema.root, {})


def fitted(schema: Schema, value: object) -> dict[str, object]:
    """The value as fastavro has to get it: complete, plainly typed, the branches of unions named.

    Raises:
        SchemaError: CH0204, with the path of the field, what it holds and what it should.
    """
    return _record(schema.root, value, schema.root.name)


def _quick_fields(node: Record, known: dict[int, FieldChecks]) -> FieldChecks:
    """Each record is looked at once. The list of one that contains itself is filled after its check was made."""
    made = known.get(id(node))
    if made is None:
        made = known[id(node)] = []
        for field in node.fields:
            check = _quick(field.type, known)
            if check is not None:
                made.append((field.name, check))
    return made


def _quick(node: Type, known: dict[int, FieldChecks]) -> Check | None:
    exact = _exact(node)
    if exact is not None:
        return lambda value: type(value) is exact
    match node:
        case Primitive(logical=logical) | Fixed(logical=logical) if logical is not None:
            return _quick_logical(logical)
        case Primitive(name="int"):
            return _is_int
        case Primitive(name="float"):
            return lambda value: type(value) is float and not FLOAT_MAX < abs(value) < math.inf
        case Array(items=items):
            return _quick_array(items, known)
        case Map(values=values):
            of_map = _quick(values, known)
            if of_map is None:
                return lambda value: type(value) is dict
            return lambda value: type(value) is dict and all(map(of_map, value.values()))
        case Union(branches=branches):
            return _quick_union(branches, known)
        case Record():
            return _quick_record(_quick_fields(node, known))
        case _:
            return None  # of texts and enums fastavro refuses the rest itself


def _exact(node: Type) -> type | None:
    """The class that alone tells a value of the type."""
    match node:
        case Primitive(logical=logical) if logical is not None:
            return _EXACT_LOGICAL.get(logical.name)
        case Primitive(name=name):
            return _EXACT.get(name)
        case Fixed(logical=None):
            return bytes
        case _:
            return None


def _quick_array(items: Type, known: dict[int, FieldChecks]) -> Check:
    exact = _exact(items)
    if exact is not None:  # windows have many numbers
        only = {exact}
        return lambda value: type(value) is list and only.issuperset(map(type, value))
    item = _quick(items, known)
    if item is None:
        return lambda value: type(value) is list
    return lambda value: type(value) is list and all(map(item, value))


def _quick_union(branches: tuple[Type, ...], known: dict[int, FieldChecks]) -> Check | None:
    others = [branch for branch in branches if type_name(branch) != "null"]
    if len(others) != 1:
        return _never  # which branch is meant is decided with care
    check = _quick(others[0], known)
    if check is None:
        return None
    if len(branches) == 1:
        return check
    return lambda value: value is None or check(value)


def _quick_record(checks: FieldChecks) -> Check:
    def record(value: object) -> bool:
        if type(value) is not dict:
            return False
        for name, check in checks:  # noqa: SIM110 - a third faster than all()
            if not check(value[name]):
                return False
        return True

    return record


def _quick_logical(logical: Logical) -> Check:
    match logical.name:
        case "timestamp-millis" | "timestamp-micros":
            return lambda value: type(value) is datetime and value.tzinfo is not None
        case "local-timestamp-millis" | "local-timestamp-micros":
            return lambda value: type(value) is datetime and value.tzinfo is None
        case "decimal":
            return _decimal_check(logical)
        case _:
            return lambda value: type(value) is time and value.tzinfo is None


def _never(value: object) -> bool:
    return False


def _checks(node: Record, known: dict[int, Checks]) -> Checks:
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = ()  # a record in itself: its inner values are left to whoever uses them
    made = []
    for field in node.fields:
        check = _read_check(field.type, known)
        if check is not None:
            made.append((field.name, check))
    known[id(node)] = tuple(made)
    return known[id(node)]


def _is_int(value: object) -> bool:
    return type(value) is int and INT_MIN <= value <= INT_MAX


def _of_record(checks: Checks) -> Check | None:
    if not checks:
        return None

    def record(value: object) -> bool:
        return type(value) is dict and all(name in value and check(value[name]) for name, check in checks)

    return record


def _read_check(node: Type, known: dict[int, Checks]) -> Check | None:
    """Values come from fastavro here: of the right classes, unions of several records as (name, value)."""
    match node:
        case Primitive(logical=logical) | Fixed(logical=logical) if logical is not None:
            return _decimal_check(logical) if logical.name == "decimal" else None
        case Primitive(name="int"):
            return _is_int
        case Array(items=items):
            item = _read_check(items, known)
            return None if item is None else lambda value: isinstance(value, list) and all(map(item, value))
        case Map(values=values):
            of_map = _read_check(values, known)
            if of_map is None:
                return None
            return lambda value: isinstance(value, dict) and all(map(of_map, value.values()))
        case Record():
            return _of_record(_checks(node, known))
        case Union(branches=branches):
            return _read_union([_read_check(branch, known) for branch in branches], branches)
        case _:
            return None


def _read_union(checks: list[Check | None], branches: tuple[Type, ...]) -> Check | None:
    """The check of the branch that a value came from, told by its name or, where only one has it, by its class."""
    if not any(checks):
        return None
    by_name: dict[object, Check] = {}
    by_class: dict[type, Check | None] = {}
    for check, branch in zip(checks, branches, strict=True):
        if isinstance(branch, Record | Enum | Fixed):
            by_name[branch.name] = check or _always
        kind = _class_of(branch)
        by_class[kind] = None if kind in by_class else check

    def union(value: object) -> bool:
        if type(value) is tuple:
            return by_name[value[0]](value[1])
        check = by_class.get(type(value))
        return check is None or check(value)

    return union


def _always(value: object) -> bool:
    return True


def _class_of(node: Type) -> type:
    match node:
        case Primitive(logical=logical) | Fixed(logical=logical) if logical is not None:
            return Decimal if logical.name == "decimal" else object
        case Primitive(name=name):
            return {"int": int, "long": int}.get(name, object)
        case Array():
            return list
        case Map() | Record():
            return dict
        case _:
            return object


def _decimal_check(logical: Logical) -> Check:
    return lambda value: type(value) is Decimal and _decimal_fits(logical, value)


def _decimal_fits(logical: Logical, value: Decimal) -> bool:
    """Whether a decimal has no more digits than its type, before and after the point."""
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -logical.scale:
        return False
    return not value or value.adjusted() + 1 + logical.scale <= logical.precision


def _refuse(node: Type, value: object, path: str) -> NoReturn:
    seen = "nothing" if value is None else f"{value!r:.80} ({type(value).__name__})"
    raise SchemaError(f"{path} holds {seen}, expected {described(node)}", code="CH0204")


def _fit(node: Type, value: object, path: str) -> object:
    match node:
        case Primitive(logical=logical) | Fixed(logical=logical) if logical is not None:
            return _logical(node, logical, value, path)
        case Primitive():
            return _primitive(node, value, path)
        case Fixed(size=size):
            if not isinstance(value, bytes) or len(value) != size:
                _refuse(node, value, path)
            return value
        case Enum(symbols=symbols):
            if not isinstance(value, str) or value not in symbols:
                _refuse_symbol(node, value, path)
            return str.__str__(value)
        case Array(items=items):
            if not isinstance(value, Sequence) or isinstance(value, str | bytes):
                _refuse(node, value, path)
            return [_fit(items, one, f"{path}[{index}]") for index, one in enumerate(value)]
        case Map(values=values):
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                _refuse(node, value, path)
            return {_text(key, path): _fit(values, one, f"{path}[{key!r}]") for key, one in value.items()}
        case Union():
            return _union(node, value, path)
        case Record():
            return _record(node, value, path)


def _refuse_symbol(node: Enum, value: object, path: str) -> NoReturn:
    raise SchemaError(
        f"{path} holds {value!r:.80}, expected one of {', '.join(node.symbols)}", code="CH0204", where=path
    )


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SchemaError(f"{path} holds text that is not valid Unicode", code="CH0204") from None
    return str.__str__(value)


def _primitive(node: Primitive, value: object, path: str) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match node.name:
        case "null":
            if value is None:
                return None
        case "boolean":
            if isinstance(value, bool):
                return value
        case "int" | "long":
            low, high = (INT_MIN, INT_MAX) if node.name == "int" else (LONG_MIN, LONG_MAX)
            if isinstance(value, int) and whole:
                if low <= value <= high:
                    return int(value)
                raise SchemaError(
                    f"{path} holds {value}, outside the range of {node.name} ({low} to {high})",
                    code="CH0204",
                )
        case "float" | "double":
            if isinstance(value, float) or whole:
                assert isinstance(value, float | int)
                return _real(node, value, path)
        case "bytes":
            if isinstance(value, bytes | bytearray | memoryview):
                return bytes(value)
        case "string":
            if isinstance(value, str):
                return _text(value, path)
    _refuse(node, value, path)


def _real(node: Primitive, value: float, path: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        _refuse(node, value, path)
    if node.name == "float" and FLOAT_MAX < abs(number) < math.inf:
        _refuse(node, value, path)
    return number


def _logical(node: Type, logical: Logical, value: object, path: str) -> object:
    match logical.name:
        case "timestamp-millis" | "timestamp-micros":
            if isinstance(value, datetime):
                if value.utcoffset() is not None:
                    return value
                raise SchemaError(
                    f"{path} holds the datetime {value.isoformat()} without a time zone",
                    code="CH0204",
                    hint="pass an aware one: datetime(…, tzinfo=UTC)",
                )
        case "local-timestamp-millis" | "local-timestamp-micros":
            if isinstance(value, datetime) and value.tzinfo is None:
                return value
        case "date":
            if isinstance(value, date) and not isinstance(value, datetime):
                return value
        case "uuid":
            if isinstance(value, UUID):
                return value
        case "decimal":
            if isinstance(value, int) and not isinstance(value, bool):
                value = Decimal(value)
            if isinstance(value, Decimal):
                if _decimal_fits(logical, value):
                    return value
                raise SchemaError(
                    f"{path} holds {value}, which is no decimal of {logical.precision} digits, {logical.scale} of them "
                    "after the point",
                    code="CH0204",
                    hint="round it first, for instance with Decimal.quantize",
                )
        case _:
            if isinstance(value, time) and value.tzinfo is None:
                return value
    _refuse(node, value, path)


def _union(node: Union, value: object, path: str) -> object:
    branches = node.branches
    if node.records > 1 and isinstance(value, tuple) and len(value) == 2:
        name, value = value
        branches = tuple(branch for branch in branches if type_name(branch) == name)
        if not branches:
            raise SchemaError(f"{path} names the branch {name!r}, which is not in the union", code="CH0204")
    reasons: list[SchemaError] = []
    for branch in branches:
        try:
            made = _fit(branch, value, path)
        except SchemaError as error:
            if type_name(branch) != "null":
                reasons.append(error)
            continue
        return None if made is None else (type_name(branch), made)
    if len(reasons) == 1:
        raise reasons[0]
    _refuse(node, value, path)


def _record(node: Record, value: object, path: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        _refuse(node, value, path)
    names = {field.name for field in node.fields}
    for name in value:
        if name not in names:
            known = ", ".join(field.name for field in node.fields)
            raise SchemaError(f"{path} has no field {name!r}; its fields: {known}", code="CH0204")
    made: dict[str, object] = {}
    for field in node.fields:
        if field.name in value:
            made[field.name] = _fit(field.type, value[field.name], f"{path}.{field.name}")
        elif field.has_default:
            default = default_value(field.type, field.default)
            made[field.name] = _fit(field.type, default, f"{path}.{field.name}")
        else:
            raise SchemaError(f"{path}.{field.name} is missing and has no default", code="CH0204")
    return made
