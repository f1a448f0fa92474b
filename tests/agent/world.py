"""A small topology with hand-written classes, a registry in memory and a state in dictionaries."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from choreo.agent.bindings import Bindings, bind
from choreo.agent.definition import AgentDefinition
from choreo.agent.record import Record
from choreo.agent.runner import AgentRunner
from choreo.codec.schema import Schema, SchemaSet
from choreo.codec.wire import Decoder, Encoder
from choreo.errors import SchemaError
from choreo.kernel.envelope import parse_headers
from choreo.kernel.values import (
    Answer,
    Delivery,
    InputTopic,
    Outcome,
    StepResult,
    TimerRow,
    TopicFacts,
    Trigger,
    Waiting,
)
from choreo.runtime.builtin_schemas import builtin_id, builtin_lock
from choreo.runtime.classify import classify, guard
from choreo.topology import names
from choreo.topology.model import Agent, Cluster, Position, Table, Tool, Topic, Topology

NOW_MS = 1_700_000_000_000
HERE = Position("topologies/logistics.yaml", 7, 3)


def record(name: str, *fields: dict[str, Any]) -> str:
    return json.dumps({"type": "record", "name": name, "namespace": "logistics", "fields": list(fields)})


def text(name: str, default: Any = ...) -> dict[str, Any]:
    return {"name": name, "type": "string"} | ({} if default is ... else {"default": default})


def number(name: str, default: Any = ...) -> dict[str, Any]:
    return {"name": name, "type": "int"} | ({} if default is ... else {"default": default})


class FlightDeparted(Record):
    __avro_name__ = "logistics.FlightDeparted"
    __avro_schema__ = record("FlightDeparted", text("tail_number"), number("dep_delay_minutes"))
    tail_number: str
    dep_delay_minutes: int


class WeatherSeen(Record):
    __avro_name__ = "logistics.WeatherSeen"
    __avro_schema__ = record("WeatherSeen", text("tail_number"), text("sky"))
    tail_number: str
    sky: str


class DelayRisk(Record):
    __avro_name__ = "logistics.DelayRisk"
    __avro_schema__ = record("DelayRisk", text("tail_number"), number("minutes"))
    tail_number: str
    minutes: int


class Rerouted(Record):
    __avro_name__ = "logistics.Rerouted"
    __avro_schema__ = record("Rerouted", text("tail_number"))
    tail_number: str


class AircraftState(Record):
    __avro_name__ = "logistics.AircraftState"
    __avro_schema__ = record("AircraftState", text("tail_number"), number("delay_minutes", 0), number("flights", 0))
    tail_number: str
    delay_minutes: int = 0
    flights: int = 0


class Strict(Record):
    __avro_name__ = "logistics.Strict"
    __avro_schema__ = record("Strict", text("tail_number"), number("needed"))
    tail_number: str
    needed: int


class RiskCount(Record):
    __avro_name__ = "logistics.RiskCount"
    __avro_schema__ = record("RiskCount", text("tail_number"), number("risks", 0))
    tail_number: str
    risks: int = 0


class Airport(Record):
    __avro_name__ = "logistics.Airport"
    __avro_schema__ = record("Airport", text("iata"), text("city"))
    iata: str
    city: str


CLASSES = (FlightDeparted, WeatherSeen, DelayRisk, Rerouted, AircraftState, Strict, RiskCount, Airport)
SCHEMAS = SchemaSet.load({f"{cls.__name__}.avsc": cls.__avro_schema__ for cls in CLASSES})


class Ids:
    """A registry: every schema has an id."""

    def __init__(self, missing: tuple[str, ...] = ()) -> None:
        self.schemas: list[Schema] = []
        self.missing = missing

    def id_for(self, subject: str, schema: Schema, /) -> int:
        if subject in self.missing:
            raise SchemaError(f"{schema.full_name} is not registered for {subject}", code="CH0205")
        if schema not in self.schemas:
            self.schemas.append(schema)
        return 1000 + self.schemas.index(schema)

    def schema_by_id(self, schema_id: int, /) -> Schema:
        try:
            return self.schemas[schema_id - 1000]
        except IndexError:
            raise SchemaError(f"schema id {schema_id} is unknown", code="CH0205") from None


def topology(**changes: Any) -> Topology:
    """The topology; keyword arguments change the agent."""
    agent = Agent(
        "aircraft_tracker",
        "agents.aircraft_tracker",
        "handlers",
        HERE,
        reads=("flights",),
        writes=("delay-risks",),
        tables=("aircraft", "airports"),
        tools=("weather_at",),
    )
    agent = Agent(**{name: changes.get(name, getattr(agent, name)) for name in Agent.__dataclass_fields__})
    topics = [
        ("flights", "FlightDeparted"),
        ("weather", "WeatherSeen"),
        ("delay-risks", "DelayRisk"),
        ("old-risks", "DelayRisk"),
        ("reroutes", "Rerouted"),
    ]
    tables = [
        Table("aircraft", "AircraftState", ("tail_number",), HERE),
        Table("strict", "Strict", ("tail_number",), HERE),
        Table("airports", "Airport", ("iata",), HERE, reference=True),
    ]
    tools = [
        Tool("weather_at", "python", None, "read", 5_000, HERE),
        Tool("rebook", "python", None, "idempotent", 5_000, HERE),
        Tool("quote", "python", "agents.recovery:quote", "read", 5_000, HERE),
    ]
    return Topology(
        "logistics",
        "ops-team",
        "topologies/logistics.yaml",
        Cluster(),
        {name: Topic(name, schema, ("tail_number",), 4, None, HERE) for name, schema in topics},
        {table.name: table for table in tables},
        {agent.name: agent},
        {tool.name: tool for tool in tools},
    )


class State:
    """A ``StateView`` that a test fills."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], bytes] = {}
        self.shaped_by: dict[tuple[str, str], str] = {}
        self.references: dict[tuple[str, str], tuple[bytes, int]] = {}
        self.sequences: dict[str, int] = {}

    def row(self, table: str, entity: str) -> bytes | None:
        return self.rows.get((table, entity))

    def provenance(self, table: str, entity: str) -> str | None:
        return self.shaped_by.get((table, entity))

    def reference(self, table: str, key: str) -> tuple[bytes, int] | None:
        return self.references.get((table, key))

    def sequence(self, entity: str) -> int:
        return self.sequences.get(entity, 0)


