"""The checker is itself checked: each fault is planted in a correct run and must be reported, under its own name.

A chaos test is worth what its checker is worth. Each plant below is one way in which an engine, a reader or the test
itself can be wrong; the last test makes sure that no plant is reported only by accident of another one's check.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from choreo.testing import checkers
from choreo.testing.checkers import EXAMPLES_MAX, Change, Faults, Input, Output, Report, check_run, fold

PARTITIONS = 3
KEYS = 9
EVENTS = 180


@dataclass
class Run:
    """Everything that `check_run` is given, of a correct run."""

    inputs: list[Input]
    outputs: list[Output]
    changelog: list[Change]
    aborted: set[str]
    live: dict[str, int] | None
    dead: list[str]
    dead_expected: set[str]
    concurrent: list[Output]
    committed: dict[tuple[str, int], int]
    faults: Faults = field(default_factory=Faults)

    def check(self) -> Report:
        return check_run(
            self.inputs,
            self.outputs,
            aborted=self.aborted,
            changelog=self.changelog,
            live=self.live,
            dead=self.dead,
            dead_expected=self.dead_expected,
            concurrent=self.concurrent,
            committed=self.committed,
            faults=self.faults,
        )

    def drop_outputs(self, condition: Callable[[Output], bool]) -> None:
        self.outputs = [output for output in self.outputs if not condition(output)]
        self.concurrent = [output for output in self.concurrent if not condition(output)]


def correct_run(seed: int = 1) -> Run:
    """A run as a right engine leaves it: gaps in the offsets, keys finished out of order, rows coalesced at times."""
    chance = random.Random(seed)
    inputs: list[Input] = []
    aborted: set[str] = set()
    offsets = [0] * PARTITIONS
    numbers = [0] * KEYS
    for number in range(EVENTS):
        key = chance.randrange(KEYS)
        partition = key % PARTITIONS
        if chance.random() < 0.1:
            aborted.add(f"aborted-{number}")
            offsets[partition] += 2  # the record and its marker
            continue
        numbers[key] += 1
        inputs.append(Input("in", partition, offsets[partition], f"k{key}", f"e{number}", numbers[key]))
        offsets[partition] += 1 + chance.randrange(2)
    # Keys overtake each other, one key's events never do.
    waiting = list(inputs)
    outputs: list[Output] = []
    changelog: list[Change] = []
    out_offsets = [0] * PARTITIONS
    row_offsets = [0] * PARTITIONS
    counts: dict[str, int] = {}
    while waiting:
        window = waiting[:12]
        chosen = chance.choice(window)
        chosen = next(record for record in window if record.key == chosen.key)
        waiting.remove(chosen)
        counts[chosen.key] = counts.get(chosen.key, 0) + 1
        out_offsets[chosen.partition] += 1 + (chance.random() < 0.2)
        outputs.append(
            Output(chosen.partition, out_offsets[chosen.partition], chosen.key, chosen.id, chosen.n, counts[chosen.key])
        )
        row_offsets[chosen.partition] += 1
        changelog.append(Change(chosen.partition, row_offsets[chosen.partition], chosen.key, counts[chosen.key]))
    healed = {partition: out_offsets[partition] - 5 for partition in range(PARTITIONS)}
    return Run(
        inputs=inputs,
        outputs=outputs,
        changelog=changelog,
        aborted=aborted,
        live=fold(changelog),
        dead=[],
        dead_expected=set(),
        concurrent=list(outputs),
        committed={("in", partition): offsets[partition] + 1 for partition in range(PARTITIONS)},
        faults=Faults({"kill -9": 2}, {"kill -9": 2}, healed),
    )


def last_of_key(run: Run, key: str) -> Output:
    return [output for output in run.outputs if output.key == key][-1]


Plant = Callable[[Run], None]
PLANTS: dict[str, tuple[Plant, str]] = {}


def plant(kind: str) -> Callable[[Plant], Plant]:
    """Registers a planted fault and the name under which it must be reported."""

    def register(function: Plant) -> Plant:
        PLANTS[function.__name__] = (function, kind)
        return function

    return register


@plant("repeated")
def output_written_twice(run: Run) -> None:
    victim = run.outputs[40]
    run.outputs.append(victim._replace(offset=10_000))


@plant("repeated")
def burst_written_twice(run: Run) -> None:
    run.outputs += [output._replace(offset=output.offset + 10_000) for output in run.outputs[50:70]]


@plant("lost")
def first_input_lost(run: Run) -> None:
    cause = run.inputs[0].id
    run.drop_outputs(lambda output: output.cause == cause)


@plant("lost")
def middle_input_lost(run: Run) -> None:
    cause = run.inputs[len(run.inputs) // 2].id
    run.drop_outputs(lambda output: output.cause == cause)


@plant("lost")
def last_input_lost(run: Run) -> None:
    cause = run.inputs[-1].id
    run.drop_outputs(lambda output: output.cause == cause)


@plant("lost")
def tail_lost_without_a_trace(run: Run) -> None:
    """Rows, outputs and live state all stop early: only the input says that something is missing."""
    causes = {record.id for record in run.inputs[-20:]}
    gone = {(output.key, output.total) for output in run.outputs if output.cause in causes}
    run.drop_outputs(lambda output: output.cause in causes)
    run.changelog = [change for change in run.changelog if (change.key, change.total) not in gone]
    run.live = fold(run.changelog)


@plant("lost")
def whole_partition_lost(run: Run) -> None:
    run.drop_outputs(lambda output: output.partition == 1)
    run.changelog = [change for change in run.changelog if change.partition != 1]
    run.live = fold(run.changelog)


@plant("disorder")
def neighbours_swapped(run: Run) -> None:
    first, second = [place for place, output in enumerate(run.outputs) if output.key == "k3"][4:6]
    a, b = run.outputs[first], run.outputs[second]
    run.outputs[first] = a._replace(cause=b.cause, n=b.n)
    run.outputs[second] = b._replace(cause=a.cause, n=a.n)
    run.concurrent = list(run.outputs)


@plant("wrong count")
def counter_restored_too_old(run: Run) -> None:
    """After a take-over the counter goes on from a value that lacks one event."""
    last = last_of_key(run, "k4")
    place = run.outputs.index(last)
    run.outputs[place] = last._replace(total=last.total - 1)


@plant("wrong count")
def counter_ahead_of_offsets(run: Run) -> None:
    run.outputs = [output._replace(total=output.total + (output.key == "k2")) for output in run.outputs]


@plant("aborted visible")
def aborted_input_answered(run: Run) -> None:
    cause = sorted(run.aborted)[0]
    run.outputs.append(Output(0, 9_999, "k0", cause, 1, len([o for o in run.outputs if o.key == "k0"]) + 1))


@plant("unknown")
def output_of_nothing(run: Run) -> None:
    run.outputs.append(Output(0, 9_999, "k0", "never-written", 1, 99))


@plant("unknown")
def output_without_cause(run: Run) -> None:
    run.outputs.append(Output(0, 9_999, "k0", "", 1, 99))


@plant("garbled")
def output_of_another_key(run: Run) -> None:
    run.outputs[30] = run.outputs[30]._replace(n=run.outputs[30].n + 1)


@plant("misplaced")
def output_on_two_partitions(run: Run) -> None:
    victim = last_of_key(run, "k5")
    run.outputs[run.outputs.index(victim)] = victim._replace(
        partition=(victim.partition + 1) % PARTITIONS, offset=9_999
    )


@plant("misplaced")
def row_on_another_partition(run: Run) -> None:
    """The partitioner chose the changelog's partition instead of the source's: a restore misses the row."""
    change = run.changelog[-1]
    run.changelog[-1] = change._replace(partition=(change.partition + 1) % PARTITIONS)


@plant("row without output")
def torn_transaction_keeps_the_row(run: Run) -> None:
    victim = last_of_key(run, "k7")
    run.drop_outputs(lambda output: output.cause == victim.cause)


@plant("output without row")
def torn_transaction_keeps_the_output(run: Run) -> None:
    victim = last_of_key(run, "k7")
    run.changelog = [change for change in run.changelog if (change.key, change.total) != ("k7", victim.total)]


@plant("row went back")
def zombie_writes_an_old_row(run: Run) -> None:
    run.changelog.append(Change(1, 9_999, "k1", 3))


@plant("phantom row")
def row_of_an_aborted_input(run: Run) -> None:
    run.changelog.append(Change(1, 9_999, "only-in-aborted-events", 1))


@plant("row deleted")
def row_deleted(run: Run) -> None:
    run.changelog.append(Change(1, 9_999, "k1", None))


@plant("wrong row")
def input_counted_but_not_in_table(run: Run) -> None:
    run.changelog = [change for change in run.changelog if change.key != "k6"]


@plant("live row differs")
def live_table_is_ahead(run: Run) -> None:
    assert run.live is not None
    run.live = {**run.live, "k3": run.live["k3"] + 1}


@plant("live row differs")
def live_table_misses_a_row(run: Run) -> None:
    assert run.live is not None
    run.live = {key: count for key, count in run.live.items() if key != "k3"}


@plant("live row differs")
def live_table_holds_an_aborted_row(run: Run) -> None:
    assert run.live is not None
    run.live = {**run.live, "only-in-aborted-events": 1}


@plant("seen then gone")
def reader_saw_what_was_aborted(run: Run) -> None:
    run.concurrent.append(Output(0, 9_998, "k0", "e1", 1, 1))


@plant("never seen")
def reader_missed_some(run: Run) -> None:
    del run.concurrent[20:24]


@plant("seen twice")
def reader_saw_an_offset_twice(run: Run) -> None:
    run.concurrent.append(run.concurrent[3])


@plant("idle")
def idle_run(run: Run) -> None:
    run.inputs, run.outputs, run.changelog, run.live, run.concurrent = [], [], [], {}, []


@plant("idle")
def nothing_was_answered(run: Run) -> None:
    run.outputs, run.changelog, run.live, run.concurrent = [], [], {}, []


@plant("dead letter")
def every_step_failed(run: Run) -> None:
    """An all-error run loses nothing and repeats nothing; it must not pass for a success."""
    run.dead = [record.id for record in run.inputs]
    run.outputs, run.changelog, run.live, run.concurrent = [], [], {}, []


@plant("repeated dead letter")
def poison_dead_lettered_twice(run: Run) -> None:
    victim = run.inputs[-1]
    run.dead_expected = {victim.id}
    run.dead = [victim.id, victim.id]
    run.drop_outputs(lambda output: output.cause == victim.id)


@plant("answered and dead")
def dead_lettered_and_answered(run: Run) -> None:
    run.dead = [run.inputs[10].id]


@plant("not dead")
def poison_answered(run: Run) -> None:
    run.dead_expected = {run.inputs[10].id}


@plant("lost")
def poison_dropped(run: Run) -> None:
    victim = run.inputs[-1]
    run.dead_expected = {victim.id}
    run.drop_outputs(lambda output: output.cause == victim.id)


@plant("unknown")
def dead_letter_of_nothing(run: Run) -> None:
    run.dead = ["never-written"]


@plant("aborted visible")
def dead_letter_of_an_aborted_input(run: Run) -> None:
    run.dead = [sorted(run.aborted)[0]]


@plant("lag")
def watermark_frozen_at_a_marker(run: Run) -> None:
    run.committed = {**run.committed, ("in", 2): 10}


@plant("lag")
def offsets_never_committed(run: Run) -> None:
    run.committed = {}


@plant("fault not fired")
def fault_never_fired(run: Run) -> None:
    run.faults = replace(run.faults, fired={})


@plant("fault not fired")
def fault_fired_too_seldom(run: Run) -> None:
    run.faults = replace(run.faults, fired={"kill -9": 1})


@plant("fault not fired")
def no_fault_was_planned(run: Run) -> None:
    run.faults = replace(run.faults, planned={}, fired={})


@plant("no progress")
def stalled_after_the_last_fault(run: Run) -> None:
    ends = {p: max(o.offset for o in run.outputs if o.partition == p) for p in range(PARTITIONS)}
    run.faults = replace(run.faults, healed={**run.faults.healed, 1: ends[1] + 1})


@plant("no progress")
def nobody_looked_after_the_last_fault(run: Run) -> None:
    run.faults = replace(run.faults, healed={})


@plant("unusable")
def feeder_used_an_id_twice(run: Run) -> None:
    run.inputs[5] = run.inputs[5]._replace(id=run.inputs[6].id)


@pytest.mark.parametrize("seed", range(5))
def test_a_right_run_is_right(seed: int) -> None:
    report = correct_run(seed).check()
    assert report.ok, str(report)
    assert str(report).endswith("2 kill -9: right")
    report.require()


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(PLANTS))
def test_each_planted_fault_is_found(name: str, seed: int) -> None:
    function, kind = PLANTS[name]
    run = correct_run(seed)
    function(run)
    report = run.check()
    assert report.found(kind) > 0, f"{name}: {report}"
    with pytest.raises(AssertionError, match=kind):
        report.require(f"seed {seed}")


def test_the_plants_reach_every_kind_of_finding() -> None:
    """A kind of finding that no plant produces is a check that nobody has seen failing."""
    source = Path(checkers.__file__).read_text(encoding="utf-8")
    kinds = set(re.findall(r'findings\.add\(\s*"([^"]+)"', source))
    assert kinds == {kind for _, kind in PLANTS.values()}


def test_two_topics_of_a_join_are_ordered_each_by_itself() -> None:
    """Events of one entity from two topics may interleave in any way, but not against either topic's own order."""
    inputs = [Input(topic, 0, n, "k", f"{topic}{n}", n + 1) for topic in ("a", "b") for n in range(3)]
    order = ["b0", "a0", "a1", "b1", "b2", "a2"]
    number = {record.id: record.n for record in inputs}
    outputs = [Output(0, place, "k", cause, number[cause], place + 1) for place, cause in enumerate(order)]
    assert check_run(inputs, outputs).ok
    swapped = ["b1", "a0", "a1", "b0", "b2", "a2"]
    outputs = [Output(0, place, "k", cause, number[cause], place + 1) for place, cause in enumerate(swapped)]
    assert check_run(inputs, outputs).found("disorder") == 1


