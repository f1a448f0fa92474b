"""Lints about keys, partitions and rows: what has to fit for an entity's events and state to meet in one place."""

from __future__ import annotations

from collections.abc import Iterator

from choreo.codec.types import Enum, Field, Primitive, Record, described
from choreo.errors import SchemaError
from choreo.kernel.windows import WindowConfig
from choreo.topology.model import Agent
from choreo.topology.rules import Found, View, rule


def _keyed(view: View) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """(section, name, schema, key) of everything that has a key."""
    for topic in view.topology.topics.values():
        yield "topics", topic.name, topic.schema, topic.key
    for table in view.topology.tables.values():
        yield "tables", table.name, table.schema, table.key


def _key_kind(field: Field) -> str | None:
    """What a key field's text looks like; None if keys don't have such values."""
    node = field.type
    if isinstance(node, Enum):
        return "string"
    if not isinstance(node, Primitive):
        return None
    if node.logical is not None:
        return "uuid" if node.logical.name == "uuid" else None
    return {"string": "string", "int": "integer", "long": "integer"}.get(node.name)


def _kinds(view: View, schema: str, key: tuple[str, ...]) -> tuple[str | None, ...] | None:
    """Kinds of all key fields; None if the schema or a field is unknown (another lint says so)."""
    fields = view.key_fields(schema, key)
    return None if fields is None else tuple(_key_kind(field) for field in fields)


@rule("CH0130")
def key_fields_missing(view: View) -> Iterator[Found]:
    """A key names a field that the schema does not have.

    Bad::

        topics: {delays: {key: parcel}}

    Good::

        topics: {delays: {key: [parcel_id, customer]}}
        tables: {parcels: {key: parcel_id}}
        agents: {desk: {tables: []}}
    """
    for section, name, schema, key in _keyed(view):
        record = view.record(schema)
        if isinstance(record, SchemaError):
            continue
        for index, one in enumerate(key):
            if record.field(one) is None:
                fields = [field.name for field in record.root.fields]
                place = view.at(section, name, "key", index)
                yield view.unknown(one, fields, place, f"field of {schema}", "fields")._replace(
                    message=f"the record {schema} has no field {one!r}"
                )


@rule("CH0131")
def key_fields_without_text(view: View) -> Iterator[Found]:
    """A key field may be null, or has a type whose text is not the same everywhere.

    Keys are strings, integers, UUIDs and enums. A null has no entity; a float or a date prints differently in different
    languages, and its events would land on different partitions.

    Bad::

        topics: {scans: {key: weight}}

    Good::

        topics: {scans: {key: parcel_id}}
    """
    for section, name, schema, key in _keyed(view):
        for index, field in enumerate(view.key_fields(schema, key) or ()):
            if _key_kind(field) is None:
                what = f"the key field {schema}.{field.name} is {described(field.type)}"
                hint = "make the field required and one of these types, or choose another key"
                yield Found(view.at(section, name, "key", index), what, "a string, an integer, a uuid or an enum", hint)


@rule("CH0132")
def inputs_with_other_partitions(view: View) -> Iterator[Found]:
    """The inputs of one agent have different numbers of partitions.

    An entity's events of all inputs have to meet in one worker, so equal keys must give equal partition numbers.

    Bad::

        topics: {scans: {partitions: 8}}

    Good::

        topics: {scans: {partitions: 8}, orders: {partitions: 8}}
    """
    for agent in view.topology.agents.values():
        known = [
            (index, view.topology.topics[name])
            for index, name in enumerate(agent.reads)
            if name in view.topology.topics
        ]
        for index, topic in known[1:]:
            first = known[0][1]
            if topic.partitions != first.partitions:
                what = f"{topic.name!r} has {topic.partitions} partitions, {first.name!r} has {first.partitions}"
                hint = f"give both topics the same `partitions`, or make {agent.name} two agents"
                yield Found(view.at("agents", agent.name, "reads", index), what, "equal partitions of all inputs", hint)


@rule("CH0133")
def inputs_with_other_keys(view: View) -> Iterator[Found]:
    """The inputs of one agent are keyed by different kinds of things.

    The key is the entity. The fields may have different names (``origin``, ``airport``), but a string never equals a
    number, and one field never equals two.

    Bad::

        topics: {scans: {key: belt}}

    Good::

        topics: {scans: {key: parcel_id}}
    """
    for agent in view.topology.agents.values():
        first: tuple[str, tuple[str | None, ...]] | None = None
        for index, name in enumerate(agent.reads):
            topic = view.topology.topics.get(name)
            kinds = _kinds(view, topic.schema, topic.key) if topic is not None else None
            if kinds is None or None in kinds:
                continue
            if first is None:
                first = name, kinds
            elif kinds != first[1]:
                what = f"{name!r} is keyed by {_words(kinds)}, {first[0]!r} by {_words(first[1])}"
                hint = f"key them alike, or make {agent.name} two agents"
                yield Found(view.at("agents", agent.name, "reads", index), what, "the same kind of key", hint)


def _words(kinds: tuple[str | None, ...]) -> str:
    named = [
        "?" if kind is None else {"string": "a string", "integer": "an integer", "uuid": "a uuid"}[kind]
        for kind in kinds
    ]
    return " and ".join(named)


