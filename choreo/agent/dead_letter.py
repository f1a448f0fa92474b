"""Dead letters: an input that could not be handled, with its original bytes and the reason. Nothing is lost."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from choreo.agent.bindings import Bindings
from choreo.agent.context import moment
from choreo.agent.decision import knows_entity
from choreo.agent.failures import bounded
from choreo.kernel.envelope import carried_headers, constant_headers, outgoing_headers
from choreo.kernel.validate import record_bytes
from choreo.kernel.values import Delivery, Failure, OutRecord, TopicFacts, Trigger
from choreo.topology import names

DETAIL_CHARS_MAX: Final = 8_000
"""Longest traceback text kept: some twenty frames, for developers."""
TIMER_HEADER: Final = "choreo_timer"
"""Header of the original of a timer that failed: the timer's name. Such an original has offset -1."""


class DeadLetterWriter:
    """Makes the dead letters of one agent."""

    def __init__(self, bindings: Bindings, facts: TopicFacts) -> None:
        self._bindings = bindings
        self._encoder = bindings.dead_letter
        self._topic = names.dead_letters(bindings.topology.name, bindings.agent.name)
        self._timers = names.timers(bindings.topology.name, bindings.agent.name)
        self._facts = facts
        self._constants = constant_headers(bindings.identity, self._encoder.schema.full_name)

    def write(self, trigger: Trigger, failure: Failure, sequence: int, now_ms: int) -> OutRecord:
        """The dead letter of a trigger; a stub with the digest where the original is too large for the topic."""
        record = self._record(trigger, failure, sequence, now_ms, stub=False)
        if record_bytes(record.key, record.value, record.headers) > self._facts.message_bytes_max:
            record = self._record(trigger, failure, sequence, now_ms, stub=True)
        return record

    def _record(self, trigger: Trigger, failure: Failure, sequence: int, now_ms: int, *, stub: bool) -> OutRecord:
        bindings = self._bindings
        delivery, envelope = trigger.delivery, trigger.envelope
        original = self._timer_as_delivery(trigger) if delivery is None else delivery
        value = {
            "entity": trigger.entity if knows_entity(trigger) else None,
            "event_id": envelope.event_id,
            "code": failure.code,
            "message": bounded(failure.message),
            "error_type": bounded(failure.error_type),
            "detail": bounded(failure.detail, DETAIL_CHARS_MAX),
            "attempts": trigger.attempt + 1,
            "agent": bindings.agent.name,
            "version": bindings.agent.version,
            "failed_at": moment(now_ms),
            "stub": stub,
            "digest": sha256(original.value or b"").hexdigest() if stub else None,
            "original": {
                "topic": original.topic,
                "partition": original.partition,
                "offset": original.offset,
                "timestamp_ms": original.timestamp_ms,
                "key": original.key,
                "value": None if stub else original.value,
                "headers": []
                if stub
                else [{"name": bounded(name), "value": content or b""} for name, content in original.headers],
            },
        }
        dead_letter_id = bindings.identity.dead_letter_id(envelope.event_id, sequence)
        headers = outgoing_headers(
            self._constants, carried_headers(bindings.identity, envelope), dead_letter_id, original.key or b""
        )
        # the topic has as many partitions as the input: a dead letter lies where its original lay
        partition = (
            None if delivery is None or not 0 <= delivery.partition < self._facts.partitions else delivery.partition
        )
        return OutRecord(self._topic, partition, original.key, self._encoder.encode(value), headers)

    def _timer_as_delivery(self, trigger: Trigger) -> Delivery:
        timer = trigger.timer
        assert timer is not None, "a trigger without a delivery is a timer"
        headers = ((TIMER_HEADER, timer.name.encode()),)
        return Delivery(self._timers, -1, -1, timer.at_ms, timer.entity.encode(), None, headers)
