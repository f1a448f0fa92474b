"""Decision records: what one step saw and did, so that it explains itself later (promise 7).

Written in the step's own transaction, whatever the sampling of traces. ``audit: full`` keeps encoded rows and answers
of tools, ``brief`` only says that there were some, ``off`` writes nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import UUID

from choreo.agent.bindings import Bindings
from choreo.agent.context import Context, MadeCall, moment
from choreo.agent.failures import bounded
from choreo.agent.record import Record
from choreo.kernel.envelope import carried_headers, constant_headers, outgoing_headers
from choreo.kernel.validate import record_bytes
from choreo.kernel.values import Failure, Outcome, OutRecord, StateView, TopicFacts, Trigger
from choreo.topology import names

DecisionOutcome = Literal["done", "dead_letter", "parked", "duplicate"]

JSON_CHARS_MAX: Final = 65_536
"""Longest argument list or answer of a call that a decision keeps; a larger one is cut and marked as cut."""
_CUT_CHARS: Final = 1_000
_TRACEPARENT: Final = 4  # position in carried_headers


class DecisionWriter:
    """Makes the decision records of one agent."""

    def __init__(self, bindings: Bindings, facts: TopicFacts) -> None:
        self._bindings = bindings
        self._encoder = bindings.decision
        self._topic = names.decisions(bindings.topology.name)
        self._bytes_max = facts.message_bytes_max
        self._constants = constant_headers(bindings.identity, self._encoder.schema.full_name)
        self._audit = bindings.agent.audit

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
        """The decision of one step, or None with ``audit: off``.

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
        record = self._record(outcome, trigger, view, now_ms, ctx, changes, failure, full=self._audit == "full")
        if record_bytes(record.key, record.value, record.headers) > self._bytes_max:
            record = self._record(outcome, trigger, view, now_ms, ctx, changes, failure, full=False)
        if record_bytes(record.key, record.value, record.headers) > self._bytes_max:
            record = self._record(outcome, trigger, view, now_ms, None, None, failure, full=False)
        return record

    def _record(
        self,
        outcome: DecisionOutcome,
        trigger: Trigger,
        view: StateView,
        now_ms: int,
        ctx: Context | None,
        changes: Outcome | None,
        failure: Failure | None,
        *,
        full: bool,
    ) -> OutRecord:
        bindings = self._bindings
        identity = bindings.identity
        envelope, delivery, timer = trigger.envelope, trigger.delivery, trigger.timer
        carried = carried_headers(identity, envelope) if ctx is None else ctx._carry()
        known = delivery is None or knows_entity(trigger)
        sequence = view.sequence(trigger.entity) + 1 if known else 0
        decision_id = identity.decision_id(envelope.event_id, sequence)
        value = {
            "id": decision_id,
            "topology": identity.topology,
            "agent": identity.agent,
            "version": bindings.agent.version,
            "entity": trigger.entity,
            "sequence": sequence,
            "kind": "event" if timer is None else "timer",
            "outcome": outcome,
            "at": moment(now_ms),
            "event_time": moment(envelope.time_ms),
            "event_id": envelope.event_id,
            "event_type": envelope.type or _type_of(bindings, trigger),
            "topic": None if delivery is None else delivery.topic,
            "partition": None if delivery is None else delivery.partition,
            "offset": None if delivery is None else delivery.offset,
            "timer": None if timer is None else timer.name,
            "correlation_id": envelope.correlation_id,
            "causation_id": envelope.causation_id,
            "hop": envelope.hop + 1,
            "traceparent": carried[_TRACEPARENT][1].decode(),
            "rows": [] if ctx is None or changes is None else _rows(ctx, changes, full),
            "emits": [] if ctx is None or changes is None else _emits(ctx),
            "timers_set": [] if changes is None else [{"name": t.name, "at": moment(t.at_ms)} for t in changes.timers],
            "timers_cancelled": [] if changes is None else changes.cancels,
            "calls": [] if ctx is None else _calls(ctx._calls, now_ms, full),
            "references": [] if ctx is None else _references(ctx),
            "sources": [] if ctx is None else _sources(ctx, view),
            "code": None if failure is None else failure.code,
            "message": None if failure is None else bounded(failure.message),
        }
        key = trigger.entity.encode()
        headers = outgoing_headers(self._constants, carried, decision_id, key)
        return OutRecord(self._topic, None, key, self._encoder.encode(value), headers)


def knows_entity(trigger: Trigger) -> bool:
    """Whether the message key could be read."""
    return trigger.delivery is None or trigger.delivery.key == trigger.entity.encode()


def _type_of(bindings: Bindings, trigger: Trigger) -> str:
    use = None if trigger.delivery is None else bindings.inputs.get(trigger.delivery.topic)
    return "" if use is None else use.event.__avro_name__


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
    return [
        {
            "topic": one.record.topic,
            "event_id": one.event_id,
            "type": one.type_name,
            "key": (one.record.key or b"").decode(),
            "size": len(one.record.value or b""),
        }
        for one in ctx._emits
    ]


def _calls(calls: Sequence[MadeCall], now_ms: int, full: bool) -> list[dict[str, object]]:
    return [
        {
            "number": number,
            "tool": made.call.tool,
            "arguments": as_json(made.call.arguments.arguments()),
            "answer": as_json(made.answer.value) if full and made.answer.error is None else None,
            "error": None if made.answer.error is None else bounded(str(made.answer.error)),
            "started_at": moment(made.answer.started_at_ms or now_ms),
            "duration_ms": made.answer.duration_ms,
        }
        for number, made in enumerate(calls, 1)
    ]


def _references(ctx: Context) -> list[dict[str, object]]:
    return [{"table": table, "key": key, "offset": seen[0]} for (table, key), seen in ctx._looked_up.items()]


def _sources(ctx: Context, view: StateView) -> list[dict[str, object]]:
    sources: list[dict[str, object]] = []
    for name, slot in ctx._rows.items():
        if slot.before is not None:
            event_id = view.provenance(name, ctx.key)
            if event_id:
                sources.append({"table": name, "event_id": event_id})
    return sources


def as_json(value: object) -> str:
    """A value as compact JSON text, for people and for replay; what JSON doesn't have becomes text."""
    text = json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"), skipkeys=True)
    if len(text) > JSON_CHARS_MAX:
        text = json.dumps({"cut": text[:_CUT_CHARS], "chars": len(text)}, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()


def _plain(value: object) -> Any:
    match value:
        case Record():
            return value.model_dump(mode="json")
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case UUID() | Decimal():
            return str(value)
        case set() | frozenset():
            return sorted(value, key=repr)
        case bytes():
            return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return repr(value)[:_CUT_CHARS]
