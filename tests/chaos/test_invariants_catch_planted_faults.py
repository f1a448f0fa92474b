"""The bank's invariants have to be believed: each planted fault is found, and a right round is right."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest

from tests.chaos.bank import invariants, model
from tests.chaos.bank.evidence import (
    CREDIT,
    CREDITS,
    DEBIT,
    NOTICES,
    OUTCOMES,
    REFUNDS,
    TRANSFERS,
    Call,
    Commit,
    Decision,
    Event,
    Evidence,
    Fed,
    Place,
    Snapshot,
    group,
)
from tests.chaos.bank.invariants import judge
from tests.chaos.bank.synthetic import right_round

Plant = Callable[[Evidence], None]
PLANTS: dict[str, tuple[Plant, str]] = {}


def plant(kind: str) -> Callable[[Plant], Plant]:
    """Registers a fault and the finding that has to come of it."""

    def register(function: Plant) -> Plant:
        PLANTS[function.__name__] = (function, kind)
        return function

    return register


def done(round_: Evidence, agent: str, topic: str | None = None) -> list[Decision]:
    """An agent's successful decisions, of events of a topic."""
    return [
        one
        for one in round_.decisions
        if (one.agent, one.outcome) == (agent, "done") and topic in (None, one.input.topic)
    ]


def forget(round_: Evidence, *gone: Decision) -> None:
    """As if these decisions had never been: what they decided is lost."""
    places = {one.at for one in gone}
    round_.decisions = [one for one in round_.decisions if one.at not in places]
    round_.seen = [(place, event_id) for place, event_id in round_.seen if place not in places]


def lane(round_: Evidence, agent: str) -> list[Decision]:
    """Decisions of the entity of which an agent made most, in their order."""
    entities = [one.entity for one in done(round_, agent)]
    busiest = max(entities, key=entities.count)
    return sorted((one for one in done(round_, agent) if one.entity == busiest), key=lambda one: one.sequence)


def swap(round_: Evidence, old: Decision, new: Decision) -> None:
    round_.decisions[round_.decisions.index(old)] = new


def add_event(round_: Evidence, event: Event) -> None:
    round_.events[event.place.topic].append(event)


# -- loss and repetition -----------------------------------------------------------------------------------------------


@plant("I1 lost")
def lost_head(round_: Evidence) -> None:
    forget(round_, done(round_, DEBIT, TRANSFERS)[0])


