"""``TopologyDriver``: a handler, an agent or a whole topology in one process, synchronous, with virtual time.

The engine, the runner, the codec and the headers are those of a live worker; Kafka is a bus in memory, the registry
takes every schema, and time moves only when the test says so. What a test proves here is the agents' logic; the
promises about crashes are proven on a real broker.

Kafka Streams' ``TopologyTestDriver`` is the model: pipe records in, read records out, advance the clock.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from choreo.agent.bindings import bind
from choreo.agent.definition import AgentDefinition
from choreo.agent.record import Record
from choreo.agent.tool import Invocation, Tool
from choreo.codec.keys import encode_key
from choreo.codec.schema import Schema, SchemaSet
from choreo.codec.wire import Decoder, Encoder
from choreo.errors import HostError, StepError, ToolError, TopologyError, UndeclaredError
from choreo.kernel.envelope import Header, constant_headers, rfc3339
from choreo.kernel.ids import Identity
from choreo.kernel.values import Answer, Call, Headers, OutRecord
from choreo.runtime.builtin_schemas import builtin_id
from choreo.runtime.project import Project
from choreo.runtime.tools import run_call
from choreo.testing.bus import MemoryBus
from choreo.testing.clock import START, ManualClock, to_ms
from choreo.testing.registry import MemoryRegistry
from choreo.testing.worker import MemoryWorker
from choreo.topology import names
from choreo.topology.model import Agent, Table, Topic, Topology

E = TypeVar("E", bound=Record)

ROUNDS_MAX: Final = 10_000
"""Timers on the way of one advance: every ten seconds of a day make 8,640."""
SETTLE_STEPS_MAX: Final = 50_000
"""Steps at one moment: more are without an end, because a timer sets itself again or agents answer each other."""
SOURCE: Final = "test"
"""Stands for the agent in the headers of sent events: ``/choreo/{topology}/test``."""


class HasDefinition(Protocol):
    """A ``choreo.App``."""

    @property
    def definition(self) -> AgentDefinition: ...


AgentLike = AgentDefinition | HasDefinition | str


class TopologyDriver:
    """Runs a topology, or some of its agents, in process.

    Args:
        topology: file from the project root, or a topology as a value.
        agents: which agents run: apps, definitions or names; all of kind ``handlers`` if empty. Names, and all, are
            imported from the module that the topology gives.
        seed: which agent takes its turn first; 0 is the order of the file. Results that depend on it would depend on
            chance in production.
        schemas: the project's schemas; read from the project if absent.
        strict: a dead letter fails the test at once, with the error that caused it.
        project: where agents, schemas and topologies are; found from the working directory if absent.

    Example:
        ```python
        driver = TopologyDriver("topologies/logistics.yaml", agents=[app])
        driver.send(FlightDeparted(tail_number="N14228", dep_delay_minutes=45))
        assert driver.read(DelayRisk) == [DelayRisk(tail_number="N14228", minutes=45)]
        assert driver.row(AircraftState, "N14228").delay_minutes == 45
        ```
    """

    def __init__(
        self,
        topology: str | Path | Topology,
        /,
        *,
        agents: Iterable[AgentLike] = (),
        seed: int = 0,
        schemas: SchemaSet | None = None,
        strict: bool = True,
        project: Project | None = None,
    ) -> None:
        if project is None and (not isinstance(topology, Topology) or schemas is None):
            project = Project.find(topology.parent if isinstance(topology, Path) else None)
        self.topology = topology if isinstance(topology, Topology) else _project(project).load_topology(topology)
        self.schemas = _project(project).schemas() if schemas is None else schemas
        self.clock = ManualClock(START)
        self.bus = MemoryBus()
        self.registry = MemoryRegistry()
        self._strict = strict
        self._started = False
        self._sent = 0
        self._identity = Identity(self.topology.name, SOURCE)
        self._encoders: dict[str, tuple[Encoder, tuple[Header, ...]]] = {}
        self._answers: dict[str, deque[object]] = {}
        self._references: dict[tuple[str, str], tuple[bytes, int]] = {}
        self._read_to: dict[str, int] = {}
        self._dead_letters_seen = 0
        definitions = [self._definition(one, project) for one in agents or self._handler_agents()]
        for topic in self.topology.topics.values():
            self.bus.create_topic(topic.name, topic.partitions)
        self.bus.create_topic(names.decisions(self.topology.name), 1)
        self.workers = {
            one.name: MemoryWorker(
                bind(one, self.topology, self.schemas, self.registry, builtin_id),
                self.bus,
                lambda table, key: self._references.get((table, key)),
                self._answer,
            )
            for one in definitions
        }
        self._order = list(self.workers.values())
        if seed:
            random.Random(seed).shuffle(self._order)

    # -- agents --------------------------------------------------------------------------------------------------------

    def _handler_agents(self) -> list[AgentLike]:
        return [agent.name for agent in self.topology.agents.values() if agent.kind == "handlers"]

    def _definition(self, agent: AgentLike, project: Project | None) -> AgentDefinition:
        if isinstance(agent, AgentDefinition):
            return agent
        if not isinstance(agent, str):
            return agent.definition
        declared = self.topology.agents.get(agent)
        if declared is None:
            raise TopologyError(
                f"the topology declares no agent {agent!r}; it has: {', '.join(self.topology.agents)}",
                code="CH0103",
                where=self.topology.file,
            )
        return load_definition(declared, _project(project or Project.find()))

    # -- in ------------------------------------------------------------------------------------------------------------

    def send(self, event: Record, *, topic: str | None = None, at: datetime | None = None) -> str:
        """Sends an event from outside and runs until everything is quiet.

        Args:
            event: instance of a generated event class.
            topic: where to; needed only if several topics carry this event.
            at: event time. Virtual time moves there if it is later, firing timers on the way; the first event of a
                test may set it to any moment. Virtual now if absent.

        Returns:
            The event's id.

        Raises:
            ChoreoError: a step ended in a dead letter (unless ``strict`` is off), or a tool has no answer.
        """
        carried = _name_of(event)
        name = topic or self._topic_of(carried)
        declared = self._topic(name)
        if self._full_name(declared.schema) != carried:
            raise UndeclaredError(f"topic {name} carries {declared.schema}, not {carried}", where=self.topology.file)
        return self.send_value(name, event._to_avro(), at=at)

    def send_value(self, topic: str, value: Mapping[str, object], *, at: datetime | None = None) -> str:
        """Sends an event given by its fields; otherwise like ``send``."""
        declared = self._topic(topic)
        encoder, constants = self._encoder(declared)
        data = encoder.encode(value)
        key = encode_key([value[field] for field in declared.key])
        event_id = self._identity.event_id("", self._sent)
        at_ms = self._arrive(at)
        headers = (
            ("ce_id", event_id.encode()),
            *constants,
            ("ce_time", rfc3339(at_ms).encode()),
            ("ce_subject", key),
        )
        self.send_bytes(topic, key=key, value=data, headers=headers)
        return event_id

    def send_bytes(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = (), partition: int | None = None
    ) -> None:
        """Sends raw bytes, for tests of input that cannot be read; otherwise like ``send``."""
        self._topic(topic)
        self._sent += 1
        self._started = True
        self.bus.send(OutRecord(topic, partition, key, value, headers), self.clock.now_ms)
        self.settle()

    def _arrive(self, at: datetime | None) -> int:
        """Event time of the next event; virtual time has moved there if it is later."""
        if at is None:
            return self.clock.now_ms
        at_ms = to_ms(at)
        if not self._started:
            self.clock = ManualClock(at)
            self._started = True
        elif at_ms > self.clock.now_ms:
            self._move_to(at_ms)
        return at_ms

    def load(self, row: Record, *, table: str | None = None) -> None:
        """Puts a row into a reference table.

        Args:
            row: instance of the row's class.
            table: which table; needed only if several reference tables hold rows of this class.
        """
        held = _name_of(row)
        name = table or self._table_of(held, reference=True)
        declared = self._table(name)
        if self._full_name(declared.schema) != held:
            raise UndeclaredError(f"table {name} holds {declared.schema}, not {held}", where=self.topology.file)
        self.load_value(name, row._to_avro())

    def load_value(self, table: str, value: Mapping[str, object]) -> None:
        """Puts a row, given by its fields, into a reference table."""
        declared = self._table(table)
        if not declared.reference:
            raise UndeclaredError(
                f"table {table} is no reference table",
                where=str(declared.position),
                hint="its rows are the agent's: send the events that make them",
            )
        schema = self.schemas.by_name(declared.schema)
        encoder = Encoder(self.registry.register(f"{names.reference(self.topology.name, table)}-value", schema), schema)
        data = encoder.encode(value)
        key = encode_key([value[field] for field in declared.key]).decode()
        self._references[table, key] = (data, len(self._references))

    def answer(self, tool: Tool[..., Any] | str, /, *results: object) -> None:
        """Says what the next calls of a tool answer, in order.

        ``read`` tools never run in a test; ``pure`` ones run unless an answer was given.

        Args:
            tool: the tool, or its name.
            results: answers; an exception is raised in the handler as the tool's failure.
        """
        name = tool if isinstance(tool, str) else tool.name
        if name not in self.topology.tools:
            known = ", ".join(self.topology.tools) or "none"
            raise UndeclaredError(f"the topology has no tool {name!r}; it has: {known}", where=self.topology.file)
        self._answers.setdefault(name, deque()).extend(results)

    # -- time ----------------------------------------------------------------------------------------------------------

    def advance(self, by: timedelta) -> None:
        """Moves virtual time on, firing timers and repeating failed attempts when they are due.

        Args:
            by: how far.
        """
        self.settle()
        self._move_to(self.clock.now_ms + by // timedelta(milliseconds=1))

    def _move_to(self, target_ms: int) -> None:
        for _ in range(ROUNDS_MAX):
            due = [worker.wakes_at_ms(self.clock.now_ms) for worker in self._order]
            times = [at for at in due if at is not None and at <= target_ms]
            if not times:
                self.clock.move_to(target_ms)
                self.settle()
                return
            self.clock.move_to(max(self.clock.now_ms, min(times)))
            self.settle()
        raise StepError(
            f"no end after {ROUNDS_MAX} rounds of timers", hint="a timer sets itself again without moving on"
        )

    def settle(self) -> None:
        """Runs until no agent has anything to do at this moment."""
        steps_max = self._steps() + SETTLE_STEPS_MAX
        busy = True
        while busy:
            busy = False
            for worker in self._order:
                busy = worker.turn(self.clock.now_ms) or busy
            if self._steps() > steps_max:
                raise StepError(
                    f"no end after {SETTLE_STEPS_MAX} steps at {self.clock.now.isoformat()}",
                    hint="a timer sets itself again at a time that has passed, or agents answer each other for ever",
                )
        self._check_dead_letters()

    def _steps(self) -> int:
        return sum(worker.statistics.steps for worker in self._order)

    # -- out -----------------------------------------------------------------------------------------------------------

    def read(self, cls: type[E], /, *, topic: str | None = None) -> list[E]:
        """Events of a class that were not read yet, oldest first.

        Sent and emitted ones alike, in the order in which they became visible.

        Args:
            cls: class of the event.
            topic: which topic; all that carry this event if absent.
        """
        carrying = [topic] if topic is not None else self._carrying(cls.__avro_name__)
        if not carrying:
            raise UndeclaredError(f"no topic carries {cls.__avro_name__}", where=self.topology.file)
        decoder = Decoder(cls._schema(), self.registry.schema_by_id)
        return [cls._from_avro(decoder.decode(data)) for name in carrying for data in self._unread(name)]

    def emitted_values(self, topic: str) -> list[dict[str, Any]]:
        """All events so far that agents wrote to a topic, as dictionaries of their fields."""
        decoder = Decoder(self.schemas.by_name(self._topic(topic).schema), self.registry.schema_by_id)
        sent = self._identity.source.encode()
        return [
            decoder.decode(one.value)
            for one in self.bus.history(topic)[0]
            if one.value is not None and dict(one.headers).get("ce_source") != sent
        ]

    def _unread(self, topic: str) -> list[bytes]:
        self._topic(topic)
        deliveries, self._read_to[topic] = self.bus.history(topic, self._read_to.get(topic, 0))
        return [one.value for one in deliveries if one.value is not None]

    def row(self, cls: type[E], key: object, /, *, table: str | None = None) -> E | None:
        """The committed row of an entity, or of a reference table; None if there is none.

        Args:
            cls: class of the row.
            key: its key: a text, an integer, a UUID, or a tuple of several.
            table: which table; needed only if several hold rows of this class.
        """
        name = table or self._table_of(cls.__avro_name__)
        data = self._row(name, entity_of(key))
        decoder = Decoder(cls._schema(), self.registry.schema_by_id)
        return None if data is None else cls._from_avro(decoder.decode(data))

    def row_value(self, table: str, key: object) -> dict[str, Any] | None:
        """The committed row of an entity as a dictionary of its fields."""
        schema = self.schemas.by_name(self._table(table).schema)
        data = self._row(table, entity_of(key))
        return None if data is None else Decoder(schema, self.registry.schema_by_id).decode(data)

    def _row(self, table: str, entity: str) -> bytes | None:
        if self._table(table).reference:
            found = self._references.get((table, entity))
            return None if found is None else found[0]
        for worker in self.workers.values():
            if table in worker.bindings.agent.tables:
                return worker.row(table, entity)
        return None

    def dead_letters(self) -> list[dict[str, Any]]:
        """All dead letters so far, as the fields of ``choreo.DeadLetter``."""
        topics = [names.dead_letters(self.topology.name, worker) for worker in self.workers]
        return [value for topic in topics for value in self._own(topic, "DeadLetter")]

    def decisions(self) -> list[dict[str, Any]]:
        """All decisions so far, as the fields of ``choreo.Decision``."""
        return self._own(names.decisions(self.topology.name), "Decision")

    def parked(self) -> list[str]:
        """Ids of the events that wait for a person."""
        return [row.event_id for worker in self.workers.values() for row in worker.engine.parked_rows()]

    def _own(self, topic: str, record: str) -> list[dict[str, Any]]:
        decoder = Decoder(builtin_id(record)[1], self.registry.schema_by_id)
        return [decoder.decode(one.value) for one in self.bus.history(topic)[0] if one.value is not None]

    # -- inside --------------------------------------------------------------------------------------------------------

    def _check_dead_letters(self) -> None:
        if not self._strict:
            return
        found = self.dead_letters()
        if len(found) > self._dead_letters_seen:
            first = found[self._dead_letters_seen]
            self._dead_letters_seen = len(found)
            original = first["original"]
            raise StepError(
                f"{first['agent']}: {first['message']}\n{first['detail']}".rstrip(),
                code=first["code"],
                where=f"{original['topic']}/{original['partition']}/{original['offset']} key={first['entity']}",
                hint="the event became a dead letter; TopologyDriver(…, strict=False) goes on",
            )

    def _answer(self, call: Call) -> Answer:
        invocation: Invocation = call.arguments
        given = self._answers.get(call.tool)
        if given:
            result = given.popleft()
            return Answer(None, result) if isinstance(result, BaseException) else Answer(result, None)
        if invocation.tool.effect == "pure":
            return asyncio.run(_ran(call))
        raise ToolError(
            f"{call.tool}({', '.join(f'{k}={v!r}' for k, v in invocation.arguments().items())}) has no answer",
            hint=f"tools don't run in tests: driver.answer({call.tool!r}, …)",
            fault="user",
        )

    def _topic(self, name: str) -> Topic:
        found = self.topology.topics.get(name)
        if found is None:
            known = ", ".join(self.topology.topics)
            raise UndeclaredError(f"the topology has no topic {name!r}; it has: {known}", where=self.topology.file)
        return found

    def _table(self, name: str) -> Table:
        found = self.topology.tables.get(name)
        if found is None:
            known = ", ".join(self.topology.tables) or "none"
            raise UndeclaredError(f"the topology has no table {name!r}; it has: {known}", where=self.topology.file)
        return found

    def _carrying(self, full_name: str) -> list[str]:
        return [one.name for one in self.topology.topics.values() if self._full_name(one.schema) == full_name]

    def _topic_of(self, full_name: str) -> str:
        carrying = self._carrying(full_name)
        if len(carrying) != 1:
            seen = f"topics {' and '.join(carrying)} carry" if carrying else "no topic carries"
            hint = "say which: topic=…" if carrying else None
            raise UndeclaredError(f"{seen} {full_name}", where=self.topology.file, hint=hint)
        return carrying[0]

    def _table_of(self, full_name: str, *, reference: bool | None = None) -> str:
        holding = [
            one.name
            for one in self.topology.tables.values()
            if self._full_name(one.schema) == full_name and reference in (None, one.reference)
        ]
        if len(holding) != 1:
            seen = f"tables {' and '.join(holding)} hold" if holding else "no table holds"
            hint = "say which: table=…" if holding else None
            raise UndeclaredError(f"{seen} rows of {full_name}", where=self.topology.file, hint=hint)
        return holding[0]

    def _full_name(self, schema: str) -> str:
        return self.schemas.by_name(schema).full_name

    def _encoder(self, topic: Topic) -> tuple[Encoder, tuple[Header, ...]]:
        found = self._encoders.get(topic.name)
        if found is None:
            schema: Schema = self.schemas.by_name(topic.schema)
            encoder = Encoder(self.registry.register(f"{topic.name}-value", schema), schema)
            found = self._encoders[topic.name] = (encoder, constant_headers(self._identity, schema.full_name))
        return found


async def _ran(call: Call) -> Answer:
    """The answer of a tool that runs for real; what it raises is the handler's to see, as in a worker."""
    task = asyncio.ensure_future(run_call(call))
    await asyncio.wait({task}, timeout=call.timeout_s)
    if not task.done():
        task.cancel()
        return Answer(None, TimeoutError(f"{call.tool} took longer than {call.timeout_s:g} s"))
    if task.cancelled():
        return Answer(None, TimeoutError(f"{call.tool} was cancelled"))
    error = task.exception()
    return Answer(task.result(), None) if error is None else Answer(None, error)


