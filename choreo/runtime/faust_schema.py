"""``kind: faust``: an ordinary Faust agent as part of a topology.

``@app.agent(app.topic("orders", value_type=Order))`` gets typed events, ``app.topic("totals").send(value=Total(…))`` is
keyed, encoded and chained like any event of choreo's, and ``app.Table`` keeps its rows in the declared changelog. Three
classes do it, which Faust takes as settings: a *Schema* that decodes by the topic a message came from, a *Topic* that
encodes for the topic it goes to (Faust's Schema is not told which that is), and a *Table* with choreo's topic name.

Guarantee: Faust's own, at least once; lint says so. An event that is handled again emits the same ids again, so that a
``dedupe`` window of the reader removes the repetition.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import faust
from faust.exceptions import KeyDecodeError, ValueDecodeError

from choreo.agent.record import Record
from choreo.codec.keys import encode_key, key_text
from choreo.codec.schema import Schema, SchemaSet
from choreo.codec.wire import Decoder, Encoder
from choreo.errors import DecodeError, SchemaError, StepError, UndeclaredError
from choreo.kernel.envelope import Header, carried_headers, constant_headers, outgoing_headers, parse_headers
from choreo.kernel.ids import Identity
from choreo.kernel.values import Delivery, Envelope, InputTopic
from choreo.ports import Registry
from choreo.runtime.producer import root_headers
from choreo.runtime.site import Site
from choreo.topology import names


@dataclass(eq=False)
class Wire:
    """Bytes ↔ values and headers of one plain Faust agent."""

    site: Site
    _encoders: dict[tuple[str, Schema], Encoder] = field(default_factory=dict)
    _decoders: dict[Schema, Decoder] = field(default_factory=dict)
    _emitted: WeakKeyDictionary[Any, int] = field(default_factory=WeakKeyDictionary)

    @cached_property
    def registry(self) -> Registry:
        return self.site.project.registry(self.site.topology)

    @cached_property
    def schemas(self) -> SchemaSet:
        return self.site.project.schemas()

    @cached_property
    def identity(self) -> Identity:
        return Identity(self.site.topology.name, self.site.agent.name)

    @cached_property
    def changelogs(self) -> Mapping[str, str]:
        """Changelog topic → table, for the agent's own tables."""
        topology, agent = self.site.topology, self.site.agent
        own = [name for name in agent.tables if not topology.tables[name].reference]
        return {names.changelog(topology.name, agent.name, name): name for name in own}

    def schema_of(self, topic: str) -> Schema | None:
        """Schema that the topology declares for a topic or changelog; None for topics of Faust's own."""
        topology = self.site.topology
        if topic in topology.topics:
            return self.schemas.by_name(topology.topics[topic].schema)
        if topic in self.changelogs:
            return self.schemas.by_name(topology.tables[self.changelogs[topic]].schema)
        return None

    def decode(self, message: Any, wanted: type[Record] | None) -> Record | dict[str, object]:
        """Value of a message: an instance of the class that the code asked for, or a dict of the declared record."""
        declared = self.schema_of(message.topic)
        assert declared is not None
        reader = declared if wanted is None else wanted._schema()
        decoder = self._decoders.get(reader)
        if decoder is None:
            decoder = self._decoders[reader] = Decoder(reader, self.registry.schema_by_id)
        where = f"{message.topic}/{message.partition}/{message.offset}"
        values = decoder.decode(message.value, where)
        return values if wanted is None else wanted._from_avro(values)

    def encode(self, topic: str, value: object) -> bytes:
        """Bytes of a value for a topic.

        Raises:
            UndeclaredError: CH0311, the topology does not let this agent write there.
            SchemaError: CH0204, another record or not a record.
        """
        schema = self.schema_of(topic)
        agent = self.site.agent
        if schema is None or not (topic in agent.writes or topic in self.changelogs):
            raise UndeclaredError(
                f"agent {agent.name} writes to {topic}, which the topology does not declare",
                where=str(agent.position),
                hint=f"add to the agent: `writes: [{', '.join([*agent.writes, topic])}]`",
            )
        if isinstance(value, Record):
            schema, values = self._written_by(type(value), schema, topic), value._to_avro()
        elif isinstance(value, Mapping):
            values = dict(value)
        else:
            raise SchemaError(
                f"{topic} carries {schema.full_name}, saw a {type(value).__name__}",
                code="CH0204",
                where=str(agent.position),
                hint="send an instance of the generated class",
            )
        return self._encoder(topic, schema).encode(values)

    def _written_by(self, event: type[Record], declared: Schema, topic: str) -> Schema:
        if event.__avro_name__ != declared.full_name:
            raise SchemaError(f"{topic} carries {declared.full_name}, saw a {event.__avro_name__}", code="CH0204")
        return event._schema()

    def _encoder(self, topic: str, schema: Schema) -> Encoder:
        encoder = self._encoders.get((topic, schema))
        if encoder is None:
            schema_id = self.registry.id_for(f"{topic}-value", schema)
            encoder = self._encoders[(topic, schema)] = Encoder(schema_id, schema)
        return encoder

    def key(self, topic: str, key: object, value: object) -> bytes:
        """Message key: what the code gave, or the topic's key fields of the value."""
        if isinstance(key, bytes):
            return key
        if key is not None:
            return encode_key(key if isinstance(key, (tuple, list)) else [key])
        fields = self.site.topology.topics[topic].key
        values = value._to_avro() if isinstance(value, Record) else value
        if not isinstance(values, Mapping):
            raise SchemaError(f"a message to {topic} has no key", code="CH0206", hint="say key=…")
        return encode_key([values.get(name) for name in fields])

    def headers(self, topic: str, key: bytes) -> tuple[Header, ...]:
        """Headers of the next event: continues the chain of the event being handled, or starts one."""
        schema = self.schema_of(topic)
        constants = constant_headers(self.identity, "" if schema is None else schema.full_name)
        event = faust.current_event()
        if event is None:
            return root_headers(constants, os.urandom(16).hex(), key, datetime.now(UTC))
        cause = envelope_of(event.message)
        if cause.hop >= self.site.agent.limits.hops:
            raise StepError(
                f"event {cause.event_id} went through {cause.hop} agents, the limit is {self.site.agent.limits.hops}",
                code="CH0302",
                where=str(self.site.agent.position),
            )
        number = self._emitted.get(event.message, 0)
        self._emitted[event.message] = number + 1
        event_id = self.identity.event_id(cause.event_id, number)
        return outgoing_headers(constants, carried_headers(self.identity, cause), event_id, key)


