"""An agent's code bound to its topology and schemas: everything that is looked up once and used for every event.

``bind`` runs when the agent starts and refuses what can be seen to be wrong then. What only shows while handlers run
(an emit, a table, a tool that is not declared) is refused on first use, with the line of YAML to add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, NamedTuple, NoReturn, Protocol, cast

from choreo.agent.definition import AgentDefinition, TimerHandler, place_of
from choreo.agent.record import Dump, Make, Record
from choreo.agent.tool import Tool
from choreo.codec.keys import encode_key, key_values
from choreo.codec.schema import Schema, SchemaSet
from choreo.codec.types import Field
from choreo.codec.wire import Decoder, Encoder
from choreo.errors import DecodeError, SchemaError, TopologyError, UndeclaredError
from choreo.kernel.envelope import Header, constant_headers
from choreo.kernel.ids import Identity
from choreo.topology import names
from choreo.topology.model import Agent, Table, Topic, Topology
from choreo.topology.model import Tool as DeclaredTool

DECISION: Final = "Decision"
DEAD_LETTER: Final = "DeadLetter"

KeyOf = Callable[[Any], bytes]
OwnRecords = Callable[[str], tuple[int, Schema]]
"""Id and schema of one of choreo's own records, by short name."""


class SchemaIds(Protocol):
    """Which id on the wire means which schema: the part of a registry that agents need."""

    def id_for(self, subject: str, schema: Schema, /) -> int: ...

    def schema_by_id(self, schema_id: int, /) -> Schema: ...


@dataclass(frozen=True, eq=False, slots=True)
class Input:
    """One topic the agent reads, and the handler of its events."""

    topic: str
    event: type[Record]
    decoder: Decoder
    make: Make
    key_of: KeyOf
    key_fields: str
    handler: Callable[..., Any]
    where: str


@dataclass(frozen=True, eq=False, slots=True)
class Output:
    """One topic the agent writes, for one event class."""

    topic: str
    encoder: Encoder
    dump: Dump
    key_of: KeyOf
    constants: tuple[Header, ...]


@dataclass(frozen=True, eq=False, slots=True)
class TableUse:
    """One table of the agent, for one row class."""

    name: str
    row: type[Record]
    schema: Schema
    decoder: Decoder
    make: Make
    encoder: Encoder
    dump: Dump
    prefix: bytes  # how rows begin that were written with today's schema
    key_fields: tuple[Field, ...]
    key_of: KeyOf

    def read(self, data: bytes, entity: str) -> Record:
        """The row that the bytes hold."""
        try:
            return cast(Record, self.make(self.decoder.decode(data)))
        except DecodeError as error:
            error.where = f"table {self.name} key={entity}"
            raise

    def new(self, entity: str) -> Record:
        """The row of an entity that has none: its key from the entity, the rest from the schema's defaults.

        Raises:
            SchemaError: CH0204, a field has no default.
        """
        missing = [one.name for one in self.schema.root.fields if not one.has_default and one not in self.key_fields]
        if missing:
            raise SchemaError(
                f"table {self.name} has no row for {entity!r} yet, and {self.schema.full_name} has no default for "
                f"{', '.join(missing)}",
                code="CH0204",
                where=self.schema.file,
                hint=f'add "default" to the field {missing[0]}',
            )
        return self.row(**key_values(entity, self.key_fields))


class ReferenceUse(NamedTuple):
    """One reference table of the agent, for one row class."""

    name: str
    row: type[Record]
    decoder: Decoder


class ToolUse(NamedTuple):
    """One tool the agent may call."""

    name: str
    timeout_s: float


