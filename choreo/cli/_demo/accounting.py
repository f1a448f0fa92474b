"""Whether every input of a topology is accounted for: exactly one decision for each, exactly one record for each emit.

The checker knows nothing of the engine. It compares what an independent reader found on the topics at
``read_committed``, after everything stopped, and assumes nothing: a figure of zero losses is counted, not believed.

* Each record on a topic has exactly one decision from each agent that reads the topic. None: *lost*. More: *repeated*.
  The reading needs a last moment (timers go on firing): records behind the given ends need not be decided yet, they
  are counted as *open*; everything else holds for them too.
* Each event that a decision says it emitted is there exactly once. Absent: *lost*. More often: *repeated*.
* Each event that the feed was told is written is there exactly once, likewise.
* A timer fires once. The same firing decided twice: *repeated*.
* Each decision that ended in a dead letter has its dead letter, and the other way round.
* A decision about a record that is not there, or a record from an agent that no decision mentions, is *unknown*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

# A broken run of some thousand events has thousands of findings; a person reads the first few.
EXAMPLES_MAX: Final = 5

Kind = Literal["lost", "repeated", "unknown"]
Place = tuple[str, int, int]  # topic, partition, offset


class Found(NamedTuple):
    """One record on a topic of the topology, as a reader at ``read_committed`` finds it."""

    topic: str
    partition: int
    offset: int
    event_id: str
    agent: str | None  # that wrote it; None: it came from outside


class Decided(NamedTuple):
    """One Decision record, as far as accounting needs it."""

    agent: str
    kind: str  # event | timer
    outcome: str  # done | dead_letter | parked | duplicate
    place: Place | None  # of the input; None for a timer
    event_id: str  # of the input, or of the timer that fired
    emits: tuple[tuple[str, str], ...]  # (topic, event id)


class Letter(NamedTuple):
    """One dead letter: the agent that gave up and the input it gave up on."""

    agent: str
    event_id: str


class Finding(NamedTuple):
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Account:
    """What a run amounts to.

    Attributes:
        events: records from outside.
        records: records on the topology's topics, those from outside included.
        steps: (agent, record) pairs that had to be decided.
        open: pairs behind the ends that were not decided when the workers stopped.
        decisions: Decision records found, by how they ended.
        timers: of these, those that a timer started.
        dead_letters: records on the dead-letter topics.
        totals: findings by kind, exact.
        examples: the first few of each kind.
    """

    events: int
    records: int
    steps: int
    open: int
    decisions: Mapping[str, int]
    timers: int
    dead_letters: int
    totals: Mapping[Kind, int]
    examples: tuple[Finding, ...]

    @property
    def decisions_total(self) -> int:
        return sum(self.decisions.values())

    @property
    def lost(self) -> int:
        return self.totals.get("lost", 0)

    @property
    def repeated(self) -> int:
        return self.totals.get("repeated", 0)

    @property
    def unknown(self) -> int:
        return self.totals.get("unknown", 0)

    @property
    def ok(self) -> bool:
        """Every input is accounted for; a run in which nothing happened is none."""
        return not any(self.totals.values()) and self.events > 0 and self.decisions_total > 0


class _Findings:
    def __init__(self) -> None:
        self.totals: Counter[Kind] = Counter()
        self.examples: list[Finding] = []

    def add(self, kind: Kind, text: str, count: int = 1) -> None:
        if self.totals[kind] < EXAMPLES_MAX:
            self.examples.append(Finding(kind, text))
        self.totals[kind] += count


def account(
    records: Iterable[Found],
    decisions: Iterable[Decided],
    *,
    reads: Mapping[str, Sequence[str]],
    fed: Iterable[str],
    letters: Iterable[Letter] = (),
    ends: Mapping[tuple[str, int], int] | None = None,
) -> Account:
    """Compares what lies on the topics with what exactly-once handling must leave there.

    Args:
        records: everything on the topology's topics.
        decisions: everything on its decisions topic.
        reads: agent → the topics it reads.
        fed: ids of the events that were written from outside and acknowledged.
        letters: everything on the dead-letter topics.
        ends: (topic, partition) → offset up to which every record must have been decided; None: all must.

    Returns:
        The account; ``ok`` says whether all is accounted for.
    """
    findings = _Findings()
    records, decisions, letters = list(records), list(decisions), list(letters)
    steps, not_yet = _check_inputs(records, decisions, reads, ends, findings)
    _check_timers(decisions, findings)
    _check_emits(records, decisions, findings)
    outside = [record.event_id for record in records if record.agent is None]
    _check_fed(outside, list(fed), findings)
    _check_letters(decisions, letters, findings)
    return Account(
        events=len(outside),
        records=len(records),
        steps=steps,
        open=not_yet,
        decisions=dict(Counter(decision.outcome for decision in decisions)),
        timers=sum(decision.kind == "timer" for decision in decisions),
        dead_letters=len(letters),
        totals=dict(findings.totals),
        examples=tuple(findings.examples),
    )


def _check_inputs(
    records: list[Found],
    decisions: list[Decided],
    reads: Mapping[str, Sequence[str]],
    ends: Mapping[tuple[str, int], int] | None,
    findings: _Findings,
) -> tuple[int, int]:
    """Each (agent, record) pair is decided once. Returns the number of pairs, and of those that may wait."""
    decided = Counter((decision.agent, decision.place) for decision in decisions if decision.place is not None)
    readers: dict[str, list[str]] = {}
    for agent, topics in reads.items():
        for topic in topics:
            readers.setdefault(topic, []).append(agent)
    steps = not_yet = 0
    for record in records:
        place = (record.topic, record.partition, record.offset)
        for agent in readers.get(record.topic, ()):
            steps += 1
            times = decided.pop((agent, place), 0)
            if times == 0 and ends is not None and record.offset >= ends[(record.topic, record.partition)]:
                not_yet += 1
            elif times == 0:
                findings.add("lost", f"{_shown(place)} was never decided by {agent}")
            elif times > 1:
                findings.add("repeated", f"{_shown(place)} was decided {times} times by {agent}", times - 1)
    for (agent, unread), times in decided.items():
        assert unread is not None
        findings.add("unknown", f"{agent} decided about {_shown(unread)}, where it has no input", times)
    return steps, not_yet


def _check_timers(decisions: list[Decided], findings: _Findings) -> None:
    fired = Counter((decision.agent, decision.event_id) for decision in decisions if decision.kind == "timer")
    for (agent, timer_id), times in fired.items():
        if times > 1:
            findings.add("repeated", f"timer {timer_id} of {agent} fired {times} times", times - 1)


def _check_emits(records: list[Found], decisions: list[Decided], findings: _Findings) -> None:
    """What the decisions say was emitted and what lies on the topics are the same, each once."""
    said = Counter((decision.agent, *emit) for decision in decisions for emit in decision.emits)
    there = Counter((record.agent, record.topic, record.event_id) for record in records if record.agent is not None)
    for (agent, topic, event_id), times in said.items():
        if times > 1:
            findings.add("repeated", f"{agent} emitted {event_id} to {topic} in {times} decisions", times - 1)
        if (agent, topic, event_id) not in there:
            findings.add("lost", f"{event_id}, emitted by {agent}, is not on {topic}")
    for (writer, topic, event_id), times in there.items():
        if times > 1:
            findings.add("repeated", f"{event_id} of {writer} lies {times} times on {topic}", times - 1)
        if (writer, topic, event_id) not in said:
            findings.add("unknown", f"{event_id} of {writer} lies on {topic}, no decision emitted it", times)


def _check_fed(outside: list[str], fed: list[str], findings: _Findings) -> None:
    expected, there = Counter(fed), Counter(outside)
    for event_id, times in expected.items():
        if there[event_id] < times:
            findings.add("lost", f"{event_id} was fed and is on no topic", times - there[event_id])
    for event_id, times in there.items():
        if event_id not in expected:
            findings.add("unknown", f"{event_id} was never fed", times)
        elif times > expected[event_id]:
            findings.add(
                "repeated", f"{event_id} was fed once and lies {times} times on its topic", times - expected[event_id]
            )


def _check_letters(decisions: list[Decided], letters: list[Letter], findings: _Findings) -> None:
    expected = Counter(
        (decision.agent, decision.event_id) for decision in decisions if decision.outcome == "dead_letter"
    )
    there = Counter((letter.agent, letter.event_id) for letter in letters)
    for (agent, event_id), times in (expected - there).items():
        findings.add("lost", f"the dead letter of {event_id} from {agent}", times)
    for (agent, event_id), times in (there - expected).items():
        kind: Kind = "repeated" if (agent, event_id) in expected else "unknown"
        findings.add(kind, f"dead letter of {event_id} from {agent} that no decision explains", times)


def _shown(place: Place) -> str:
    return "/".join(map(str, place))
