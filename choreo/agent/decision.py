"""Decision records: what one step saw and did, so that it explains itself later.

Written in the step's own transaction, whatever the sampling of traces. ``audit: full`` keeps encoded rows and answers
of tools, ``brief`` only says that there were some, ``off`` writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from choreo.agent.bindings import Bindings
from choreo.agent.context import Context, moment
from choreo.agent.failures import bounded
from choreo.codec.template import Kind, Path, Template, repeated_bytes, text_bytes, whole_bytes
from choreo.errors import EngineError, SchemaError
from choreo.kernel.envelope import (
    BAGGAGE_BYTES_MAX,
    ID_BYTES_MAX,
    TRACESTATE_BYTES_MAX,
    carried_headers,
    constant_headers,
    id_and_type,
    outgoing_headers,
)
from choreo.kernel.validate import record_bytes
from choreo.kernel.values import Delivery, Failure, Outcome, OutRecord, StateView, TopicFacts, Trigger
from choreo.topology import names

DecisionOutcome = Literal["done", "dead_letter", "parked", "duplicate"]

HEADERS_BYTES_MAX: Final = BAGGAGE_BYTES_MAX + TRACESTATE_BYTES_MAX + 4 * ID_BYTES_MAX + 2_048
"""More than the headers of a decision can have, its key aside."""
_CORRELATION, _CAUSATION, _TRACEPARENT = 1, 2, 4  # positions in carried_headers
TEMPLATES_MAX: Final = 256
"""Shapes of usual decisions that are remembered: which rows change and which events are emitted, in which order. A
handler has a few; one with more has its other decisions written the long way."""
SHAPE_MAX: Final = 64
"""Longest shape: a step that emits more than some thirty events has its decision written the long way."""
Shape = tuple[object, ...]
_UNKNOWN: Final[Any] = object()
_VARYING: Final = {
    "id": Kind.TEXT,
    "entity": Kind.TEXT,
    "sequence": Kind.LONG,
    "at": Kind.MOMENT,
    "event_time": Kind.MOMENT,
    "event_id": Kind.TEXT,
    "event_type": Kind.TEXT,
    "partition": Kind.INT,
    "offset": Kind.LONG,
    "correlation_id": Kind.TEXT,
    "causation_id": Kind.TEXT,
    "hop": Kind.INT,
    "traceparent": Kind.TEXT,
}
"""Fields that vary from decision to decision of one shape, in the order of the schema."""
Lists = Mapping[str, list[dict[str, object]] | list[str]]
_NO_LISTS: Final[Lists] = {
    "rows": [],
    "emits": [],
    "timers_set": [],
    "timers_cancelled": [],
    "calls": [],
    "references": [],
    "sources": [],
}


class DecisionWriter:
    """Makes the decision records of one agent.

    Args:
        bindings: the agent.
        facts: what the cluster says about the topology's decisions topic; None where it has none (``audit: off``).
    """

    def __init__(self, bindings: Bindings, facts: TopicFacts | None) -> None:
        self._bindings = bindings
        self._encoder = bindings.decision
        self._topic = names.decisions(bindings.topology.name)
        if facts is None and bindings.agent.audit != "off":
            raise EngineError(f"nothing is known about the topic {names.decisions(bindings.topology.name)}")
        self._bytes_max = 0 if facts is None else facts.message_bytes_max
        self._constants = constant_headers(bindings.identity, self._encoder.schema.full_name)
        self._audit = bindings.agent.audit
        self._identity = bindings.identity
        self._templates: dict[Shape, Template] = {}
        self._types = {name: use.event.__avro_name__ for name, use in bindings.inputs.items()}

    def write(
        self,
        outcome: DecisionOutcome,
        trigger: Trigger,
        view: StateView,
        now_ms: int,
        *,
        ctx: Context | None = None,
        changes: Outcome | None = None,
        failure: Failure | None = None,
    ) -> OutRecord | None:
        """The decision of one step, or None with ``audit: off``. Never raises.

        Args:
            outcome: how the step ended.
            trigger: what started it.
            view: its entity's state before the step.
            now_ms: wall time of the step.
            ctx: what the handler saw and did, if one ran.
            changes: what the step changes; nothing if it failed.
            failure: why it failed.
        """
        if self._audit == "off":
            return None
        if ctx is not None:
            if ctx._dealings is None and changes is not None and trigger.delivery is not None:
                usual = self._usual(trigger, trigger.delivery, view, now_ms, ctx, changes)
                if usual is not None:
                    return usual
            for full in (True, False) if self._audit == "full" else (False,):
                lists = _lists(ctx, view, changes, full=full)
                try:
                    record = self._record(outcome, trigger, view, now_ms, ctx, lists, failure)
                except SchemaError:  # CH0204: more than choreo reads (codec.limits)
                    continue
                if self._fits(record):
                    return record
        return self._record(outcome, trigger, view, now_ms, ctx, _NO_LISTS, failure)

    def _fits(self, record: OutRecord) -> bool:
        if len(record.value or b"") + len(record.key or b"") + HEADERS_BYTES_MAX <= self._bytes_max:
            return True
        return record_bytes(record.key, record.value, record.headers) <= self._bytes_max

    def _usual(
        self, trigger: Trigger, delivery: Delivery, view: StateView, now_ms: int, ctx: Context, changes: Outcome
    ) -> OutRecord | None:
        """The decision of a step that read an event and did nothing but change rows and emit, as nearly all do.

        The records of such steps differ in ids, times and numbers only, so they are filled into a template. None: the
        long way has to be taken, because the record is too large or too unusual.
        """
        envelope, entity, full = trigger.envelope, trigger.entity, self._audit == "full"
        key = entity.encode()
        sequence = view.sequence(entity) + 1 if delivery.key == key else 0
        decision_id = self._identity.decision_id(envelope.event_id, sequence)
        carried = ctx._carried or ctx._carry()
        event_type = envelope.type or self._types.get(delivery.topic, "")
        places = [
            text_bytes(decision_id.encode()),
            text_bytes(key),
            repeated_bytes(sequence),
            repeated_bytes(now_ms),
            repeated_bytes(envelope.time_ms),
            text_bytes(carried[_CAUSATION][1]),
            text_bytes(event_type.encode()),
            repeated_bytes(delivery.partition),
            whole_bytes(delivery.offset),
            text_bytes(carried[_CORRELATION][1]),
            text_bytes(envelope.causation_id.encode()),
            repeated_bytes(envelope.hop + 1),
            text_bytes(carried[_TRACEPARENT][1]),
        ]
        shape: list[object] = [delivery.topic]
        for table, value, _ in changes.rows:
            shape.append(table)
            if full:
                before = ctx._rows[table].before
                shape += (before is None, value is None)
                places += [text_bytes(one) for one in (before, value) if one is not None]
        shape.append(None)
        for topic, _, emitted_key, value, headers in changes.emits:
            shape += (topic, headers[2])
            places += (text_bytes(headers[0][1]), text_bytes(emitted_key or b""), repeated_bytes(len(value or b"")))
        shape.append(None)
        for name, slot in ctx._rows.items():
            source = None if slot.before is None else view.provenance(name, entity)
            if source:
                shape.append(name)
                places.append(text_bytes(source.encode()))
        template = self._templates.get(tuple(shape), _UNKNOWN)
        if template is _UNKNOWN:
            template = self._new_template(tuple(shape), trigger, view, now_ms, ctx, changes)
        if template is None:
            return None
        value = template.fill(places)
        if len(value) > self._encoder.unchecked_bytes:
            return None
        headers = outgoing_headers(self._constants, carried, decision_id, key)
        record = OutRecord(self._topic, None, key, value, headers)
        return record if self._fits(record) else None

    def _new_template(
        self, shape: Shape, trigger: Trigger, view: StateView, now_ms: int, ctx: Context, changes: Outcome
    ) -> Template | None:
        """The template of records like that of this step; None if there is none, or there are too many."""
        if len(self._templates) >= TEMPLATES_MAX or len(shape) > SHAPE_MAX:
            return None
        value = self._value("done", trigger, view, now_ms, ctx, _lists(ctx, view, changes, full=self._audit == "full"))
        try:
            made = Template.made(self._encoder, value, _places(value))
        except SchemaError:
            made = None  # this one is too large
        if made is not None:
            self._templates[shape] = made
        return made

    def _record(
        self,
        outcome: DecisionOutcome,
        trigger: Trigger,
        view: StateView,
        now_ms: int,
        ctx: Context | None,
        lists: Lists,
        failure: Failure | None,
    ) -> OutRecord:
        value = self._value(outcome, trigger, view, now_ms, ctx, lists, failure)
        key = trigger.entity.encode()
        carried = carried_headers(self._identity, trigger.envelope) if ctx is None else ctx._carry()
        headers = outgoing_headers(self._constants, carried, value["id"], key)
        return OutRecord(self._topic, None, key, self._encoder.encode(value), headers)

    def _value(
        self,
        outcome: DecisionOutcome,
        trigger: Trigger,
        view: StateView,
        now_ms: int,
        ctx: Context | None,
        lists: Lists,
        failure: Failure | None = None,
    ) -> dict[str, Any]:
        identity = self._identity
        envelope, delivery, timer = trigger.envelope, trigger.delivery, trigger.timer
        carried = carried_headers(identity, envelope) if ctx is None else ctx._carry()
        key = trigger.entity.encode()
        sequence = view.sequence(trigger.entity) + 1 if delivery is None or delivery.key == key else 0
        return {
            "id": identity.decision_id(envelope.event_id, sequence),
            "topology": identity.topology,
            "agent": identity.agent,
            "version": self._bindings.agent.version,
            "entity": trigger.entity,
            "sequence": sequence,
            "kind": "event" if timer is None else "timer",
            "outcome": outcome,
            "at": moment(now_ms),
            "event_time": moment(envelope.time_ms),
            "event_id": envelope.event_id,
            "event_type": "" if delivery is None else envelope.type or self._types.get(delivery.topic, ""),
            "topic": None if delivery is None else delivery.topic,
            "partition": None if delivery is None else delivery.partition,
            "offset": None if delivery is None else delivery.offset,
            "timer": None if timer is None else timer.name,
            "correlation_id": envelope.correlation_id,
            "causation_id": envelope.causation_id,
            "hop": envelope.hop + 1,
            "traceparent": carried[_TRACEPARENT][1].decode(),
            **lists,
            "code": None if failure is None else failure.code,
            "message": None if failure is None else bounded(failure.message),
        }


def _places(value: dict[str, Any]) -> list[tuple[Path, Kind]]:
    """Where decisions of one shape differ, in the order of the schema."""
    places: list[tuple[Path, Kind]] = [((name,), kind) for name, kind in _VARYING.items()]
    for number, row in enumerate(value["rows"]):
        places += [(("rows", number, name), Kind.DATA) for name in ("before", "after") if row[name] is not None]
    for number in range(len(value["emits"])):
        places.append((("emits", number, "event_id"), Kind.TEXT))
        places.append((("emits", number, "key"), Kind.TEXT))
        places.append((("emits", number, "size"), Kind.INT))
    places += [(("sources", number, "event_id"), Kind.TEXT) for number in range(len(value["sources"]))]
    return places


def knows_entity(trigger: Trigger) -> bool:
    """Whether the message key could be read."""
    return trigger.delivery is None or trigger.delivery.key == trigger.entity.encode()


def _lists(ctx: Context, view: StateView, changes: Outcome | None, *, full: bool) -> Lists:
    return {
        "rows": [] if changes is None else _rows(ctx, changes, full),
        "emits": [] if changes is None else _emits(ctx),
        "timers_set": []
        if changes is None
        else [{"name": one.name, "at": moment(one.at_ms)} for one in changes.timers],
        "timers_cancelled": [] if changes is None else list(changes.cancels),
        "calls": _calls(ctx, full),
        "references": _references(ctx),
        "sources": _sources(ctx, view),
    }


def _rows(ctx: Context, changes: Outcome, full: bool) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for write in changes.rows:
        slot = ctx._rows[write.table]
        rows.append(
            {
                "table": write.table,
                "schema_id": slot.use.encoder.schema_id,
                "before": slot.before if full else None,
                "after": write.value if full else None,
            }
        )
    return rows


def _emits(ctx: Context) -> list[dict[str, object]]:
    emits: list[dict[str, object]] = []
    for one in ctx._emits:
        event_id, type_name = id_and_type(one.headers)
        emits.append(
            {
                "topic": one.topic,
                "event_id": event_id,
                "type": type_name,
                "key": (one.key or b"").decode(),
                "size": len(one.value or b""),
            }
        )
    return emits


def _references(ctx: Context) -> list[dict[str, object]]:
    dealings = ctx._dealings
    if dealings is None:
        return []
    return [
        {"table": table, "key": _writable(key), "offset": seen[0]} for (table, key), seen in dealings.looked_up.items()
    ]


def _calls(ctx: Context, full: bool) -> list[dict[str, object]]:
    calls: list[dict[str, object]] = []
    for number, made in enumerate(() if ctx._dealings is None else ctx._dealings.calls, 1):
        error = made.answer.error
        calls.append(
            {
                "number": number,
                "tool": made.call.tool,
                "arguments": made.arguments,
                "answer": made.result if full and error is None else None,
                "error": None if error is None else bounded(str(error)),
                "started_at": moment(made.answer.started_at_ms or ctx._now_ms),
                "duration_ms": made.answer.duration_ms,
            }
        )
    return calls


def _sources(ctx: Context, view: StateView) -> list[dict[str, object]]:
    sources: list[dict[str, object]] = []
    for name, slot in ctx._rows.items():
        if slot.before is not None:
            event_id = view.provenance(name, ctx.key)
            if event_id:
                sources.append({"table": name, "event_id": event_id})
    return sources


def _writable(text: str) -> str:
    """Text that a handler made up, as UTF-8 can write it."""
    return text.encode(errors="replace").decode()