@dataclass(eq=False)
class Bindings:
    """Everything about one agent that does not change from event to event."""

    topology: Topology
    agent: Agent
    schemas: SchemaSet
    ids: SchemaIds
    identity: Identity
    inputs: Mapping[str, Input]
    timers: Mapping[str, TimerHandler]
    decision: Encoder
    dead_letter: Encoder
    outputs: dict[tuple[type[Record], str | None], Output] = field(default_factory=dict)
    tables: dict[tuple[type[Record], str | None], TableUse] = field(default_factory=dict)
    references: dict[tuple[type[Record], str | None], ReferenceUse] = field(default_factory=dict)
    tools: dict[int, tuple[Tool[..., Any], ToolUse]] = field(default_factory=dict)

    # -- emits ---------------------------------------------------------------------------------------------------------

    def output(self, event: type[Record], topic: str | None) -> Output:
        """Where an event of this class goes.

        Raises:
            UndeclaredError: CH0311, the agent doesn't write it, with the line to add; CH0103, it is not clear where.
        """
        found = self.outputs.get((event, topic))
        if found is None:
            found = self.outputs[event, topic] = self._output(event, topic)
        return found

    def _output(self, event: type[Record], topic: str | None) -> Output:
        agent, topics = self.agent, self.topology.topics
        name = event.__name__
        if topic is None:
            carrying = [one for one in topics if self._carries(topics[one].schema, event)]
            candidates = [one for one in carrying if one in agent.writes]
            if len(candidates) > 1:
                self._refuse(
                    f"{name} may go to {' and '.join(candidates)}",
                    f"say which: ctx.emit(…, topic={candidates[0]!r})",
                    code="CH0103",
                )
            if not candidates:
                if not carrying:
                    self._refuse(
                        f"{agent.name} emits {name}, but no topic carries it",
                        f"declare one, `{_dashes(name)}: {{schema: {name}, key: …}}` under topics:, and add to agent "
                        f"{agent.name}: `{_line('writes', agent.writes, _dashes(name))}`",
                    )
                self._refuse_edge(f"emits {name} to {' or '.join(carrying)}", "writes", agent.writes, carrying[0])
            topic = candidates[0]
        declared = topics.get(topic)
        if declared is None:
            self._refuse(
                f"{agent.name} emits to topic {topic}, which the topology does not have",
                f"declare it, `{topic}: {{schema: {name}, key: …}}` under topics:, and add to agent {agent.name}: "
                f"`{_line('writes', agent.writes, topic)}`",
            )
        if topic not in agent.writes:
            self._refuse_edge(f"emits to topic {topic}", "writes", agent.writes, topic)
        if not self._carries(declared.schema, event):
            self._refuse(f"topic {topic} carries {declared.schema}, not {name}", "emit that, or another topic")
        schema = self._schema_of(event, declared.schema)
        encoder = Encoder(self.ids.id_for(f"{topic}-value", schema), schema)
        constants = constant_headers(self.identity, schema.full_name)
        return Output(topic, encoder, event._dump(), key_reader(declared.key), constants)

    # -- tables --------------------------------------------------------------------------------------------------------

    def table(self, row: type[Record], name: str | None) -> TableUse:
        """The agent's table with rows of this class.

        Raises:
            UndeclaredError: CH0311, the agent has no such table, with the line to add; CH0103, it is not clear which,
                or it is a reference table.
        """
        found = self.tables.get((row, name))
        if found is None:
            found = self.tables[row, name] = self._table(row, name)
        return found

    def _table(self, row: type[Record], name: str | None) -> TableUse:
        declared = self._declared_table(row, name, reference=False)
        schema = self._schema_of(row, declared.schema)
        subject = f"{names.changelog(self.topology.name, self.agent.name, declared.name)}-value"
        encoder = Encoder(self.ids.id_for(subject, schema), schema)
        key_fields = tuple(one for one in map(schema.field, declared.key) if one is not None)
        if len(key_fields) != len(declared.key):
            self._refuse(
                f"table {declared.name} is keyed by {', '.join(declared.key)}, which {schema.full_name} does not have",
                "name fields of the row",
                code="CH0103",
            )
        return TableUse(
            declared.name,
            row,
            schema,
            Decoder(row._schema(), self.ids.schema_by_id),
            row._make(),
            encoder,
            row._dump(),
            bytes([0]) + encoder.schema_id.to_bytes(4, "big"),
            key_fields,
            key_reader(declared.key),
        )

    def reference(self, row: type[Record], name: str | None) -> ReferenceUse:
        """The agent's reference table with rows of this class.

        Raises:
            UndeclaredError: as ``table``.
        """
        found = self.references.get((row, name))
        if found is None:
            declared = self._declared_table(row, name, reference=True)
            self._schema_of(row, declared.schema)
            found = ReferenceUse(declared.name, row, Decoder(row._schema(), self.ids.schema_by_id))
            self.references[row, name] = found
        return found

    def _declared_table(self, row: type[Record], name: str | None, *, reference: bool) -> Table:
        agent, tables = self.agent, self.topology.tables
        if name is None:
            holding = [one for one in tables if self._carries(tables[one].schema, row)]
            candidates = [one for one in holding if one in agent.tables]
            if len(candidates) > 1:
                self._refuse(
                    f"rows of {row.__name__} may be in {' and '.join(candidates)}",
                    f"say which: table={candidates[0]!r}",
                    code="CH0103",
                )
            if not candidates:
                if not holding:
                    new = f"{row.__name__.lower()}s"
                    self._refuse(
                        f"{agent.name} uses rows of {row.__name__}, but no table holds them",
                        f"declare one, `{new}: {{schema: {row.__name__}, key: …}}` under tables:, and add to agent "
                        f"{agent.name}: `{_line('tables', agent.tables, new)}`",
                    )
                self._refuse_edge(f"uses table {holding[0]}", "tables", agent.tables, holding[0])
            name = candidates[0]
        declared = tables.get(name)
        if declared is None:
            self._refuse(
                f"{agent.name} uses table {name}, which the topology does not have",
                f"declare it, `{name}: {{schema: {row.__name__}, key: …}}` under tables:, and add to agent "
                f"{agent.name}: `{_line('tables', agent.tables, name)}`",
            )
        if name not in agent.tables:
            self._refuse_edge(f"uses table {name}", "tables", agent.tables, name)
        if not self._carries(declared.schema, row):
            self._refuse(
                f"table {name} holds rows of {declared.schema}, not {row.__name__}", "use that class", code="CH0103"
            )
        if declared.reference != reference:
            self._refuse(
                f"table {name} is {'a reference table' if declared.reference else 'no reference table'}",
                "use ctx.lookup(cls, key)" if declared.reference else "use ctx.row(cls): a step sees its own entity",
                code="CH0103",
            )
        return declared

    # -- tools ---------------------------------------------------------------------------------------------------------

    def tool(self, tool: Tool[..., Any]) -> ToolUse:
        """What the topology says about a tool that a handler calls.

        Raises:
            UndeclaredError: CH0311, the agent may not call it, with the line to add; CH0103, the decorator says
                something else than the topology.
        """
        found = self.tools.get(id(tool))
        if found is None:
            found = self.tools[id(tool)] = (
                tool,
                self._tool(tool),
            )  # keeps the tool alive, so that its id stays its own
        return found[1]

    def _tool(self, tool: Tool[..., Any]) -> ToolUse:
        agent = self.agent
        if not isinstance(tool, Tool):
            self._refuse(
                f"ctx.call takes a tool, saw {getattr(tool, '__name__', type(tool).__name__)}",
                'write @choreo.tool(effect="read") above the function',
                code="CH0103",
            )
        declared = self.topology.tools.get(tool.name)
        if declared is None:
            self._refuse(
                f"{agent.name} calls tool {tool.name}, which the topology does not have",
                f"declare it, `{tool.name}: {{kind: python, function: {tool.place!r}, effect: {tool.effect}}}` under "
                f"tools:, and add to agent {agent.name}: `{_line('tools', agent.tools, tool.name)}`",
            )
        if tool.name not in agent.tools:
            self._refuse_edge(f"calls tool {tool.name}", "tools", agent.tools, tool.name)
        self._check_agreement(tool, declared)
        return ToolUse(tool.name, min(tool.timeout_s, declared.timeout_ms / 1000))

    def _check_agreement(self, tool: Tool[..., Any], declared: DeclaredTool) -> None:
        if declared.effect != tool.effect:
            raise UndeclaredError(
                f"tool {tool.name} is {tool.effect} in code and {declared.effect} in the topology",
                code="CH0103",
                where=str(declared.position),
                hint="what may be repeated after a crash has one answer: make both say it",
            )
        if declared.function is not None and declared.function != tool.place:
            raise UndeclaredError(
                f"tool {tool.name} is {tool.place} in code and {declared.function} in the topology",
                code="CH0103",
                where=str(declared.position),
                hint=f"write `function: {tool.place!r}`",
            )

    # -- words ---------------------------------------------------------------------------------------------------------

    def _carries(self, schema: str, record: type[Record]) -> bool:
        return schema in self.schemas and self.schemas.by_name(schema).full_name == record.__avro_name__

    def _schema_of(self, record: type[Record], name: str) -> Schema:
        return current_schema(record, self.schemas.by_name(name))

    def _refuse_edge(self, what: str, section: str, present: tuple[str, ...], name: str) -> NoReturn:
        self._refuse(
            f"{self.agent.name} {what}, but does not declare it",
            f"add to agent {self.agent.name}: `{_line(section, present, name)}`",
        )

    def _refuse(self, message: str, hint: str, *, code: str = "CH0311") -> NoReturn:
        raise UndeclaredError(message, code=code, where=str(self.agent.position), hint=hint)


