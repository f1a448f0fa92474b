"""Decision records: what one step saw and did, so that it explains itself later (promise 7).

Written in the step's own transaction, whatever the sampling of traces. ``audit: full`` keeps encoded rows and answers
of tools, ``brief`` only says that there were some, ``off`` writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from choreo.agent.bindings import Bindings
from choreo.agent.context import Context, moment
from choreo.agent.failures import bounded
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
from choreo.kernel.values import Failure, Outcome, OutRecord, StateView, TopicFacts, Trigger
from choreo.topology import names

DecisionOutcome = Literal["done", "dead_letter", "parked", "duplicate"]

HEADERS_BYTES_MAX: Final = BAGGAGE_BYTES_MAX + TRACESTATE_BYTES_MAX + 4 * ID_BYTES_MAX + 2_048
"""More than the headers of a decision can have, its key aside."""
_TRACEPARENT: Final = 4  # position in carried_headers
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
        identity = self._bindings.identity
        envelope, delivery, timer = trigger.envelope, trigger.delivery, trigger.timer
        carried = carried_headers(identity, envelope) if ctx is None else ctx._carry()
        key = trigger.entity.encode()
        sequence = view.sequence(trigger.entity) + 1 if delivery is None or delivery.key == key else 0
        decision_id = identity.decision_id(envelope.event_id, sequence)
        value = {
            "id": decision_id,
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
        headers = outgoing_headers(self._constants, carried, decision_id, key)
        return OutRecord(self._topic, None, key, self._encoder.encode(value), headers)


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
