"""Decision records: what one step saw and did, so that it explains itself later (promise 7).

Written in the step's own transaction, whatever the sampling of traces. ``audit: full`` keeps encoded rows and answers
of tools, ``brief`` only says that there were some, ``off`` writes nothing.
"""

from __future__ import annotations

from typing import Final, Literal

from choreo.agent.bindings import Bindings
from choreo.agent.context import Context
from choreo.agent.decision_bytes import (
    FIELDS,
    KINDS,
    NO_LISTS,
    NULL,
    OUTCOMES,
    DecisionLists,
    array_bytes,
    bytes_bytes,
    enum_bytes,
    long_bytes,
    optional_bytes,
    optional_long,
    optional_text,
    text_bytes,
    time_bytes,
)
from choreo.agent.failures import bounded
from choreo.errors import EngineError
from choreo.kernel.envelope import (
    BAGGAGE_BYTES_MAX,
    ID_BYTES_MAX,
    TRACESTATE_BYTES_MAX,
    carried_headers,
    constant_headers,
    outgoing_headers,
)
from choreo.kernel.validate import record_bytes
from choreo.kernel.values import Failure, Outcome, OutRecord, StateView, TopicFacts, Trigger
from choreo.topology import names

DecisionOutcome = Literal["done", "dead_letter", "parked", "duplicate"]

HEADERS_BYTES_MAX: Final = BAGGAGE_BYTES_MAX + TRACESTATE_BYTES_MAX + 4 * ID_BYTES_MAX + 2_048
"""More than the headers of a decision can have, its key aside."""
_TRACEPARENT: Final = 4  # position in carried_headers
_KINDS: Final = enum_bytes(KINDS)
_OUTCOMES: Final = enum_bytes(OUTCOMES)


class DecisionWriter:
    """Makes the decision records of one agent.

    Args:
        bindings: the agent.
        facts: what the cluster says about the topology's decisions topic.

    Raises:
        EngineError: CH0309, the schema has other fields than this module writes.
    """

    def __init__(self, bindings: Bindings, facts: TopicFacts) -> None:
        schema, identity = bindings.decision.schema, bindings.identity
        if [one.name for one in schema.root.fields] != FIELDS:
            raise EngineError(f"{schema.full_name} has other fields than decision_bytes writes")
        self._bindings = bindings
        self._identity = identity
        self._topic = names.decisions(bindings.topology.name)
        self._bytes_max = facts.message_bytes_max
        self._constants = constant_headers(identity, schema.full_name)
        self._audit = bindings.agent.audit
        self._prefix = bytes([0]) + bindings.decision.schema_id.to_bytes(4, "big")
        self._agent = text_bytes(identity.topology) + text_bytes(identity.agent) + long_bytes(bindings.agent.version)
        self._topics = {name: optional_text(name) for name in bindings.inputs}
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
        lists = NO_LISTS if ctx is None else _lists(ctx, view, changes, full=self._audit == "full")
        record = self._record(outcome, trigger, view, now_ms, ctx, lists, failure)
        if len(record.value or b"") + len(record.key or b"") + HEADERS_BYTES_MAX <= self._bytes_max:
            return record
        if ctx is not None and record_bytes(record.key, record.value, record.headers) > self._bytes_max:
            lists = _lists(ctx, view, changes, full=False)
            record = self._record(outcome, trigger, view, now_ms, ctx, lists, failure)
        if record_bytes(record.key, record.value, record.headers) > self._bytes_max:
            record = self._record(outcome, trigger, view, now_ms, ctx, NO_LISTS, failure)
        return record

    def _record(
        self,
        outcome: DecisionOutcome,
        trigger: Trigger,
        view: StateView,
        now_ms: int,
        ctx: Context | None,
        lists: DecisionLists,
        failure: Failure | None,
    ) -> OutRecord:
        identity = self._identity
        envelope, delivery, timer = trigger.envelope, trigger.delivery, trigger.timer
        carried = carried_headers(identity, envelope) if ctx is None else ctx._carry()
        key = trigger.entity.encode()
        sequence = view.sequence(trigger.entity) + 1 if delivery is None or delivery.key == key else 0
        decision_id = identity.decision_id(envelope.event_id, sequence)
        if delivery is None:
            event_type = ""
            place = NULL + NULL + NULL
        else:
            event_type = envelope.type or self._types.get(delivery.topic, "")
            topic = self._topics.get(delivery.topic) or optional_text(delivery.topic)
            place = topic + optional_long(delivery.partition) + optional_long(delivery.offset)
        value = b"".join(
            (
                self._prefix,
                text_bytes(decision_id),
                self._agent,
                bytes_bytes(key),
                long_bytes(sequence),
                _KINDS["event" if timer is None else "timer"],
                _OUTCOMES[outcome],
                time_bytes(now_ms),
                time_bytes(envelope.time_ms),
                text_bytes(envelope.event_id),
                text_bytes(event_type),
                place,
                NULL if timer is None else optional_text(timer.name),
                text_bytes(envelope.correlation_id),
                text_bytes(envelope.causation_id),
                long_bytes(envelope.hop + 1),
                bytes_bytes(carried[_TRACEPARENT][1]),
                *lists,
                NULL + NULL
                if failure is None
                else optional_text(failure.code) + optional_text(bounded(failure.message)),
            )
        )
        headers = outgoing_headers(self._constants, carried, decision_id, key)
        return OutRecord(self._topic, None, key, value, headers)


