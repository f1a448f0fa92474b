"""The accounting finds every loss and every repetition that is planted, and nothing where there is none."""

from __future__ import annotations

import pytest

from choreo.cli._demo.accounting import Account, Decided, Found, Letter, account

READS = {"watcher": ["facts"], "planner": ["facts", "risks"]}


class World:
    """Ten facts on two partitions, read by two agents; the watcher emits a risk for each, the planner reads it."""

    def __init__(self) -> None:
        self.fed = [f"fact-{number}" for number in range(10)]
        self.records = [
            Found("facts", number % 2, number // 2, event_id, None) for number, event_id in enumerate(self.fed)
        ]
        self.decisions = []
        self.letters: list[Letter] = []
        for number, record in enumerate(list(self.records)):
            place = (record.topic, record.partition, record.offset)
            risk = Found("risks", number % 2, 7 + number // 2, f"risk-{number}", "watcher")
            self.records.append(risk)
            self.decisions += [
                Decided("watcher", "event", "done", place, record.event_id, (("risks", risk.event_id),)),
                Decided("planner", "event", "done", place, record.event_id, ()),
                Decided("planner", "event", "done", (risk.topic, risk.partition, risk.offset), risk.event_id, ()),
            ]
        self.decisions.append(Decided("planner", "timer", "done", None, "timer-1", ()))

    def account(self, **more: object) -> Account:
        return account(self.records, self.decisions, reads=READS, fed=self.fed, letters=self.letters, **more)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


def found(result: Account) -> tuple[int, int, int]:
    return result.lost, result.repeated, result.unknown


def test_a_right_run_has_no_findings(world: World) -> None:
    result = world.account()
    assert result.ok
    assert found(result) == (0, 0, 0)
    assert (result.events, result.records, result.steps, result.decisions_total, result.timers) == (10, 20, 30, 31, 1)


@pytest.mark.parametrize("number", range(30))
def test_each_single_missing_decision_is_a_loss(world: World, number: int) -> None:
    gone = world.decisions.pop(number)
    result = world.account()
    assert not result.ok
    assert result.lost == 1
    # the event that the lost decision emitted is there and explained by nobody
    assert result.unknown == len(gone.emits)


@pytest.mark.parametrize("number", range(31))
def test_each_single_decision_made_twice_is_a_repetition(world: World, number: int) -> None:
    again = world.decisions[number]
    world.decisions.append(again)
    result = world.account()
    assert not result.ok
    assert result.repeated == 1 + len(again.emits)
    assert result.lost == 0


def test_an_input_decided_five_times_is_repeated_four_times(world: World) -> None:
    world.decisions += [world.decisions[1]] * 4
    assert found(world.account()) == (0, 4, 0)


def test_an_emitted_event_that_is_not_there_is_a_loss(world: World) -> None:
    world.records = [record for record in world.records if record.event_id != "risk-3"]
    result = world.account()
    assert result.lost == 1
    assert result.unknown == 1  # the planner's decision about it


def test_an_emitted_event_that_lies_there_twice_is_a_repetition(world: World) -> None:
    world.records.append(Found("risks", 1, 99, "risk-3", "watcher"))
    result = world.account()
    assert result.repeated == 1
    assert result.lost == 1  # nobody decided about the second copy


def test_an_event_of_an_agent_that_no_decision_mentions_is_unknown(world: World) -> None:
    world.records.append(Found("sheets", 0, 0, "sheet-1", "planner"))
    assert found(world.account()) == (0, 0, 1)


def test_a_fed_event_that_never_arrived_is_a_loss(world: World) -> None:
    world.fed.append("fact-10")
    assert found(world.account()) == (1, 0, 0)


def test_a_fed_event_that_arrived_twice_is_a_repetition(world: World) -> None:
    world.records.append(Found("facts", 0, 5, "fact-0", None))
    for agent in READS:
        world.decisions.append(Decided(agent, "event", "done", ("facts", 0, 5), "fact-0", ()))
    assert found(world.account()) == (0, 1, 0)


def test_an_outside_event_that_was_not_fed_is_unknown(world: World) -> None:
    world.fed.remove("fact-4")
    assert found(world.account()) == (0, 0, 1)


def test_a_decision_about_nothing_is_unknown(world: World) -> None:
    world.decisions.append(Decided("planner", "event", "done", ("risks", 0, 1_000), "risk-77", ()))
    assert found(world.account()) == (0, 0, 1)


def test_a_decision_of_an_agent_that_does_not_read_the_topic_is_unknown(world: World) -> None:
    world.decisions.append(Decided("watcher", "event", "done", ("risks", 0, 7), "risk-0", ()))
    assert found(world.account()) == (0, 0, 1)


def test_a_dead_letter_needs_its_decision_and_the_other_way_round(world: World) -> None:
    dead = world.decisions[1]._replace(outcome="dead_letter")
    world.decisions[1] = dead
    assert found(world.account()) == (1, 0, 0)
    world.letters.append(Letter(dead.agent, dead.event_id))
    result = world.account()
    assert result.ok
    assert (result.dead_letters, result.decisions["dead_letter"]) == (1, 1)
    world.letters.append(Letter(dead.agent, dead.event_id))
    assert found(world.account()) == (0, 1, 0)
    world.letters[-1] = Letter("planner", "fact-9")
    assert found(world.account()) == (0, 0, 1)


def test_what_came_up_behind_the_ends_may_wait_but_not_be_decided_twice(world: World) -> None:
    ends = {(topic, number): 100 for topic in ("facts", "risks") for number in (0, 1)}
    last = world.decisions.pop(29)
    assert last.place is not None
    assert world.account(ends=ends).lost == 1
    ends[last.place[:2]] = last.place[2]
    result = world.account(ends=ends)
    assert result.ok
    assert result.open == 1
    world.decisions += [last, last]
    assert found(world.account(ends=ends)) == (0, 1, 0)


def test_an_idle_run_is_no_success() -> None:
    assert not account([], [], reads=READS, fed=[]).ok


def test_totals_are_exact_and_examples_few(world: World) -> None:
    world.decisions = []
    result = world.account()
    assert result.lost == 30
    assert sum(finding.kind == "lost" for finding in result.examples) == 5