def bind(
    definition: AgentDefinition,
    topology: Topology,
    schemas: SchemaSet,
    ids: SchemaIds,
    own_records: OwnRecords,
) -> Bindings:
    """An agent's code, checked against its topology.

    Args:
        definition: the handlers.
        topology: what is declared; it has an agent of the definition's name.
        schemas: the project's schemas.
        ids: the registry. Ids of everything the agent writes are looked up now.
        own_records: id and schema of choreo's own records.

    Raises:
        TopologyError: CH0103 or CH0314, code and topology don't fit together.
        UndeclaredError: CH0311, a handler of an event that the agent doesn't read, with the line to add.
        SchemaError: CH0205, a schema is not registered.
    """
    agent = topology.agents.get(definition.name)
    if agent is None:
        raise TopologyError(
            f"the topology declares no agent {definition.name}",
            code="CH0103",
            where=topology.file,
            hint=f"it has: {', '.join(topology.agents) or 'none'}",
        )
    if agent.kind != "handlers":
        raise TopologyError(
            f"agent {agent.name} is of kind {agent.kind}, which has no handlers",
            code="CH0103",
            where=str(agent.position),
        )
    bindings = Bindings(
        topology,
        agent,
        schemas,
        ids,
        Identity(topology.name, agent.name),
        _inputs(definition, topology, agent, schemas, ids),
        dict(definition.timers),
        Encoder(*own_records(DECISION)),
        Encoder(*own_records(DEAD_LETTER)),
    )
    _check_ids(bindings)
    return bindings