def entity_of(key: object) -> str:
    """Text of a key given as a test writes it."""
    parts: Sequence[object] = key if isinstance(key, tuple | list) else (key,)
    return encode_key(parts).decode()


def _name_of(record: Record) -> str:
    if not isinstance(record, Record):
        raise StepError(
            f"expected an event or a row, saw {type(record).__name__}", code="CH0204", hint="use a class from `schemas`"
        )
    return record.__avro_name__


def load_definition(agent: Agent, project: Project) -> AgentDefinition:
    """The definition of an agent, from the module that its topology names; that module's ``app``.

    Raises:
        HostError: CH0804, there is no such module, or no app of this agent in it.
    """
    root = str(project.root)
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        module = importlib.import_module(agent.app)
    except ModuleNotFoundError as error:
        raise HostError(
            f"agent {agent.name}: {error}", where=str(agent.position), hint="`app:` is a module from the project root"
        ) from error
    app = getattr(module, "app", None)
    definition = getattr(app, "definition", None)
    if not isinstance(definition, AgentDefinition) or definition.name != agent.name:
        raise HostError(
            f"{agent.app} has no `app` of agent {agent.name}",
            where=str(agent.position),
            hint=f'write `app = choreo.App(…, agent="{agent.name}")` in it',
            fault="user",
        )
    return definition


def _project(project: Project | None) -> Project:
    assert project is not None, "a topology from a file belongs to a project"
    return project