@rule("CH0134")
def tables_with_other_keys(view: View) -> Iterator[Found]:
    """A table's key is of another kind than the key of the agent's inputs.

    A step touches the rows of its own entity only; a row's key is the event's key. (Reference tables are looked up with
    any key.)

    Bad::

        tables: {belts: {schema: Belt, key: belt}}
        agents: {tracker: {tables: [parcels, depots, belts]}}

    Good::

        tables: {more: {schema: Parcel, key: parcel_id}}
        agents: {tracker: {tables: [parcels, depots, more]}}
    """
    for agent in view.topology.agents.values():
        inputs = _first_input(view, agent)
        for index, name in enumerate(agent.tables):
            table = view.topology.tables.get(name)
            if table is None or table.reference or inputs is None:
                continue
            kinds = _kinds(view, table.schema, table.key)
            if kinds is not None and None not in kinds and kinds != inputs[1]:
                what = f"the table {name!r} is keyed by {_words(kinds)}, the input {inputs[0]!r} by {_words(inputs[1])}"
                hint = "key the table like the agent's inputs"
                yield Found(view.at("agents", agent.name, "tables", index), what, "the same kind of key", hint)


def _first_input(view: View, agent: Agent) -> tuple[str, tuple[str | None, ...]] | None:
    for name in agent.reads:
        topic = view.topology.topics.get(name)
        kinds = _kinds(view, topic.schema, topic.key) if topic is not None else None
        if kinds is not None and None not in kinds:
            return name, kinds
    return None


@rule("CH0135")
def tables_with_two_writers(view: View) -> Iterator[Found]:
    """Two agents keep the same table.

    A table belongs to one agent: one writer per entity. Others learn of it by events. Reference tables may be read by
    all.

    Bad::

        agents: {desk: {tables: [parcels]}}

    Good::

        agents: {desk: {tables: [depots]}}
    """
    owner: dict[str, str] = {}
    for agent in view.topology.agents.values():
        for index, name in enumerate(agent.tables):
            table = view.topology.tables.get(name)
            if table is None or table.reference:
                continue
            other = owner.setdefault(name, agent.name)
            if other != agent.name:
                what = f"the table {name!r} belongs to {other!r} already"
                hint = f"let {other} emit what {agent.name} needs, or declare a table of its own"
                yield Found(view.at("agents", agent.name, "tables", index), what, "one agent for each table", hint)


@rule("CH0136")
def rows_without_defaults(view: View) -> Iterator[Found]:
    """A row's schema has a field that is neither key nor has a default.

    ``ctx.row`` gives an entity's first event a row too: its key is filled in, everything else takes its default.
    Reference tables need none; their rows come whole.

    Bad::

        tables: {parcels: {schema: Careless}}

    Good::

        tables: {parcels: {schema: Parcel}}
    """
    for table in view.topology.tables.values():
        record = view.record(table.schema)
        if table.reference or isinstance(record, SchemaError):
            continue
        bare = [field.name for field in record.root.fields if field.name not in table.key and not field.has_default]
        if bare:
            what = f"fields of {table.schema} have no default: {', '.join(bare)}"
            hint = f'add to the schema, as in {{"name": "{bare[0]}", …, "default": …}}'
            yield Found(view.at("tables", table.name, "schema"), what, "a default for each field but the key", hint)


@rule("CH0137")
def windows_that_do_not_work(view: View) -> Iterator[Found]:
    """A window in a row is configured in a way that cannot work.

    Bad::

        tables: {parcels: {schema: Uneven}}

    Good::

        tables: {parcels: {schema: Parcel}}
    """
    for table in view.topology.tables.values():
        record = view.record(table.schema)
        if isinstance(record, SchemaError):
            continue
        for field in record.root.fields:
            if field.window is None:
                continue
            try:
                WindowConfig.parse(field.window)
            except SchemaError as error:
                hint = error.hint or f"correct the window in the schema of {table.schema}"
                what = f"{table.schema}.{field.name}: {error.message}"
                yield Found(view.at("tables", table.name, "schema"), what, "a window that divides evenly", hint)


@rule("CH0138")
def windows_outside_rows(view: View) -> Iterator[Found]:
    """A window is in an event, or deeper in a row than its own fields.

    Windows are state: values of a row's own field. An event carries their answers.

    Bad::

        topics: {delays: {schema: Parcel}}

    Good::

        topics: {delays: {schema: Delay}}
    """
    for topic in view.topology.topics.values():
        record = view.record(topic.schema)
        if not isinstance(record, SchemaError) and _windows(record.root):
            what = f"events of {topic.schema} hold a window"
            hint = "put the answer into the event: a count, a mean"
            yield Found(view.at("topics", topic.name, "schema"), what, "windows in rows only", hint)


def _windows(record: Record) -> list[str]:
    return [field.name for field in record.fields if field.window is not None]


@rule("CH0139", "warning")
def table_settings_without_effect(view: View) -> Iterator[Found]:
    """A table says something that has no effect on its kind.

    A changelog follows the agent's inputs, partition by partition; only reference tables have a number of partitions of
    their own. Reference tables are read-only and in memory as a whole; only other tables have a store.

    Bad::

        tables: {parcels: {partitions: 3}, depots: {store: rocksdb}}

    Good::

        tables: {parcels: {store: rocksdb}, depots: {partitions: 3}}
    """
    for table in view.topology.tables.values():
        field, kind = ("store", "reference") if table.reference else ("partitions", "agent's")
        if view.topology.declares("tables", table.name, field):
            what = f"`{field}` has no effect on the {kind} table {table.name!r}"
            other = "tables that an agent keeps" if table.reference else "reference tables"
            place = view.at("tables", table.name, field)
            yield Found(place, what, f"`{field}` on {other} only", "remove the line")
