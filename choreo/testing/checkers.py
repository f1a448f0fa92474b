"""Finds loss, repetition and disorder in what a run left in Kafka.

The checker knows nothing of the engine. It is given what independent clients read from the topics, and compares it with
what *must* be there if every input was handled exactly once, in order per key, by a table counter that emits one
output for each input:

* for each committed input there is exactly one committed output (or exactly one dead letter, where one was expected);
* nothing answers an input that was aborted, or that nobody wrote;
* per key, the *i*-th output carries count *i*; the inputs of one topic are answered in the order of their offsets;
* folding the changelog gives, per key, the count of the last output, in the partition of its inputs; each changelog
  record goes with an output (both were written in one transaction, so neither may be there without the other);
* what a live worker holds equals the fold; what a concurrent reader saw equals what a later reader sees;
* the group's committed offsets lie past every input;
* the faults that were planned did fire, and each partition committed something after the last one was healed.

A run in which nothing happened, or in which everything failed, is no success: it is reported like any other problem.
"Stored offsets" and "echoed prefixes" are compared whole: a truncated tail is loss.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

# A broken run of some thousand events has thousands of problems; a person reads the first few of each kind.
EXAMPLES_MAX: Final = 5


class Input(NamedTuple):
    """One input record, as the feeder committed it and as a reader at ``read_committed`` finds it."""

    topic: str
    partition: int
    offset: int
    key: str
    id: str  # event id (``ce_id``), unique in the run
    n: int  # number of this event within (topic, key), counted from 1 over committed events


class Output(NamedTuple):
    """One output record, as a reader at ``read_committed`` finds it."""

    partition: int
    offset: int
    key: str
    cause: str  # id of the input that it answers (``ce_causationid``)
    n: int  # the input's number, copied by the handler
    total: int  # the entity's counter after the step


class Change(NamedTuple):
    """One changelog record. ``total`` None: the row was deleted."""

    partition: int
    offset: int
    key: str
    total: int | None


@dataclass(frozen=True, slots=True)
class Faults:
    """What was planned and what happened.

    Args:
        planned: fault kind → how often it was to fire.
        fired: fault kind → how often it was seen to have fired.
        healed: output partition → its end offset when the last fault was over. At least one output must follow in each.
    """

    planned: Mapping[str, int] = field(default_factory=dict)
    fired: Mapping[str, int] = field(default_factory=dict)
    healed: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """All findings of one kind. ``total`` is exact, ``examples`` are the first few."""

    kind: str
    total: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = f" … and {self.total - len(self.examples)} more" if self.total > len(self.examples) else ""
        return f"{self.kind}: {self.total} ({'; '.join(self.examples)}{more})"


@dataclass(frozen=True, slots=True)
class Report:
    """What a run amounts to. ``ok`` only when nothing at all was found."""

    inputs: int
    outputs: int
    keys: int
    dead_letters: int
    faults: Mapping[str, int]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def found(self, kind: str) -> int:
        """Number of findings of a kind; 0 when there are none."""
        return sum(problem.total for problem in self.problems if problem.kind == kind)

    def require(self, context: str = "") -> None:
        """Raises AssertionError with the whole report unless the run was right."""
        if not self.ok:
            raise AssertionError(f"{context}\n{self}" if context else str(self))

    def __str__(self) -> str:
        fired = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items())) or "no faults"
        head = f"{self.inputs} in, {self.outputs} out, {self.keys} keys, {self.dead_letters} dead letters; {fired}"
        return "\n".join(
            [head, *(f"  {problem}" for problem in self.problems)] if self.problems else [head + ": right"]
        )


class Findings:
    """Collects findings by kind, in the order in which kinds first appear. For checkers of other workloads too."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, text: str) -> None:
        self._totals[kind] = self._totals.get(kind, 0) + 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < EXAMPLES_MAX:
            examples.append(text)

    def problems(self) -> tuple[Problem, ...]:
        return tuple(Problem(kind, total, tuple(self._examples[kind])) for kind, total in self._totals.items())


def fold(changelog: Iterable[Change]) -> dict[str, int]:
    """Rows that the changelog amounts to: the last record of each key, deleted rows left out."""
    rows: dict[str, int] = {}
    for change in sorted(changelog, key=lambda change: (change.partition, change.offset)):
        if change.total is None:
            rows.pop(change.key, None)
        else:
            rows[change.key] = change.total
    return rows