def knows_entity(trigger: Trigger) -> bool:
    """Whether the message key could be read."""
    return trigger.delivery is None or trigger.delivery.key == trigger.entity.encode()


def _lists(ctx: Context, view: StateView, changes: Outcome | None, *, full: bool) -> DecisionLists:
    return DecisionLists(
        _rows(ctx, changes, full) if changes is not None and changes.rows else NULL,
        _emits(ctx) if changes is not None and ctx._emits else NULL,
        array_bytes(text_bytes(one.name) + long_bytes(one.at_ms) for one in changes.timers)
        if changes is not None and changes.timers
        else NULL,
        array_bytes(map(text_bytes, changes.cancels)) if changes is not None and changes.cancels else NULL,
        _calls(ctx, full) if ctx._calls else NULL,
        array_bytes(
            text_bytes(table) + text_bytes(key) + long_bytes(seen[0]) for (table, key), seen in ctx._looked_up.items()
        )
        if ctx._looked_up
        else NULL,
        _sources(ctx, view) if ctx._rows else NULL,
    )


def _rows(ctx: Context, changes: Outcome, full: bool) -> bytes:
    items = []
    for write in changes.rows:
        slot = ctx._rows[write.table]
        item = text_bytes(write.table) + long_bytes(slot.use.encoder.schema_id)
        items.append(item + (optional_bytes(slot.before) + optional_bytes(write.value) if full else NULL + NULL))
    return array_bytes(items)


def _emits(ctx: Context) -> bytes:
    items = []
    for one in ctx._emits:
        record = one.record
        items.append(
            text_bytes(record.topic)
            + text_bytes(one.event_id)
            + text_bytes(one.type_name)
            + bytes_bytes(record.key or b"")
            + long_bytes(len(record.value or b""))
        )
    return array_bytes(items)


def _calls(ctx: Context, full: bool) -> bytes:
    items = []
    for number, made in enumerate(ctx._calls, 1):
        error = made.answer.error
        items.append(
            long_bytes(number)
            + text_bytes(made.call.tool)
            + text_bytes(made.arguments)
            + optional_text(made.result if full and error is None else None)
            + optional_text(None if error is None else bounded(str(error)))
            + long_bytes(made.answer.started_at_ms or ctx._now_ms)
            + long_bytes(made.answer.duration_ms)
        )
    return array_bytes(items)


def _sources(ctx: Context, view: StateView) -> bytes:
    items = []
    for name, slot in ctx._rows.items():
        if slot.before is not None:
            event_id = view.provenance(name, ctx.key)
            if event_id:
                items.append(text_bytes(name) + text_bytes(event_id))
    return array_bytes(items)
