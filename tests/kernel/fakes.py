"""The agent's side of the engine for tests: a counter row and one output for each event; the event says what else.

A value is a list of words. ``call`` waits for a call, ``flaky`` fails once, ``tired`` always fails retryably,
``broken`` fails for good and ``park`` parks the event until ``Script.cured`` holds its id, ``big`` emits a record no
topic accepts, ``rejected`` one that only the broker refuses, ``timer`` and ``cancel`` are about the timer "alarm",
``forget`` deletes the row, ``plain`` writes none, ``many`` emits three records. Everything a check needs is in the
records: nothing has to be remembered beside the log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from choreo.kernel.values import (
    Answer,
    Call,
    Failure,
    Outcome,
    OutRecord,
    ParkedRow,
    RowWrite,
    StateView,
    StepResult,
    TimerRow,
    TopicFacts,
    Trigger,
    Waiting,
)
from choreo.topology import names

TOPOLOGY: Final = "sim"
AGENT: Final = "a"
TABLE: Final = "counts"
OUT: Final = "out"
DEAD: Final = names.dead_letters(TOPOLOGY, AGENT)
DECISIONS: Final = names.decisions(TOPOLOGY)
CHANGELOG: Final = names.changelog(TOPOLOGY, AGENT, TABLE)
ALARM: Final = "alarm"
BIG_BYTES: Final = 2_000
MORE: Final = 2
"""Further records of an event that says ``many``: all or none of them are seen."""
FACTS: Final = {
    OUT: TopicFacts(4, 1_500),
    DEAD: TopicFacts(4, 100_000),
    DECISIONS: TopicFacts(4, 100_000),
    CHANGELOG: TopicFacts(4, 1_500),
}
REJECTED: Final = b"rejected"
"""Value that stands for what only the broker refuses."""


def failure(code: str, *, retry: bool = False, park: bool = False) -> Failure:
    return Failure(code, f"as the event says: {code}", "Fake", retry, park, "")


def source_of(trigger: Trigger) -> list[Any] | None:
    delivery = trigger.delivery
    return None if delivery is None else [delivery.topic, delivery.partition, delivery.offset]


@dataclass
class Script:
    """What outlives workers: causes of failure that somebody has removed."""

    cured: set[str] = field(default_factory=set)
    timer_after_ms: int = 1_000


class FakeRunner:
    """A ``Runner`` without state of its own."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()

    def start(self, trigger: Trigger, view: StateView, now_ms: int, /) -> FakeStep:
        return FakeStep(self, trigger, view)

    def dead_letter(self, trigger: Trigger, why: Failure, view: StateView, now_ms: int, /) -> Outcome:
        value = json.dumps(
            {
                "source": source_of(trigger),
                "timer": None if trigger.timer is None else trigger.timer.timer_id,
                "entity": trigger.entity,
                "code": why.code,
                "message": why.message,
            }
        )
        record = OutRecord(DEAD, 0, trigger.entity.encode(), value.encode(), ())
        return Outcome(dead_letter=record, decision=self.decision("dead", trigger, view))

    def duplicate(self, trigger: Trigger, view: StateView, now_ms: int, /) -> Outcome:
        return Outcome(decision=self.decision("duplicate", trigger, view))

    def park(self, trigger: Trigger, why: Failure, number: int, view: StateView, now_ms: int, /) -> Outcome:
        assert trigger.delivery is not None
        row = ParkedRow(
            trigger.entity, number, why.code, why.message, now_ms, trigger.envelope.event_id, trigger.delivery
        )
        return Outcome(parked=row, decision=self.decision("parked", trigger, view))

    def decision(self, status: str, trigger: Trigger, view: StateView) -> OutRecord:
        value = json.dumps([status, trigger.entity, view.sequence(trigger.entity) + 1, source_of(trigger)])
        return OutRecord(DECISIONS, 0, trigger.entity.encode(), value.encode(), ())


class FakeStep:
    """Does what the words of its event say."""

    def __init__(self, runner: FakeRunner, trigger: Trigger, view: StateView) -> None:
        self._runner, self._trigger, self._view = runner, trigger, view
        delivery = trigger.delivery
        self._words = [] if delivery is None or delivery.value is None else delivery.value.decode().split()
        self._calls = self._words.count("call")
        self.abandoned = False

    def abandon(self) -> None:
        assert not self.abandoned, "abandoned twice"
        self.abandoned = True

    def advance(self, answer: Answer | None, /) -> StepResult:
        assert not self.abandoned, "an abandoned step was resumed"
        if self._calls:
            self._calls -= 1
            _, chain = count_and_chain(self._view.row(TABLE, self._trigger.entity))
            return Waiting(Call(f"tool {chain}", self._trigger.entity, 1.0))
        trigger, words = self._trigger, self._words
        cured = trigger.envelope.event_id in self._runner.script.cured
        if "flaky" in words and trigger.attempt == 0:
            return failure("CH9001", retry=True)
        if "tired" in words and not cured:
            return failure("CH9002", retry=True)
        if "broken" in words and not cured:
            return failure("CH9003")
        if "park" in words and not cured:
            return failure("CH9004", park=True)
        return self._outcome()

    def _outcome(self) -> Outcome:
        trigger, words, view = self._trigger, self._words, self._view
        entity, event_id = trigger.entity, trigger.envelope.event_id
        count, chain = count_and_chain(view.row(TABLE, entity))
        count, chain = count + 1, chained(chain, event_id)
        outcome = Outcome()
        value = None if "forget" in words else f"{count} {chain}".encode()
        if "plain" not in words:
            outcome.rows.append(RowWrite(TABLE, value, (("ce_causationid", event_id.encode()),)))
        if "timer" in words:
            at_ms = trigger.envelope.time_ms + self._runner.script.timer_after_ms
            outcome.timers.append(TimerRow(entity, ALARM, at_ms, chained("timer", event_id), trigger.envelope))
        if "cancel" in words:
            outcome.cancels.append(ALARM)
        told = {
            "entity": entity,
            "id": event_id,
            "source": source_of(trigger),
            "count": 0 if value is None else count,
            "chain": "" if value is None else chain,
            "set": [[timer.timer_id, timer.at_ms] for timer in outcome.timers],
            "cancel": bool(outcome.cancels),
            "fired": None if trigger.timer is None else [trigger.timer.timer_id, trigger.timer.at_ms],
            "provenance": view.provenance(TABLE, entity),
            "plain": "plain" in words,
            "more": MORE if "many" in words else 0,
            "fill": "x" * BIG_BYTES if "big" in words else "",
        }
        outcome.emits.append(OutRecord(OUT, 0, entity.encode(), json.dumps(told).encode(), ()))
        for number in range(told["more"]):
            one = json.dumps({"of": event_id, "number": number}).encode()
            outcome.emits.append(OutRecord(OUT, 0, entity.encode(), one, ()))
        if "rejected" in words:
            outcome.emits.append(OutRecord(OUT, 0, entity.encode(), REJECTED, ()))
        outcome.decision = self._runner.decision("done", trigger, view)
        return outcome


def count_and_chain(row: bytes | None) -> tuple[int, str]:
    if row is None:
        return 0, ""
    count, chain = row.decode().split()
    return int(count), chain


def chained(chain: str, event_id: str) -> str:
    return sha256(f"{chain} {event_id}".encode()).hexdigest()[:16]