def envelope_of(message: Any) -> Envelope:
    """Envelope of a Faust message. Faust does not know topic ids; the name stands in for events without an id."""
    headers = message.headers or ()
    pairs = tuple(headers.items() if isinstance(headers, Mapping) else headers)
    timestamp_ms = int((message.timestamp or 0) * 1000)
    delivery = Delivery(
        message.topic, message.partition, message.offset, timestamp_ms, message.key, message.value, pairs
    )
    return parse_headers(delivery, InputTopic(message.topic, topic_id=message.topic))


class AvroSchema(faust.Schema):  # type: ignore[misc]  # Faust's stubs are not read
    """Decodes messages of declared topics; everything else is left to Faust."""

    wire: Wire

    def loads_key(self, app: Any, message: Any, **options: Any) -> Any:
        """The entity's name as text."""
        if self.wire.schema_of(message.topic) is None:
            return super().loads_key(app, message, **options)
        try:
            return key_text(message.key)
        except DecodeError as error:
            raise KeyDecodeError(str(error)) from error

    def loads_value(self, app: Any, message: Any, **options: Any) -> Any:
        """An instance of ``value_type`` if that is an event class, else a dict."""
        if self.wire.schema_of(message.topic) is None:
            return super().loads_value(app, message, **options)
        if message.value is None:
            return None
        wanted = self.value_type if isinstance(self.value_type, type) and issubclass(self.value_type, Record) else None
        try:
            return self.wire.decode(message, wanted)
        except DecodeError as error:
            raise ValueDecodeError(str(error)) from error


class AvroTopic(faust.Topic):  # type: ignore[misc]
    """Encodes what is sent to a declared topic and gives it headers; refuses undeclared ones."""

    wire: Wire

    def as_future_message(
        self,
        key: Any = None,
        value: Any = None,
        partition: Any = None,
        timestamp: Any = None,
        headers: Any = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        """Faust's one place where a message takes its final form: bytes and headers are made here."""
        topic = self.get_topic_name()
        is_row = topic in self.wire.changelogs
        if is_row:
            key = self.wire.key(topic, key, value)
        if value is not None and not isinstance(value, bytes) and (is_row or not self.internal):
            encoded = self.wire.encode(topic, value)
            if not is_row:
                key = self.wire.key(topic, key, value)
                given = headers.items() if isinstance(headers, Mapping) else headers or ()
                headers = [*self.wire.headers(topic, key), *given]
            value = encoded
        return super().as_future_message(key, value, partition, timestamp, headers, *more, **options)

    def prepare_key(self, key: Any, key_serializer: Any, schema: Any = None, headers: Any = None) -> Any:
        """Bytes are final."""
        if isinstance(key, bytes):
            return key, headers
        return super().prepare_key(key, key_serializer, schema, headers)

    def prepare_value(self, value: Any, value_serializer: Any, schema: Any = None, headers: Any = None) -> Any:
        """Bytes are final, and so is a tombstone."""
        if value is None or isinstance(value, bytes):
            return value, headers
        return super().prepare_value(value, value_serializer, schema, headers)


class AvroTable(faust.Table):  # type: ignore[misc]
    """A table whose rows are records in the declared changelog."""

    wire: Wire

    def _changelog_topic_name(self) -> str:
        for topic, table in self.wire.changelogs.items():
            if table == self.name:
                return topic
        agent = self.wire.site.agent
        raise UndeclaredError(
            f"agent {agent.name} uses a table {self.name!r} that the topology does not declare for it",
            where=str(agent.position),
            hint=f"add to the agent: `tables: [{', '.join([*agent.tables, self.name])}]`",
        )


def faust_types(site: Site) -> dict[str, Any]:
    """Settings of ``faust.App`` that make its agents part of a topology."""
    wire = Wire(site)
    return {
        "Schema": type("AvroSchema", (AvroSchema,), {"wire": wire}),
        "Topic": type("AvroTopic", (AvroTopic,), {"wire": wire}),
        "Table": type("AvroTable", (AvroTable,), {"wire": wire}),
        "consumer_auto_offset_reset": site.agent.start,
        "topic_allow_declare": False,  # `choreo apply` makes topics
        "processing_guarantee": "at_least_once",
    }