def check_run(
    inputs: Sequence[Input],
    outputs: Sequence[Output],
    *,
    aborted: Iterable[str] = (),
    changelog: Sequence[Change] | None = None,
    live: Mapping[str, int] | None = None,
    dead: Sequence[str] = (),
    dead_expected: Iterable[str] = (),
    concurrent: Sequence[Output] | None = None,
    committed: Mapping[tuple[str, int], int] | None = None,
    faults: Faults | None = None,
) -> Report:
    """Compares what a run left behind with what exactly-once handling must leave.

    Args:
        inputs: all committed inputs.
        outputs: all outputs, read at ``read_committed`` from the beginning, after the run.
        aborted: ids that the feeder wrote in transactions which it aborted.
        changelog: all changelog records at ``read_committed``; None leaves the table unchecked.
        live: rows that the workers hold; None leaves them unchecked.
        dead: input ids of all dead letters.
        dead_expected: input ids that must have become dead letters, and nothing else.
        concurrent: the outputs as a reader saw them that ran beside the workers; None leaves that unchecked.
        committed: (input topic, partition) → the group's committed offset; None leaves that unchecked.
        faults: the faults planned and fired; None for a run without any.

    Returns:
        The report; ``report.require()`` raises unless it is clean.
    """
    findings = Findings()
    expected_dead = frozenset(dead_expected)
    _check_life(inputs, outputs, expected_dead, findings)
    _check_once(inputs, outputs, frozenset(aborted), dead, expected_dead, findings)
    _check_order(inputs, outputs, findings)
    if changelog is not None:
        _check_changelog(inputs, outputs, changelog, expected_dead, findings)
        if live is not None:
            _check_live(fold(changelog), live, findings)
    elif live is not None:
        findings.add("unusable", "live rows were given without a changelog to compare them with")
    if concurrent is not None:
        _check_readers(outputs, concurrent, findings)
    if committed is not None:
        _check_committed(inputs, committed, findings)
    if faults is not None:
        _check_faults(inputs, outputs, faults, findings)
    return Report(
        inputs=len(inputs),
        outputs=len(outputs),
        keys=len({record.key for record in inputs}),
        dead_letters=len(dead),
        faults=dict(faults.fired) if faults is not None else {},
        problems=findings.problems(),
    )


def _at(record: Input | Output | Change) -> str:
    return f"{record.key}@{record.partition}/{record.offset}"


def _check_life(
    inputs: Sequence[Input], outputs: Sequence[Output], expected_dead: frozenset[str], findings: Findings
) -> None:
    """A run without input, or in which no step succeeded, proves nothing."""
    if not inputs:
        findings.add("idle", "no input was committed")
    if not outputs and not (inputs and all(record.id in expected_dead for record in inputs)):
        findings.add("idle", "no output was committed")
    for record_id, times in Counter(record.id for record in inputs).items():
        if times > 1:
            findings.add("unusable", f"input id {record_id} was used {times} times")


def _check_once(
    inputs: Sequence[Input],
    outputs: Sequence[Output],
    aborted: frozenset[str],
    dead: Sequence[str],
    expected_dead: frozenset[str],
    findings: Findings,
) -> None:
    """Each input has one answer, of the right kind; each answer has an input."""
    known = {record.id: record for record in inputs}
    answers = Counter(output.cause for output in outputs)
    letters = Counter(dead)
    for record in inputs:
        answered, died = answers[record.id], letters[record.id]
        if answered + died == 0:
            findings.add("lost", f"{record.id} {_at(record)}")
        if answered > 1:
            findings.add("repeated", f"{record.id} {_at(record)} × {answered}")
        if died > 1:
            findings.add("repeated dead letter", f"{record.id} {_at(record)} × {died}")
        if answered and died:
            findings.add("answered and dead", f"{record.id} {_at(record)}")
        if died and record.id not in expected_dead:
            findings.add("dead letter", f"{record.id} {_at(record)} was to be answered")
        if answered and record.id in expected_dead:
            findings.add("not dead", f"{record.id} {_at(record)} was to become a dead letter")
    for source in (answers, letters):
        for cause in source:
            if cause in aborted:
                findings.add("aborted visible", f"{cause} was aborted by its writer")
            elif cause not in known:
                findings.add("unknown", f"{cause or '(no id)'} was never written")
    for output in outputs:
        cause_input = known.get(output.cause)
        if cause_input is not None and (output.key, output.n) != (cause_input.key, cause_input.n):
            findings.add(
                "garbled",
                f"{_at(output)} says {output.key} number {output.n}, "
                f"its input {output.cause} is {cause_input.key} number {cause_input.n}",
            )


def _check_order(inputs: Sequence[Input], outputs: Sequence[Output], findings: Findings) -> None:
    """Per key: one partition, counts 1, 2, 3…, and each topic's inputs answered in the order of their offsets."""
    topic_of = {record.id: (record.topic, record.offset) for record in inputs}
    by_key: dict[str, list[Output]] = defaultdict(list)
    for output in sorted(outputs, key=lambda output: (output.partition, output.offset)):
        by_key[output.key].append(output)
    for key, answers in by_key.items():
        partitions = {output.partition for output in answers}
        if len(partitions) > 1:
            findings.add("misplaced", f"outputs of {key} lie on partitions {sorted(partitions)}")
        highest: dict[str, int] = {}
        for position, output in enumerate(answers, start=1):
            if output.total != position:
                findings.add("wrong count", f"{_at(output)} has count {output.total}, expected {position}")
            if output.cause in topic_of:
                topic, offset = topic_of[output.cause]
                if offset < highest.get(topic, -1):
                    findings.add("disorder", f"{_at(output)} answers {topic} offset {offset} after {highest[topic]}")
                highest[topic] = max(offset, highest.get(topic, -1))