def test_expected_dead_letters_are_right() -> None:
    inputs = [Input("in", 0, 0, "k", "good", 1), Input("in", 0, 1, "k", "bad", 2), Input("in", 0, 2, "k", "good2", 3)]
    outputs = [Output(0, 0, "k", "good", 1, 1), Output(0, 1, "k", "good2", 3, 2)]
    changelog = [Change(0, 0, "k", 1), Change(0, 1, "k", 2)]
    report = check_run(inputs, outputs, changelog=changelog, dead=["bad"], dead_expected=["bad"])
    assert report.ok, str(report)


def test_rows_coalesced_within_a_transaction_are_right() -> None:
    """A burst may write a row once for several steps of its entity; the outputs still all come."""
    inputs = [Input("in", 0, n, "k", f"e{n}", n + 1) for n in range(3)]
    outputs = [Output(0, n, "k", f"e{n}", n + 1, n + 1) for n in range(3)]
    assert check_run(inputs, outputs, changelog=[Change(0, 0, "k", 3)], live={"k": 3}).ok


def test_the_fold_keeps_the_last_row_and_drops_deleted_ones() -> None:
    changelog = [Change(0, 2, "a", 5), Change(0, 1, "a", 4), Change(0, 3, "b", 1), Change(0, 4, "b", None)]
    assert fold(changelog) == {"a": 5}


def test_live_rows_without_a_changelog_are_refused() -> None:
    assert check_run([Input("in", 0, 0, "k", "e", 1)], [Output(0, 0, "k", "e", 1, 1)], live={}).found("unusable") == 1


def test_the_report_stays_short_however_bad_the_run() -> None:
    run = correct_run()
    run.outputs = []
    run.concurrent = []
    text = str(run.check())
    assert f"lost: {len(run.inputs)} (" in text
    assert f"and {len(run.inputs) - EXAMPLES_MAX} more" in text
    assert max(len(line) for line in text.splitlines()) < 1_000