@plant("I1 lost")
def lost_in_the_middle(round_: Evidence) -> None:
    decisions = done(round_, CREDIT)
    forget(round_, decisions[len(decisions) // 2])


@plant("I1 lost")
def lost_tail(round_: Evidence) -> None:
    last = max(done(round_, "notify"), key=lambda one: (one.input.partition, one.input.offset))
    forget(round_, last)


@plant("I1 lost")
def lost_partition(round_: Evidence) -> None:
    forget(round_, *(one for one in round_.decisions if one.agent == DEBIT and one.input.partition == 2))


@plant("I1 decided twice")
def step_done_again_after_a_kill(round_: Evidence) -> None:
    one = done(round_, CREDIT)[3]
    round_.decisions.append(one._replace(at=one.at._replace(offset=9_999)))


@plant("I1 aborted visible")
def aborted_input_decided(round_: Evidence) -> None:
    aborted = sorted(round_.fed.aborted)[0]
    one = done(round_, DEBIT, TRANSFERS)[0]
    round_.decisions.append(one._replace(event_id=aborted, input=Place(TRANSFERS, 0, 9_999)))


@plant("I1 decided nothing")
def decision_of_an_event_that_is_not_there(round_: Evidence) -> None:
    one = done(round_, CREDIT)[0]
    round_.decisions.append(one._replace(event_id="nobody", input=Place(CREDITS, 0, 9_999)))


@plant("I1 transfer without end")
def transfer_without_outcome(round_: Evidence) -> None:
    del round_.events[OUTCOMES][5]


@plant("I1 transfer ended twice")
def transfer_completed_and_refunded(round_: Evidence) -> None:
    one = round_.events[OUTCOMES][5]
    assert one.value is not None
    again = {**one.value, "status": "refunded"}
    add_event(round_, one._replace(place=one.place._replace(offset=9_999), value=again, id="f" * 32))


@plant("I1 transfer of nobody")
def poison_was_paid(round_: Evidence) -> None:
    one = round_.events[OUTCOMES][5]
    assert one.value is not None
    value = {**one.value, "transfer_id": "transfer-of-nobody"}
    add_event(round_, one._replace(place=one.place._replace(offset=9_999), value=value, id="f" * 32))


@plant("I1 no dead letter")
def poison_dropped(round_: Evidence) -> None:
    del round_.letters[0]


@plant("I1 dead twice")
def poison_dead_lettered_twice(round_: Evidence) -> None:
    round_.letters.append(round_.letters[0])


@plant("I1 dead letter")
def every_step_failed(round_: Evidence) -> None:
    """An all-error round loses nothing and repeats nothing; it must not pass."""
    round_.letters = [round_.letters[0]._replace(event_id=one.id) for one in round_.events[TRANSFERS]]


@plant("I1 garbled letter")
def dead_letter_without_its_bytes(round_: Evidence) -> None:
    round_.letters[0] = round_.letters[0]._replace(value=b"")


@plant("I1 garbled letter")
def dead_letter_with_another_reason(round_: Evidence) -> None:
    round_.letters[1] = round_.letters[1]._replace(code="CH0304")


@plant("input differs")
def reader_misses_an_input(round_: Evidence) -> None:
    gone = round_.events[TRANSFERS].pop()
    forget(round_, *(one for one in round_.decisions if one.input == gone.place))


@plant("input differs")
def aborted_input_visible(round_: Evidence) -> None:
    one = round_.events[TRANSFERS][0]
    aborted = sorted(round_.fed.aborted)[0]
    add_event(round_, one._replace(id=aborted, place=one.place._replace(offset=9_999)))


# -- money -------------------------------------------------------------------------------------------------------------


@plant("I2 money")
def torn_transaction_keeps_the_credit(round_: Evidence) -> None:
    """The payer's row did not commit, the credit did: money from nothing."""
    cause = next(one for one in done(round_, DEBIT, TRANSFERS) if one.emits[0][0] == CREDITS)
    last = max(
        (one for one in round_.changes["paying_accounts"] if one.key == cause.entity), key=lambda one: one.offset
    )
    round_.changes["paying_accounts"].remove(last)


@plant("I2 money")
def torn_transaction_keeps_the_debit(round_: Evidence) -> None:
    del round_.changes["receiving_accounts"][-1]


@plant("I2 money")
def money_created(round_: Evidence) -> None:
    last = round_.changes["receiving_accounts"][-1]
    assert last.row is not None
    row = {**last.row, "received_cents": last.row["received_cents"] + 1}
    round_.changes["receiving_accounts"][-1] = last._replace(row=row)


@plant("I2 money")
def reader_sees_a_credit_before_its_debit(round_: Evidence) -> None:
    """A snapshot in which money arrived that nobody had paid yet."""
    after = round_.snapshots[-1]
    round_.snapshots.append(Snapshot(after.receiving, {0: 0}))


# -- tables ------------------------------------------------------------------------------------------------------------


@plant("I3 live row")
def worker_restored_an_old_row(round_: Evidence) -> None:
    first, _, third, *_ = lane(round_, CREDIT)
    swap(round_, third, third._replace(before=first.before))


@plant("I3 live row")
def worker_computed_something_else(round_: Evidence) -> None:
    one = lane(round_, DEBIT)[1]
    assert one.after is not None
    swap(round_, one, one._replace(after={**one.after, "paid": 99}))


@plant("I3 row went back")
def zombie_wrote_an_old_row(round_: Evidence) -> None:
    first = lane(round_, CREDIT)[0]
    changes = round_.changes["receiving_accounts"]
    old = next(one for one in changes if (one.key, one.cause) == (first.entity, first.event_id))
    changes.append(old._replace(offset=9_999))


@plant("I3 wrong row")
def row_lost(round_: Evidence) -> None:
    changes = round_.changes["customer_files"]
    last = changes[-1]
    round_.changes["customer_files"] = [one for one in changes if one.key != last.key]


@plant("I3 wrong row")
def row_garbled(round_: Evidence) -> None:
    one = round_.changes["customer_files"][3]
    assert one.row is not None
    round_.changes["customer_files"][3] = one._replace(row={**one.row, "notices": 77})


@plant("I3 row of nothing")
def row_of_an_aborted_step(round_: Evidence) -> None:
    changes = round_.changes["receiving_accounts"]
    changes.append(changes[-1]._replace(offset=9_999, cause="0" * 32))


@plant("I3 row deleted")
def row_deleted(round_: Evidence) -> None:
    changes = round_.changes["receiving_accounts"]
    changes.append(changes[-1]._replace(offset=9_999, row=None))


# -- outputs and their order -------------------------------------------------------------------------------------------


@plant("I4 numbering")
def decision_number_used_twice(round_: Evidence) -> None:
    _, second, *_ = lane(round_, CREDIT)
    swap(round_, second, second._replace(sequence=1))


@plant("I4 disorder")
def swapped_pair(round_: Evidence) -> None:
    """Two transfers of one payer were paid in the wrong order."""
    first, second, *_ = [one for one in lane(round_, DEBIT) if one.input.topic == TRANSFERS]
    swap(round_, first, first._replace(sequence=second.sequence))
    swap(round_, second, second._replace(sequence=first.sequence))


@plant("I4 disorder")
def swapped_outputs(round_: Evidence) -> None:
    """Decided in order, but the notices of one account lie in the wrong order."""
    first, second, *_ = [one for one in round_.events[NOTICES] if one.key == lane(round_, "notify")[0].entity]
    notices = round_.events[NOTICES]
    here, there = notices.index(first), notices.index(second)
    notices[here], notices[there] = second._replace(place=first.place), first._replace(place=second.place)


@plant("I4 misplaced")
def output_on_another_partition(round_: Evidence) -> None:
    one = round_.events[CREDITS][0]
    place = one.place._replace(partition=(one.place.partition + 1) % 4, offset=9_999)
    round_.events[CREDITS][0] = one._replace(place=place)


@plant("I4 misplaced")
def entity_handled_on_two_partitions(round_: Evidence) -> None:
    one = lane(round_, CREDIT)[-1]
    partition = (one.input.partition + 1) % 4
    swap(round_, one, one._replace(input=one.input._replace(partition=partition)))


@plant("I4 outcome")
def repetition_was_paid_again(round_: Evidence) -> None:
    one = next(one for one in round_.decisions if one.outcome == "duplicate")
    swap(round_, one, one._replace(outcome="done"))


@plant("I4 outcome")
def dead_letter_with_a_row(round_: Evidence) -> None:
    one = next(one for one in round_.decisions if one.outcome == "dead_letter" and one.sequence)
    swap(round_, one, one._replace(changed=True))


@plant("I4 output missing")
def output_lost(round_: Evidence) -> None:
    del round_.events[NOTICES][7]


@plant("I4 output twice")
def output_repeated(round_: Evidence) -> None:
    one = round_.events[NOTICES][7]
    add_event(round_, one._replace(place=one.place._replace(offset=9_999)))


@plant("I4 output of nothing")
def orphan_event(round_: Evidence) -> None:
    one = round_.events[NOTICES][7]
    add_event(round_, one._replace(place=one.place._replace(offset=9_999), id="e" * 32, causation="nobody"))


@plant("I4 output of nothing")
def output_of_an_aborted_step_visible(round_: Evidence) -> None:
    one, aborted = round_.events[CREDITS][0], sorted(round_.fed.aborted)[0]
    event_id = model.event_id(DEBIT, aborted, 0)
    add_event(round_, one._replace(place=one.place._replace(offset=9_999), id=event_id, causation=aborted))


@plant("I4 output differs")
def output_garbled(round_: Evidence) -> None:
    one = round_.events[REFUNDS][0]
    assert one.value is not None
    round_.events[REFUNDS][0] = one._replace(value={**one.value, "amount_cents": 1})


@plant("I4 seen then gone")
def reader_saw_what_was_aborted(round_: Evidence) -> None:
    round_.seen.append((Place("bank.decisions", 0, 9_998), "x"))


@plant("I4 never seen")
def reader_missed_some(round_: Evidence) -> None:
    del round_.seen[20:24]


@plant("I4 seen twice")
def reader_saw_an_offset_twice(round_: Evidence) -> None:
    round_.seen.append(round_.seen[3])


# -- zombies, healing --------------------------------------------------------------------------------------------------


@plant("I5 zombie commit")
def zombie_commits_its_old_burst(round_: Evidence) -> None:
    (zombie,) = round_.zombies
    places = [one for one in round_.commits if one.group == group(zombie.agent)]
    last = max((one for one in places if one.at_ms < zombie.back_ms), key=lambda one: one.at_ms)
    partition = last.partition if last.partition in zombie.partitions else zombie.partitions[0]
    round_.commits.append(last._replace(owner=zombie.owner, partition=partition, at_ms=zombie.thawed_ms + 1))


@plant("I5 offset went back")
def offset_went_back(round_: Evidence) -> None:
    last = max(round_.commits, key=lambda one: one.offset)
    round_.commits.append(Commit(last.group, last.topic, last.partition, 1, "", last.owner, last.at_ms + 1))


@plant("I6 lag")
def offsets_stopped_at_a_marker(round_: Evidence) -> None:
    round_.committed[group(DEBIT), TRANSFERS, 1] = 10


@plant("I6 lag")
def offsets_never_committed(round_: Evidence) -> None:
    round_.committed.clear()


@plant("I6 no progress")
def partition_stalled_after_the_last_fault(round_: Evidence) -> None:
    round_.healed[TRANSFERS, 1] = round_.healed[REFUNDS, 1] = 99_999


@plant("I6 no progress")
def nobody_looked_after_the_last_fault(round_: Evidence) -> None:
    round_.healed.clear()


# -- lineage -----------------------------------------------------------------------------------------------------------


@plant("I7 wrong id")
def id_by_chance(round_: Evidence) -> None:
    one = lane(round_, DEBIT)[1]
    swap(round_, one, one._replace(emits=((one.emits[0][0], "d" * 32),)))


@plant("I7 wrong id")
def decision_names_another_event(round_: Evidence) -> None:
    one = lane(round_, CREDIT)[1]
    swap(round_, one, one._replace(event_id="a" * 32))


@plant("I7 broken chain")
def correlation_lost(round_: Evidence) -> None:
    one = round_.events[NOTICES][4]
    round_.events[NOTICES][4] = one._replace(correlation=one.id)


@plant("I7 broken chain")
def cause_is_another_event(round_: Evidence) -> None:
    one, other = round_.events[OUTCOMES][4], round_.events[OUTCOMES][9]
    round_.events[OUTCOMES][4] = one._replace(causation=other.causation)


@plant("I7 broken chain")
def decision_forgot_its_root(round_: Evidence) -> None:
    one = lane(round_, CREDIT)[1]
    swap(round_, one, one._replace(correlation=one.event_id))


# -- rounds that prove nothing -----------------------------------------------------------------------------------------


@plant("idle")
def idle_round(round_: Evidence) -> None:
    fresh = Evidence(
        Fed(), {topic: [] for topic in round_.events}, {table: [] for table in round_.changes}, [], [], {}, [], [], [],
        [], [], [], {}, {}, {},
    )  # fmt: skip
    round_.__dict__.update(fresh.__dict__)


@plant("idle")
def nothing_was_ever_refunded(round_: Evidence) -> None:
    round_.events[OUTCOMES] = [one for one in round_.events[OUTCOMES] if (one.value or {})["status"] != "refunded"]


@plant("idle")
def snapshots_saw_nothing(round_: Evidence) -> None:
    round_.snapshots = round_.snapshots[-1:]


@plant("I8 not fired")
def fault_never_fired(round_: Evidence) -> None:
    round_.fired = {"zombie": 1}


@plant("I8 not fired")
def no_fault_was_planned(round_: Evidence) -> None:
    round_.planned = round_.fired = {}


@plant("I8 not fired")
def poison_was_never_fed(round_: Evidence) -> None:
    round_.fed = replace(round_.fed, poison={})


@plant("I8 not fired")
def nobody_took_over_from_the_zombie(round_: Evidence) -> None:
    (zombie,) = round_.zombies
    round_.commits = [one._replace(owner=zombie.owner) for one in round_.commits]


@plant("worker ended")
def worker_crashed_by_itself(round_: Evidence) -> None:
    round_.ended = ["debit-1 ended with 1"]


# -- ledger ------------------------------------------------------------------------------------------------------------


@plant("ledger asked again")
def question_repeated_without_a_fault(round_: Evidence) -> None:
    first = round_.calls[3]
    round_.calls.append(Call(9_999, first.at_ms + 1, first.account, first.key))


@plant("ledger asked for nothing")
def question_with_a_new_key(round_: Evidence) -> None:
    round_.calls.append(Call(9_999, 1, "account-001", "made-up"))


@plant("ledger not asked")
def paid_without_asking(round_: Evidence) -> None:
    key = round_.calls[3].key
    round_.calls = [call for call in round_.calls if call.key != key]


@cache
def small_round() -> Evidence:
    """The round into which faults are planted; right as it is."""
    round_ = right_round(1, transactions=15)
    assert judge(round_).report.ok
    return round_


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_right_round_is_right(seed: int) -> None:
    judgement = judge(right_round(seed))
    assert judgement.report.ok, str(judgement.report)
    assert judgement.state_hash == judge(right_round(seed)).state_hash


@pytest.mark.parametrize("name", sorted(PLANTS))
def test_each_planted_fault_is_found(name: str) -> None:
    function, kind = PLANTS[name]
    round_ = deepcopy(small_round())
    function(round_)
    report = judge(round_).report
    assert report.found(kind) > 0, f"{name}: {report}"


def test_every_kind_of_finding_has_a_plant() -> None:
    """A check that nobody has seen failing is none; and there are at least twenty plants."""
    source = inspect.getsource(invariants)
    kinds = set(re.findall(r'findings\.add\(\s*"([^"]+)"', source)) | set(re.findall(r'kind = "([^"]+)" if', source))
    kinds |= set(re.findall(r'else "(I\d[^"]+)"', source))
    assert kinds == {kind for _, kind in PLANTS.values()}
    assert len(PLANTS) >= 20
