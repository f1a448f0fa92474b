"""Typed events and rows: pydantic classes that read and write Avro without validating twice.

Constructing a record validates it (types strictly, unknown fields refused, integer ranges and time zones of the
schema). Assigning a field does not, because rows are changed field by field in handlers; encoding checks what was
assigned, names included. Reading bytes doesn't validate either: Avro already did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from choreo.codec.schema import Schema
from choreo.codec.source import WINDOW_NAME
from choreo.codec.types import INT_MAX, INT_MIN, LONG_MAX, LONG_MIN, Array, Map, Primitive, Type, Union
from choreo.codec.types import Record as RecordType
from choreo.errors import SchemaError
from choreo.kernel.windows import Window, WindowConfig

Convert = Callable[[Any], Any]
Make = Callable[[dict[str, Any]], Any]
Dump = Callable[[Any], dict[str, Any]]


class Record(BaseModel):
    """Base of the classes that ``choreo schemas generate`` makes from `.avsc` files.

    Class attributes:
        __avro_name__: full name of the Avro record.
        __avro_schema__: its schema as JSON, self-contained.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        validate_assignment=False,
        protected_namespaces=(),
        arbitrary_types_allowed=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    __avro_name__: ClassVar[str] = ""
    __avro_schema__: ClassVar[str] = ""

    def _to_avro(self) -> dict[str, Any]:
        """The value as the codec takes it. A flat record's own fields: encode it before anything changes."""
        return _plan(type(self)).dump(self)

    @classmethod
    def _from_avro(cls, value: dict[str, Any]) -> Self:
        """A record from what the codec read with this class's schema; takes the dictionary over."""
        made: Self = _plan(cls).make(value)
        return made

    @classmethod
    def _make(cls) -> Make:
        """``_from_avro`` as a function, for those who call it for every event."""
        return _plan(cls).make

    @classmethod
    def _dump(cls) -> Dump:
        """``_to_avro`` as a function of the record."""
        return _plan(cls).dump

    @classmethod
    def _schema(cls) -> Schema:
        """The class's Avro schema."""
        return _plan(cls).schema

    @staticmethod
    def _window(**settings: str) -> Any:
        """Default of a window field: an empty window of that configuration. Used by generated classes."""
        config = WindowConfig.parse(settings)
        return Field(default_factory=lambda: Window(config))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        core = handler(source)
        if cls.__avro_schema__:
            _constrain_model(core, _parsed(cls.__avro_schema__, cls.__qualname__).root)
        return core

    if not TYPE_CHECKING:  # type checkers shall go on refusing names that are no fields
        # Python's own: pydantic's cost 0.5 µs for each field a handler assigns, and slow down construction. What they
        # check, the name, encoding checks too.
        __setattr__ = object.__setattr__
        __delattr__ = object.__delattr__

    if TYPE_CHECKING:
        # Rows are compared by what they hold; pydantic's own signature says `object`, which is the same.
        __hash__: ClassVar[None]  # type: ignore[assignment]


_new: Final = object.__new__


class _Plan(NamedTuple):
    """How records of one class become Avro values and back."""

    schema: Schema
    dump: Dump
    make: Make


def _dumper(converts: list[tuple[str, Convert]]) -> Dump:
    """From a record to a dictionary; converts are the fields that differ."""
    if not converts:
        return attrgetter("__dict__")

    def dump(record: Any) -> dict[str, Any]:
        made = dict(record.__dict__)
        for name, convert in converts:
            made[name] = convert(made[name])
        return made

    return dump


def _maker(cls: type[Record], names: set[str], converts: list[tuple[str, Convert]]) -> Make:
    """From a dictionary, which it takes over, to a record; converts are the fields that differ."""

    def make(value: dict[str, Any]) -> Any:
        self = _new(cls)
        self.__dict__ = value
        self.__pydantic_fields_set__ = names
        self.__pydantic_extra__ = None
        self.__pydantic_private__ = None
        return self

    if not converts:
        return make

    def convert_and_make(value: dict[str, Any]) -> Any:
        for name, convert in converts:
            value[name] = convert(value[name])
        return make(value)

    return convert_and_make


@cache
def _parsed(text: str, name: str) -> Schema:
    return Schema.parse(text, name)


@cache
def _plan(cls: type[Record]) -> _Plan:
    if not cls.__avro_schema__:
        raise SchemaError(
            f"{cls.__name__} has no Avro schema",
            hint="write a .avsc file and run `choreo schemas generate`",
        )
    cls.model_rebuild()
    schema = _parsed(cls.__avro_schema__, cls.__name__)
    names = {field.name for field in schema.root.fields}
    if names != set(cls.model_fields):
        raise SchemaError(
            f"the class {cls.__name__} and its Avro schema have different fields: "
            f"{', '.join(sorted(names ^ set(cls.model_fields)))}",
            hint="run `choreo schemas generate`",
        )
    to_avro: list[tuple[str, Convert]] = []
    from_avro: list[tuple[str, Convert]] = []
    for field in schema.root.fields:
        if isinstance(field.type, RecordType) and field.type.name == WINDOW_NAME:
            config = WindowConfig.parse(field.window or {}, f"{schema.full_name}.{field.name}")
            to_avro.append((field.name, _window_state))
            from_avro.append((field.name, _window_reader(config)))
            continue
        classes = _record_classes(cls.model_fields[field.name].annotation)
        down, up = _writer(field.type, classes), _reader(field.type, classes)
        if down is not None:
            to_avro.append((field.name, down))
        if up is not None:
            from_avro.append((field.name, up))
    return _Plan(schema, _dumper(to_avro), _maker(cls, names, from_avro))