def _inputs(
    definition: AgentDefinition, topology: Topology, agent: Agent, schemas: SchemaSet, ids: SchemaIds
) -> dict[str, Input]:
    inputs: dict[str, Input] = {}
    for registration in definition.registrations:
        event, where = registration.event, registration.place
        carrying = [
            topic
            for topic in topology.topics.values()
            if topic.schema in schemas and schemas.by_name(topic.schema).full_name == event.__avro_name__
        ]
        if registration.topic is not None:
            carrying = [topic for topic in carrying if topic.name == registration.topic]
        read = [topic for topic in carrying if topic.name in agent.reads]
        if not read:
            _refuse_handler(agent, event, registration.topic, carrying, where)
        for topic in read:
            other = inputs.get(topic.name)
            if other is not None:
                raise TopologyError(
                    f"topic {topic.name} has two handlers: {place_of(other.handler)} and {where}",
                    code="CH0103",
                    where=where,
                    hint="one topic has one handler in an agent; say topic= where an event comes from several",
                )
            current_schema(event, schemas.by_name(topic.schema))
            inputs[topic.name] = Input(
                topic.name,
                event,
                Decoder(event._schema(), ids.schema_by_id),
                event._make(),
                key_reader(topic.key),
                ", ".join(topic.key),
                registration.function,
                where,
            )
    for name in agent.reads:
        if name not in inputs:
            schema = topology.topics[name].schema.rpartition(".")[2]
            raise TopologyError(
                f"{agent.name} reads {name}, but has no handler for {schema}",
                code="CH0314",
                where=str(agent.position),
                hint=f"write `@app.on({schema})` above an `async def (event, ctx)`, or remove {name} from its reads",
            )
    return inputs


def _refuse_handler(
    agent: Agent, event: type[Record], topic: str | None, carrying: list[Topic], where: str
) -> NoReturn:
    name = event.__name__
    if carrying:
        raise UndeclaredError(
            f"{agent.name} handles {name}, but does not read {' or '.join(one.name for one in carrying)}",
            where=where,
            hint=f"add to agent {agent.name} ({agent.position}): `{_line('reads', agent.reads, carrying[0].name)}`",
        )
    new = topic or _dashes(name)
    raise UndeclaredError(
        f"{agent.name} handles {name}, but {f'topic {topic} does not carry it' if topic else 'no topic carries it'}",
        where=where,
        hint=f"declare one, `{new}: {{schema: {name}, key: …}}` under topics:, and add to agent {agent.name} "
        f"({agent.position}): `{_line('reads', agent.reads, new)}`",
    )


def _check_ids(bindings: Bindings) -> None:
    """Looks up the ids of all that the agent writes, so that a missing one shows at the start, not in a step."""
    topology, agent = bindings.topology, bindings.agent
    for name in agent.writes:
        bindings.ids.id_for(f"{name}-value", bindings.schemas.by_name(topology.topics[name].schema))
    for name in agent.tables:
        table = topology.tables[name]
        if not table.reference:
            subject = f"{names.changelog(topology.name, agent.name, name)}-value"
            bindings.ids.id_for(subject, bindings.schemas.by_name(table.schema))


def current_schema(record: type[Record], schema: Schema) -> Schema:
    """The schema, if the class was generated from it as it is now.

    Raises:
        TopologyError: CH0103, the class is older or newer than the `.avsc` file.
    """
    if record._schema() != schema:
        raise TopologyError(
            f"the class {record.__name__} was not generated from {schema.file} as it is now",
            code="CH0103",
            where=schema.file,
            hint="run `choreo schemas generate`",
        )
    return schema


def key_reader(fields: tuple[str, ...]) -> KeyOf:
    """A function from a record to its key's bytes."""
    if len(fields) != 1:
        read_all = attrgetter(*fields)
        return lambda record: encode_key(read_all(record))
    read = attrgetter(fields[0])

    def key_of(record: Any) -> bytes:
        value = read(record)
        return value.encode() if type(value) is str and value.isascii() else encode_key((value,))

    return key_of


def _line(section: str, present: tuple[str, ...], name: str) -> str:
    return f"{section}: [{', '.join([*present, name])}]"


def _dashes(name: str) -> str:
    """CapWords as a topic's name: ``DelayRisk`` → ``delay-risk``."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")