@dataclass
class World:
    """One agent, its registry and its state."""

    definition: AgentDefinition = field(default_factory=lambda: AgentDefinition("aircraft_tracker"))
    ids: Ids = field(default_factory=Ids)
    state: State = field(default_factory=State)
    agent: dict[str, Any] = field(default_factory=dict)
    message_bytes_max: int = 1_048_576
    _runner: AgentRunner | None = None
    _offset: int = 0

    def bind(self) -> Bindings:
        return bind(self.definition, topology(**self.agent), SCHEMAS, self.ids, builtin_id)

    @property
    def runner(self) -> AgentRunner:
        if self._runner is None:
            facts = TopicFacts(4, self.message_bytes_max)
            internal = [names.decisions("logistics"), names.dead_letters("logistics", "aircraft_tracker")]
            self._runner = AgentRunner(
                self.bind(), guard=guard, classify=classify, facts=dict.fromkeys(internal, facts)
            )
        return self._runner

    def encode(self, value: Record) -> bytes:
        schema = value._schema()
        return Encoder(self.ids.id_for("any", schema), schema).encode(value._to_avro())

    def decode(self, cls: type[Record], data: bytes | None) -> Any:
        assert data is not None
        return cls._from_avro(Decoder(cls._schema(), self.ids.schema_by_id).decode(data))

    def event(
        self,
        value: Record | bytes | None,
        *,
        topic: str = "flights",
        key: bytes | None = b"N1",
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> Trigger:
        data = self.encode(value) if isinstance(value, Record) else value
        delivery = Delivery(topic, 2, self._offset, NOW_MS - 60_000, key, data, headers)
        self._offset += 1
        envelope = parse_headers(delivery, InputTopic(topic, cluster_id="c", topic_id="t"))
        return Trigger("event", (key or b"").decode(errors="replace"), delivery, envelope)

    def advance(self, trigger: Trigger, *answers: Answer) -> StepResult:
        """Runs a step; each answer continues it after a call."""
        step = self.runner.start(trigger, self.state, NOW_MS)
        result = step.advance(None)
        for answer in answers:
            assert isinstance(result, Waiting), result
            result = step.advance(answer)
        return result

    def run(self, trigger: Trigger, *answers: Answer) -> Outcome:
        result = self.advance(trigger, *answers)
        assert isinstance(result, Outcome), result
        return result

    def commit(self, trigger: Trigger, outcome: Outcome) -> None:
        """What the engine does once the outcome is committed, as far as rows go."""
        for write in outcome.rows:
            if write.value is None:
                del self.state.rows[write.table, trigger.entity]
            else:
                self.state.rows[write.table, trigger.entity] = write.value
                self.state.shaped_by[write.table, trigger.entity] = dict(write.headers)["ce_causationid"].decode()
        self.state.sequences[trigger.entity] = self.state.sequence(trigger.entity) + 1


def decoded(name: str, data: bytes | None) -> dict[str, Any]:
    """One of choreo's own records."""
    assert data is not None
    return Decoder(builtin_id(name)[1], builtin_lock().schema).decode(data)


def fired(timer: TimerRow) -> Trigger:
    """The trigger of a timer, as the engine makes it."""
    origin = timer.origin
    envelope = origin._replace(event_id=timer.timer_id, type="", time_ms=timer.at_ms, causation_id=origin.event_id)
    return Trigger("timer", timer.entity, None, envelope, timer)
