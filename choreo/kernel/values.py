"""The values that the engine, the step and the shells exchange. Bytes in, bytes out; nothing here does anything.

``NamedTuple`` where one is made per event (cheap to build), dataclass where clarity matters more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]


class Delivery(NamedTuple):
    """One input record as Kafka delivered it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int  # the record's Kafka timestamp
    key: bytes | None
    value: bytes | None
    headers: Headers


class OutRecord(NamedTuple):
    """One record to be produced. ``partition`` None: murmur2 over the key decides."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers


class Envelope(NamedTuple):
    """CloudEvents and W3C headers of one event, parsed once."""

    event_id: str  # 32 hex digits for events made by choreo; any string from outside
    type: str  # Avro full name, or ""
    time_ms: int  # event time: ce_time, else the record's Kafka timestamp
    correlation_id: str
    causation_id: str
    hop: int
    traceparent: str  # "" if none came
    tracestate: str
    baggage: str


class TimerRow(NamedTuple):
    """A timer that is set. One per (entity, name); setting it again replaces it."""

    entity: str
    name: str
    at_ms: int  # event time
    timer_id: str  # derived from the event that set it: event id of the firing
    origin: Envelope  # envelope of the event that set it: correlation, trace, hop are taken up when it fires


class EntityState(NamedTuple):
    """What the engine itself remembers of one entity (journal row)."""

    sequence: int  # decisions so far
    seen: tuple[tuple[str, int], ...]  # dedupe: (event id, Kafka timestamp ms), oldest first


class ParkedRow(NamedTuple):
    """An event that waits for a person, with its original bytes."""

    entity: str
    number: int  # order within the entity
    code: str
    reason: str
    parked_at_ms: int
    event_id: str
    delivery: Delivery


TriggerKind = Literal["event", "timer", "settlement"]


@dataclass(slots=True)
class Trigger:
    """What starts a step: an event, or a timer that fires."""

    kind: TriggerKind
    entity: str  # UTF-8 text of the message key
    delivery: Delivery | None  # None for a timer
    envelope: Envelope  # for a timer: event_id = timer_id, time_ms = at, causation = the event that set it
    timer: TimerRow | None = None
    attempt: int = 0
    # Set by the engine, of no interest to runners:
    source: tuple[str, int] | None = None  # (input topic, offset) that is finished with this step
    parked_number: int = -1  # the parked row this trigger came from
    refused: Failure | None = None  # the input cannot be handled: why
    settlement: Settlement | None = None


class RowWrite(NamedTuple):
    """One changed row of the step's own entity. ``value`` None deletes it."""

    table: str
    value: bytes | None
    headers: Headers  # provenance: which event last shaped it


class Call(NamedTuple):
    """A request to run a tool. The engine passes it to the shell and the answer back; it never looks inside."""

    tool: str
    arguments: Any  # the bound arguments, as the tool's runner takes them
    timeout_s: float


class Answer(NamedTuple):
    """What became of a call: exactly one of value and error is meant, ``error`` None says value."""

    value: Any
    error: BaseException | None
    started_at_ms: int = 0  # wall time, for the decision record; 0: not measured
    duration_ms: int = 0


@dataclass(slots=True)
class Outcome:
    """All that one finished step changes. Nothing of it has left the process yet."""

    rows: list[RowWrite] = field(default_factory=list)
    emits: list[OutRecord] = field(default_factory=list)
    timers: list[TimerRow] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)  # timer names of this entity
    decision: OutRecord | None = None
    dead_letter: OutRecord | None = None
    parked: ParkedRow | None = None


class Failure(NamedTuple):
    """A step that raised, already classified (the one place that catches everything is ``runtime/classify.py``)."""

    code: str
    message: str
    error_type: str
    retry: bool
    park: bool  # ctx.park, or a later issue's NonDeterminismError
    detail: str  # traceback text for logs and the dead letter; never secrets


class Waiting(NamedTuple):
    """The step waits for this call's answer."""

    call: Call


StepResult = Outcome | Waiting | Failure


class StateView(Protocol):
    """What a step may read: rows of its own entity (uncommitted ones of earlier steps included), reference rows."""

    def row(self, table: str, entity: str) -> bytes | None: ...

    def provenance(self, table: str, entity: str) -> str | None:
        """Id of the event whose step last wrote the row."""
        ...

    def reference(self, table: str, key: str) -> tuple[bytes, int] | None:
        """Encoded row and the offset it was read at."""
        ...

    def sequence(self, entity: str) -> int:
        """Number of decisions of this entity before this step."""
        ...


class Step(Protocol):
    """A started step. ``advance(None)`` starts it; afterwards ``advance(answer)`` after each ``Waiting``."""

    def advance(self, answer: Answer | None, /) -> StepResult: ...

    def abandon(self) -> None:
        """The step's partition was lost: close the handler, forget everything."""
        ...


class Runner(Protocol):
    """The agent's side of the engine: turns triggers into steps and failures into records."""

    def start(self, trigger: Trigger, view: StateView, now_ms: int, /) -> Step: ...

    def dead_letter(self, trigger: Trigger, failure: Failure, view: StateView, now_ms: int, /) -> Outcome:
        """Dead letter with the original bytes, and its decision record. Never raises for any trigger."""
        ...

    def duplicate(self, trigger: Trigger, view: StateView, now_ms: int, /) -> Outcome:
        """An event seen before within the topic's dedupe window: nothing but its decision record."""
        ...

    def park(self, trigger: Trigger, failure: Failure, number: int, view: StateView, now_ms: int, /) -> Outcome:
        """Parked row number ``number`` of the entity, and its decision record."""
        ...


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the cluster says about a topic the agent writes."""

    partitions: int
    message_bytes_max: int


@dataclass(frozen=True, slots=True)
class InputTopic:
    """One topic the agent reads."""

    name: str
    dedupe_ms: int | None = None
    cluster_id: str = ""  # with topic_id: identity of a root event that has no ce_id
    topic_id: str = ""
    inbox: bool = False  # the agent's own `settled` topic: values are Settlement records


class Checkpoint(NamedTuple):
    """Progress of one input partition, written to the journal in every burst that touches it."""

    topic: str
    partition: int
    low: int  # everything below is finished
    done: tuple[tuple[int, int], ...]  # finished offsets above low, as ranges [start, end)
    event_time_ms: int  # highest event time of the partition number before its first unfinished input, -1 if none
    seen_at_ms: int  # wall time when it arrived
    topic_id: str = ""  # the topic's id on the cluster: offsets of another topic of that name mean nothing


class Settlement(NamedTuple):
    """A record of the agent's inbox."""

    kind: Literal["retry", "drop", "redrive"]
    entity: str
    number: int  # parked number for drop; -1: all
    by: str
    reason: str
    delivery: Delivery | None  # redrive: the original input