def _record_classes(annotation: Any) -> dict[str, type[Record]]:
    """The record classes that an annotation mentions, by Avro name."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return {annotation.__avro_name__: annotation}
    found: dict[str, type[Record]] = {}
    for part in get_args(annotation):
        found.update(_record_classes(part))
    return found


def _window_state(value: Any) -> Any:
    return value.to_avro() if isinstance(value, Window) else value


def _window_reader(config: WindowConfig) -> Convert:
    return lambda state: Window.from_avro(state, config)


def _writer(node: Type, classes: Mapping[str, type[Record]]) -> Convert | None:
    """What makes an Avro value of a field's value. What has the wrong type is passed on: the codec names it."""
    match node:
        case RecordType():
            return lambda value: value._to_avro() if isinstance(value, Record) else value
        case Array(items=items):
            item = _writer(items, classes)
            if item is None:
                return None
            return lambda value: [item(one) for one in value] if isinstance(value, list | tuple) else value
        case Map(values=values):
            of_map = _writer(values, classes)
            if of_map is None:
                return None
            return lambda value: {key: of_map(one) for key, one in value.items()} if isinstance(value, dict) else value
        case Union(branches=branches):
            return _union_writer(node, [_writer(branch, classes) for branch in branches])
        case _:
            return None


def _union_writer(node: Union, writers: list[Convert | None]) -> Convert | None:
    if not any(writers):
        return None
    tagged = node.records > 1
    collections = [
        convert
        for branch, convert in zip(node.branches, writers, strict=True)
        if convert is not None and not isinstance(branch, RecordType)
    ]

    def union(value: Any) -> Any:
        if isinstance(value, Record):
            return (value.__avro_name__, value._to_avro()) if tagged else value._to_avro()
        for convert in collections:
            value = convert(value)
        return value

    return union


def _reader(node: Type, classes: Mapping[str, type[Record]]) -> Convert | None:
    match node:
        case RecordType(name=name):
            return _class_of(name, classes)._from_avro
        case Array(items=items):
            item = _reader(items, classes)
            return None if item is None else lambda value: [item(one) for one in value]
        case Map(values=values):
            of_map = _reader(values, classes)
            return None if of_map is None else lambda value: {key: of_map(one) for key, one in value.items()}
        case Union():
            return _union_reader(node, classes)
        case _:
            return None


def _union_reader(node: Union, classes: Mapping[str, type[Record]]) -> Convert | None:
    records = {
        branch.name: _class_of(branch.name, classes)._from_avro
        for branch in node.branches
        if isinstance(branch, RecordType)
    }
    by_type: dict[type, Convert] = {}
    for branch in node.branches:
        convert = _reader(branch, classes)
        if convert is not None:
            by_type[{Array: list, Map: dict, RecordType: dict}[type(branch)]] = convert
    if not by_type:
        return None
    if len(records) > 1:

        def tagged(value: Any) -> Any:
            if type(value) is tuple:
                return records[value[0]](value[1])
            convert = by_type.get(type(value))
            return value if convert is None else convert(value)

        return tagged

    def union(value: Any) -> Any:
        convert = by_type.get(type(value))
        return value if convert is None else convert(value)

    return union


def _class_of(name: str, classes: Mapping[str, type[Record]]) -> type[Record]:
    if name not in classes:
        raise SchemaError(f"no class of the record {name} in the annotation", hint="run `choreo schemas generate`")
    return classes[name]


# -- what pydantic shall check beyond the annotations ---------------------------------------------------------------


def _constrain_model(core: Any, root: RecordType) -> None:
    """Adds the schema's integer ranges and time zones to a model's validators; pydantic checks them in Rust."""
    while core.get("type") != "model-fields":
        inner = core.get("schema")
        if not isinstance(inner, dict):
            return  # a reference to a model that is constrained where it is defined
        core = inner
    for field in root.fields:
        if field.name in core["fields"]:
            _constrain(core["fields"][field.name]["schema"], field.type)


def _constrain(core: Any, node: Type) -> None:
    while core.get("type") == "default":
        core = core["schema"]
    kind = core.get("type")
    if isinstance(node, Union):
        others = [branch for branch in node.branches if branch != Primitive("null")]
        if kind == "nullable" and len(others) == 1:
            _constrain(core["schema"], others[0])
    elif isinstance(node, Array) and kind == "list":
        _constrain(core["items_schema"], node.items)
    elif isinstance(node, Map) and kind == "dict":
        _constrain(core["values_schema"], node.values)
    elif isinstance(node, Primitive) and kind == "int" and node.logical is None:
        core["ge"], core["le"] = (INT_MIN, INT_MAX) if node.name == "int" else (LONG_MIN, LONG_MAX)
    elif isinstance(node, Primitive) and kind == "datetime" and node.logical is not None:
        core["tz_constraint"] = "naive" if node.logical.name.startswith("local-") else "aware"