def _check_changelog(
    inputs: Sequence[Input],
    outputs: Sequence[Output],
    changelog: Sequence[Change],
    expected_dead: frozenset[str],
    findings: Findings,
) -> None:
    """Rows and outputs were written in the same transactions, so neither is there without the other."""
    home: dict[str, set[int]] = defaultdict(set)
    for record in inputs:
        home[record.key].add(record.partition)
    answered = {(output.key, output.total) for output in outputs}
    last: dict[str, int] = {}
    for output in sorted(outputs, key=lambda output: (output.partition, output.offset)):
        last[output.key] = output.total
    before: dict[str, int] = {}
    for change in sorted(changelog, key=lambda change: (change.partition, change.offset)):
        if change.key not in home:
            findings.add("phantom row", f"{_at(change)} belongs to no committed input")
            continue
        if change.partition not in home[change.key]:
            findings.add("misplaced", f"row {_at(change)}: its inputs lie on {sorted(home[change.key])}")
        if change.total is None:
            findings.add("row deleted", f"{_at(change)}; the counter never deletes")
            continue
        if (change.key, change.total) not in answered:
            findings.add("row without output", f"{_at(change)} count {change.total}")
        if change.total <= before.get(change.key, 0):
            findings.add("row went back", f"{_at(change)} count {change.total} after {before.get(change.key, 0)}")
        before[change.key] = change.total
    rows = fold(changelog)
    for key, count in last.items():
        if rows.get(key, 0) < count:
            findings.add("output without row", f"{key} has output {count}, its row says {rows.get(key)}")
    totals = Counter(record.key for record in inputs if record.id not in expected_dead)
    for key in home:
        if rows.get(key, 0) != totals[key]:
            findings.add("wrong row", f"{key} folds to {rows.get(key)}, expected {totals[key]}")


def _check_live(rows: Mapping[str, int], live: Mapping[str, int], findings: Findings) -> None:
    for key in sorted(rows.keys() | live.keys()):
        if rows.get(key) != live.get(key):
            findings.add("live row differs", f"{key}: live {live.get(key)}, changelog {rows.get(key)}")


def _check_readers(outputs: Sequence[Output], concurrent: Sequence[Output], findings: Findings) -> None:
    """``read_committed`` is only worth something if it never shows what later is not there, and leaves nothing out."""
    later = {(output.partition, output.offset): output for output in outputs}
    seen = {(output.partition, output.offset): output for output in concurrent}
    for place, output in seen.items():
        if later.get(place) != output:
            findings.add("seen then gone", f"{_at(output)} was seen during the run, later: {later.get(place)}")
    for place, output in later.items():
        if place not in seen:
            findings.add("never seen", f"{_at(output)} was not seen during the run")
    if len(seen) != len(concurrent):
        findings.add("seen twice", f"{len(concurrent) - len(seen)} offsets were delivered more than once")


def _check_committed(inputs: Sequence[Input], committed: Mapping[tuple[str, int], int], findings: Findings) -> None:
    last: dict[tuple[str, int], int] = {}
    for record in inputs:
        place = (record.topic, record.partition)
        last[place] = max(record.offset, last.get(place, -1))
    for (topic, partition), offset in sorted(last.items()):
        reached = committed.get((topic, partition), -1)
        if reached <= offset:
            findings.add("lag", f"{topic}/{partition} is committed to {reached}, its last input is {offset}")


def _check_faults(inputs: Sequence[Input], outputs: Sequence[Output], faults: Faults, findings: Findings) -> None:
    """A chaos run whose faults did not fire, or that never recovered from them, shows nothing."""
    for kind, planned in sorted(faults.planned.items()):
        fired = faults.fired.get(kind, 0)
        if fired < planned:
            findings.add("fault not fired", f"{kind}: {fired} of {planned}")
    if not any(faults.planned.values()):
        findings.add("fault not fired", "none was planned")
    end: dict[int, int] = {}
    for output in outputs:
        end[output.partition] = max(output.offset, end.get(output.partition, -1))
    partitions = sorted({record.partition for record in inputs})
    for partition in partitions:
        if partition not in faults.healed:
            findings.add("no progress", f"partition {partition}: nobody noted where it stood when the faults were over")
        elif end.get(partition, -1) < faults.healed[partition]:
            findings.add("no progress", f"partition {partition}: no output after {faults.healed[partition]}")
