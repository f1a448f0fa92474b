"""The invariants I1 to I8 of the bank, judged by independent evidence (docs/reliability.md explains each).

Kinds of findings begin with their invariant. Nothing is sampled: every input, decision, event, row, dead letter and
offset commit of a round is looked at.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from choreo.testing.checkers import Findings, Report
from tests.chaos.bank import model
from tests.chaos.bank.evidence import (
    AGENTS,
    CREDIT,
    CREDITS,
    DEBIT,
    NOTICES,
    OUTCOMES,
    READS,
    REFUNDS,
    TABLES,
    TRANSFERS,
    Change,
    Decision,
    Event,
    Evidence,
    Place,
    Value,
    Zombie,
    group,
)
from tests.chaos.bank.feed import ACCOUNTS

TOTAL_CENTS: Final = ACCOUNTS * model.OPENING_CENTS

Lane = tuple[str, int, str]  # agent, partition, entity


@dataclass
class Replay:
    """What the model makes of a round's inputs in the order in which they were decided."""

    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # (agent, entity) → row at the end
    histories: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)  # → row after each step
    made: dict[str, tuple[model.Made, Event, str]] = field(default_factory=dict)  # event id → event, its cause, agent
    order: list[str] = field(default_factory=list)  # ids of made events, lane by lane
    step_of: dict[tuple[str, str, str], int] = field(default_factory=dict)  # (agent, entity, event id) → how many steps


@dataclass(frozen=True)
class Judgement:
    """A round's report, and the state that it ended in."""

    report: Report
    state_hash: str


def judge(evidence: Evidence) -> Judgement:
    """Everything that is wrong with a round."""
    findings = Findings()
    _life(evidence, findings)
    _inputs(evidence, findings)
    _decided_once(evidence, findings)
    _transfers_end_once(evidence, findings)
    _dead_letters(evidence, findings)
    lanes = _lanes(evidence, findings)
    replay = _replay(evidence, lanes, findings)
    folded = _tables(evidence, replay, findings)
    _money(evidence, folded, lanes, findings)
    _outputs(evidence, replay, findings)
    _readers(evidence, findings)
    _commits(evidence, findings)
    _healing(evidence, findings)
    _ledger(evidence, findings)
    _faults(evidence, findings)
    report = Report(
        inputs=len(evidence.events[TRANSFERS]),
        outputs=sum(len(evidence.events[topic]) for topic in (CREDITS, REFUNDS, OUTCOMES, NOTICES)),
        keys=ACCOUNTS,
        dead_letters=len(evidence.letters),
        faults=dict(evidence.fired),
        problems=findings.problems(),
    )
    return Judgement(report, model.state_hash(folded))


def _life(evidence: Evidence, findings: Findings) -> None:
    """A round without work, or in which every step failed, proves nothing."""
    if not evidence.events[TRANSFERS]:
        findings.add("idle", "no transfer was asked for")
    statuses = Counter(str(event.value["status"]) for event in evidence.events[OUTCOMES] if event.value is not None)
    for status in ("completed", "refused", "refunded"):
        if not statuses[status]:
            findings.add("idle", f"no transfer was {status}")
    if not any(decision.outcome == "done" for decision in evidence.decisions):
        findings.add("idle", "no step succeeded")
    for worker in evidence.ended:
        findings.add("worker ended", worker)


def _inputs(evidence: Evidence, findings: Findings) -> None:
    """Feeder and reader agree about what was committed; neither is believed alone."""
    read = {event.place: event.id for event in evidence.events[TRANSFERS]}
    for place, event_id in evidence.fed.committed.items():
        if read.get(place) != event_id:
            findings.add("input differs", f"{place}: fed {event_id}, read {read.get(place)}")
    for place, event_id in read.items():
        if place not in evidence.fed.committed:
            what = "was aborted" if event_id in evidence.fed.aborted else "was never fed"
            findings.add("input differs", f"{place}: read {event_id}, which {what}")


# -- I1 ----------------------------------------------------------------------------------------------------------------


def _decided_once(evidence: Evidence, findings: Findings) -> None:
    """Each event that an agent reads has one decision of that agent; no decision is about anything else."""
    answers = Counter((decision.agent, decision.input) for decision in evidence.decisions)
    known = {
        (agent, event.place): event for agent in AGENTS for topic in READS[agent] for event in evidence.events[topic]
    }
    for (agent, place), event in known.items():
        times = answers[agent, place]
        if times == 0:
            findings.add("I1 lost", f"{agent} never decided {event.id} at {place}")
        elif times > 1:
            findings.add("I1 decided twice", f"{agent} decided {event.id} at {place} {times} times")
    for decision in evidence.decisions:
        decided = known.get((decision.agent, decision.input))
        if decided is None:
            aborted = decision.event_id in evidence.fed.aborted
            kind = "I1 aborted visible" if aborted else "I1 decided nothing"
            findings.add(kind, f"{decision.agent} decided {decision.event_id} at {decision.input}")
        elif decided.id and decided.id != decision.event_id:
            findings.add("I7 wrong id", f"decision of {decided.place} says {decision.event_id}, it is {decided.id}")


def _transfers_end_once(evidence: Evidence, findings: Findings) -> None:
    """By transfer id, whatever happened in between: one outcome for each good transfer, none for poison."""
    ends = Counter(str(event.value["transfer_id"]) for event in evidence.events[OUTCOMES] if event.value is not None)
    wanted = {
        str(event.value["transfer_id"])
        for event in evidence.events[TRANSFERS]
        if event.value is not None and event.id not in evidence.fed.poison
    }
    for transfer in wanted - ends.keys():
        findings.add("I1 transfer without end", transfer)
    for transfer, times in ends.items():
        if times > 1:
            findings.add("I1 transfer ended twice", f"{transfer} × {times}")
        if transfer not in wanted:
            findings.add("I1 transfer of nobody", transfer)


def _dead_letters(evidence: Evidence, findings: Findings) -> None:
    """Each poisoned event is one dead letter with its code and bytes, and nothing else is one."""
    letters = Counter(letter.event_id for letter in evidence.letters)
    at = {event.place: event for event in evidence.events[TRANSFERS]}
    poisoned = {event.id for event in at.values() if event.id in evidence.fed.poison}
    for event_id in sorted(poisoned):
        if letters[event_id] == 0:
            findings.add("I1 no dead letter", f"{event_id}: {evidence.fed.poison[event_id].cause}")
        elif letters[event_id] > 1:
            findings.add("I1 dead twice", f"{event_id} × {letters[event_id]}")
    for letter in evidence.letters:
        poison, event = evidence.fed.poison.get(letter.event_id), at.get(letter.input)
        if poison is None or event is None:
            findings.add("I1 dead letter", f"{letter.agent} gave up {letter.event_id}: {letter.code}")
        elif (letter.code, letter.key, letter.value) != (poison.code, event.raw_key, event.raw_value):
            findings.add("I1 garbled letter", f"{letter.event_id} ({poison.cause}): {letter.code}, want {poison.code}")


# -- order, model, tables ----------------------------------------------------------------------------------------------


def _lanes(evidence: Evidence, findings: Findings) -> dict[Lane, list[Decision]]:
    """Decisions of each entity in their order: numbered without gap, each topic's events in the order of offsets."""
    lanes: dict[Lane, list[Decision]] = defaultdict(list)
    for decision in evidence.decisions:
        if decision.sequence:  # 0: the entity is unknown, the event a dead letter
            lanes[decision.agent, decision.input.partition, decision.entity].append(decision)
    for (agent, partition, entity), decisions in lanes.items():
        decisions.sort(key=lambda decision: decision.sequence)
        numbers = [decision.sequence for decision in decisions]
        if numbers != list(range(1, len(numbers) + 1)):
            findings.add("I4 numbering", f"{agent} {entity} on {partition}: {numbers[:20]}")
        highest: dict[str, int] = {}
        for decision in decisions:
            place = decision.input
            if place.offset <= highest.get(place.topic, -1):
                findings.add("I4 disorder", f"{agent} decided {place} after offset {highest[place.topic]}")
            highest[place.topic] = max(place.offset, highest.get(place.topic, -1))
    homes: dict[tuple[str, str], set[int]] = defaultdict(set)
    for agent, partition, entity in lanes:
        if any(decision.outcome == "done" for decision in lanes[agent, partition, entity]):
            homes[agent, entity].add(partition)
    for (agent, entity), partitions in homes.items():
        if len(partitions) > 1:
            findings.add("I4 misplaced", f"{agent} handled {entity} on partitions {sorted(partitions)}")
    return lanes


def _replay(evidence: Evidence, lanes: Mapping[Lane, list[Decision]], findings: Findings) -> Replay:
    """Runs the model over every lane; compares each decision with it as it goes."""
    replay = Replay()
    events = {event.place: event for topic in evidence.events for event in evidence.events[topic]}
    for (agent, _, entity), decisions in lanes.items():
        row: dict[str, Any] | None = replay.rows.get((agent, entity))
        done: set[str] = set()
        for decision in decisions:
            event = events.get(decision.input)
            if event is None:
                continue  # found already: a decision of nothing
            expected = "done"
            if event.id in evidence.fed.poison:
                expected = "dead_letter"
            elif event.id in done:
                expected = "duplicate"
            if decision.outcome != expected:
                findings.add("I4 outcome", f"{agent} {event.id} at {event.place}: {decision.outcome}, not {expected}")
            if expected != "done" or event.value is None:
                if decision.emits or decision.changed:
                    findings.add("I4 outcome", f"{agent} {event.id}: a {decision.outcome} that changed something")
                continue
            done.add(event.id)
            before = row
            row, made = model.step(agent, event.place.topic, event.value, row or model.fresh(agent, entity))
            _compare(decision, event, before, row, made, findings)
            replay.rows[agent, entity] = row
            history = replay.histories.setdefault((agent, entity), [])
            history.append(row)
            replay.step_of[agent, entity, event.id] = len(history)
            for number, one in enumerate(made):
                event_id = model.event_id(agent, event.id, number)
                replay.made[event_id] = (one, event, agent)
                replay.order.append(event_id)
    return replay


def _compare(
    decision: Decision,
    event: Event,
    before: Value | None,
    after: Value,
    made: list[model.Made],
    findings: Findings,
) -> None:
    """One decision with the model's: rows as the worker held them before and after, emitted ids, the chain."""
    what = f"{decision.agent} {decision.entity} {decision.sequence}"
    if decision.before != before:
        findings.add("I3 live row", f"{what}: the worker held {decision.before}, the model {before}")
    if decision.after != after:
        findings.add("I3 live row", f"{what}: the worker made {decision.after}, the model {after}")
    wanted = tuple((one.topic, model.event_id(decision.agent, event.id, number)) for number, one in enumerate(made))
    if decision.emits != wanted:
        findings.add("I7 wrong id", f"{what} emitted {decision.emits}, the model {wanted}")
    chain = (event.correlation, event.causation, event.hop + 1)
    if (decision.correlation, decision.causation, decision.hop) != chain:
        findings.add("I7 broken chain", f"{what}: {(decision.correlation, decision.causation, decision.hop)}, {chain}")


def _tables(evidence: Evidence, replay: Replay, findings: Findings) -> dict[tuple[str, str], Value]:
    """Changelogs: each record is a state that the model went through, in its order; the last is the model's last."""
    folded: dict[tuple[str, str], Value] = {}
    for agent in AGENTS:
        table = TABLES[agent]
        reached: Counter[str] = Counter()
        for change in evidence.changes[table]:
            where = f"{table} {change.key}@{change.partition}/{change.offset}"
            if change.row is None:
                findings.add("I3 row deleted", where)
                folded.pop((agent, change.key), None)
                continue
            folded[agent, change.key] = change.row
            number = replay.step_of.get((agent, change.key, change.cause))
            if number is None:
                findings.add("I3 row of nothing", f"{where} was written by {change.cause}, which no step handled")
            elif replay.histories[agent, change.key][number - 1] != change.row:
                wanted = replay.histories[agent, change.key][number - 1]
                findings.add("I3 wrong row", f"{where}: {dict(change.row)}, the model {wanted}")
            elif number <= reached[change.key]:
                findings.add("I3 row went back", f"{where}: step {number} after step {reached[change.key]}")
            reached[change.key] = max(number or 0, reached[change.key])
    for place in sorted(replay.rows.keys() | folded.keys()):
        if replay.rows.get(place) != folded.get(place):
            findings.add("I3 wrong row", f"{place}: fold {folded.get(place)}, model {replay.rows.get(place)}")
    return folded


# -- I2 ----------------------------------------------------------------------------------------------------------------


def _money(
    evidence: Evidence,
    folded: Mapping[tuple[str, str], Value],
    lanes: Mapping[Lane, list[Decision]],
    findings: Findings,
) -> None:
    """All accounts' money adds up at the end; at every moment before, what is missing is exactly what is in flight."""
    total = TOTAL_CENTS
    for (agent, _), row in folded.items():
        total += _cents(agent, row)
    if total != TOTAL_CENTS:
        findings.add("I2 money", f"all accounts hold {total} cents at the end, {total - TOTAL_CENTS} too many")
    numbers = {
        (decision.agent, decision.entity, decision.event_id): decision.sequence
        for decisions in lanes.values()
        for decision in decisions
        if decision.outcome == "done"
    }
    seen_in_flight = False
    for moment, snapshot in enumerate(evidence.snapshots):
        receiving = _cut(evidence.changes[TABLES[CREDIT]], snapshot.receiving)
        paying = _cut(evidence.changes[TABLES[DEBIT]], snapshot.paying)
        missing = -sum(_cents(DEBIT, row) for row, _ in paying.values())
        missing -= sum(_cents(CREDIT, row) for row, _ in receiving.values())
        flying = _in_flight(evidence, numbers, lanes, paying, receiving)
        seen_in_flight |= bool(flying)
        negative = [transfer for transfer, cents in flying.items() if cents < 0]
        if negative:
            findings.add("I2 money", f"snapshot {moment}: received and never paid: {negative[:3]}")
        if missing != sum(flying.values()):
            findings.add("I2 money", f"snapshot {moment}: {missing} cents missing, {sum(flying.values())} in flight")
    if not seen_in_flight:
        findings.add("idle", f"none of {len(evidence.snapshots)} snapshots saw money in flight")


def _cents(agent: str, row: Value) -> int:
    """What a row adds to the money that there was at the beginning."""
    if agent == DEBIT:
        return int(row["balance_cents"]) - model.OPENING_CENTS
    return int(row["received_cents"]) if agent == CREDIT else 0


def _cut(changes: Iterable[Change], ends: Mapping[int, int]) -> dict[tuple[int, str], tuple[Value, str]]:
    """(partition, key) → row and its cause, as a reader saw the table that had read up to these ends."""
    return {
        (change.partition, change.key): (change.row, change.cause)
        for change in changes
        if change.row is not None and change.offset < ends.get(change.partition, 0)
    }


def _in_flight(
    evidence: Evidence,
    numbers: Mapping[tuple[str, str, str], int],
    lanes: Mapping[Lane, list[Decision]],
    paying: Mapping[tuple[int, str], tuple[Value, str]],
    receiving: Mapping[tuple[int, str], tuple[Value, str]],
) -> dict[str, int]:
    """Transfer → cents that were paid and neither received nor paid back, by the steps behind the rows."""
    events = _events_by_place(evidence)
    flying: Counter[str] = Counter()
    for agent, cut in ((DEBIT, paying), (CREDIT, receiving)):
        for (partition, entity), (_, cause) in cut.items():
            last = numbers.get((agent, entity, cause), 0)
            for decision in lanes.get((agent, partition, entity), [])[:last]:
                event = events.get(decision.input)
                if decision.outcome != "done" or event is None or event.value is None:
                    continue
                topics = {topic for topic, _ in decision.emits}
                transfer, cents = str(event.value["transfer_id"]), int(event.value["amount_cents"])
                if agent == DEBIT and CREDITS in topics:
                    flying[transfer] += cents
                elif (agent == DEBIT and event.place.topic == REFUNDS) or (agent == CREDIT and OUTCOMES in topics):
                    flying[transfer] -= cents
    return {transfer: cents for transfer, cents in flying.items() if cents}


def _events_by_place(evidence: Evidence) -> dict[Place, Event]:
    return {event.place: event for topic in (TRANSFERS, REFUNDS, CREDITS) for event in evidence.events[topic]}


# -- I4, I7 ------------------------------------------------------------------------------------------------------------


def _outputs(evidence: Evidence, replay: Replay, findings: Findings) -> None:
    """Every event on the bank's own topics is one that the model makes, once, with its content, cause and order."""
    times: Counter[str] = Counter()
    at: dict[str, Event] = {}
    homes: dict[tuple[str, str], set[int]] = defaultdict(set)
    for topic in (CREDITS, REFUNDS, OUTCOMES, NOTICES):
        for event in evidence.events[topic]:
            times[event.id] += 1
            at[event.id] = event
            homes[topic, event.key or ""].add(event.place.partition)
            _one_output(event, replay, findings)
    for event_id, (made, cause, agent) in replay.made.items():
        if times[event_id] == 0:
            findings.add("I4 output missing", f"{agent} on {cause.place}: {made.topic} {event_id}")
        elif times[event_id] > 1:
            findings.add("I4 output twice", f"{made.topic} {event_id} × {times[event_id]}")
    for (topic, key), partitions in homes.items():
        if len(partitions) > 1:
            findings.add("I4 misplaced", f"{topic} of {key} lie on partitions {sorted(partitions)}")
    highest: dict[tuple[str, str, str, str], int] = {}
    for event_id in replay.order:  # lane by lane, in the order of its steps
        found = at.get(event_id)
        if found is None:
            continue
        made, cause, agent = replay.made[event_id]
        entity = cause.key or ""
        lane = (agent, entity, made.topic, made.key)
        if found.place.offset < highest.get(lane, -1):
            findings.add("I4 disorder", f"{found.place} of {agent} {entity} stands before what was decided earlier")
        highest[lane] = max(found.place.offset, highest.get(lane, -1))


def _one_output(event: Event, replay: Replay, findings: Findings) -> None:
    expected = replay.made.get(event.id)
    if expected is None:
        findings.add("I4 output of nothing", f"{event.place} {event.id}, said to be caused by {event.causation}")
        return
    made, cause, agent = expected
    if (event.place.topic, event.key, event.value) != (made.topic, made.key, made.value):
        findings.add("I4 output differs", f"{event.place} {event.value}, the model {made}")
    chain = (f"/choreo/bank/{agent}", cause.time, cause.correlation, cause.id, cause.hop + 1)
    said = (event.source, event.time, event.correlation, event.causation, event.hop)
    if said != chain:
        findings.add("I7 broken chain", f"{event.place}: {said}, expected {chain}")


def _readers(evidence: Evidence, findings: Findings) -> None:
    """What a reader at ``read_committed`` saw during the round is what one sees after it."""
    later = {decision.at: decision.event_id for decision in evidence.decisions}
    seen = dict(evidence.seen)
    if len(seen) != len(evidence.seen):
        findings.add("I4 seen twice", f"{len(evidence.seen) - len(seen)} records")
    for place, event_id in seen.items():
        if later.get(place) != event_id:
            findings.add("I4 seen then gone", f"{place}: {event_id}, later {later.get(place)}")
    for place in later.keys() - seen.keys():
        findings.add("I4 never seen", f"{place} was not seen during the round")


# -- I5, I6, I8 --------------------------------------------------------------------------------------------------------


def _commits(evidence: Evidence, findings: Findings) -> None:
    """Offsets never go back; a zombie commits nothing between its awakening and its next assignment."""
    highest: dict[tuple[str, str, int], int] = {}
    for commit in evidence.commits:
        place = (commit.group, commit.topic, commit.partition)
        if commit.offset < highest.get(place, -1):
            findings.add("I5 offset went back", f"{place}: {commit.offset} after {highest[place]} by {commit.owner}")
        highest[place] = max(commit.offset, highest.get(place, -1))
    for zombie in evidence.zombies:
        for commit in evidence.commits:
            if _is_zombies(commit.group, commit.partition, commit.owner, zombie) and (
                zombie.thawed_ms <= commit.at_ms < zombie.back_ms
            ):
                findings.add("I5 zombie commit", f"{zombie.owner} committed {commit.topic}/{commit.partition} as one")
        heirs = {
            commit.owner
            for commit in evidence.commits
            if commit.group == group(zombie.agent)
            and commit.partition in zombie.partitions
            and zombie.frozen_ms < commit.at_ms < zombie.thawed_ms
        }
        if not heirs - {zombie.owner}:
            findings.add("I8 not fired", f"nobody took {zombie.owner}'s partitions over while it was frozen")


def _is_zombies(group_name: str, partition: int, owner: str, zombie: Zombie) -> bool:
    return group_name == group(zombie.agent) and owner == zombie.owner and partition in zombie.partitions


def _healing(evidence: Evidence, findings: Findings) -> None:
    """After the last fault every partition of every agent got on, and nothing is left."""
    last: dict[tuple[str, int], int] = {}
    for topic in (TRANSFERS, CREDITS, REFUNDS, OUTCOMES):
        for event in evidence.events[topic]:
            last[topic, event.place.partition] = event.place.offset
    progress: set[tuple[str, int]] = set()
    for decision in evidence.decisions:
        topic, partition, offset = decision.input
        if decision.outcome == "done" and offset >= evidence.healed.get((topic, partition), 1 << 62):
            progress.add((decision.agent, partition))
    for agent in AGENTS:
        for topic in READS[agent]:
            for (found, partition), offset in last.items():
                done = evidence.committed.get((group(agent), topic, partition), -1)
                if found == topic and done <= offset:
                    findings.add("I6 lag", f"{agent} committed {done} of {topic}/{partition}, whose last is {offset}")
        for partition in {partition for topic, partition in last if topic == READS[agent][0]}:
            if (agent, partition) not in progress:
                findings.add("I6 no progress", f"{agent} did nothing on partition {partition} after the last fault")


def _ledger(evidence: Evidence, findings: Findings) -> None:
    """Every decided transfer was asked about; questions are repeated only where a fault came in between."""
    calls: dict[str, list[int]] = defaultdict(list)
    for call in evidence.calls:
        calls[call.key].append(call.at_ms)
    wanted = {
        event.value["transfer_id"]: event
        for event in evidence.events[TRANSFERS]
        if event.value is not None and event.id not in evidence.fed.poison
    }
    asked_for_poison = {
        event.value["transfer_id"]
        for event in evidence.events[TRANSFERS]
        if event.value is not None and event.id in evidence.fed.poison
    }
    for transfer in wanted.keys() - calls.keys():
        findings.add("ledger not asked", str(transfer))
    for transfer in calls.keys() - wanted.keys() - asked_for_poison:
        findings.add("ledger asked for nothing", transfer)
    spans = [(one.from_ms, one.to_ms) for one in evidence.disturbances if DEBIT in one.agents]
    for transfer, moments in calls.items():
        for first, again in pairwise(moments):
            if not any(start <= again and first <= end for start, end in spans):
                findings.add("ledger asked again", f"{transfer} after {again - first} ms, and no fault in between")


def _faults(evidence: Evidence, findings: Findings) -> None:
    """A fault that did not fire proves nothing, and neither does a round without any."""
    if not any(evidence.planned.values()):
        findings.add("I8 not fired", "no fault was planned")
    for kind, times in evidence.planned.items():
        if evidence.fired.get(kind, 0) < times:
            findings.add("I8 not fired", f"{kind}: {evidence.fired.get(kind, 0)} of {times}")
    kinds = Counter(evidence.fed.kinds.values())
    causes = Counter(poison.cause for poison in evidence.fed.poison.values())
    duplicates = sum(decision.outcome == "duplicate" for decision in evidence.decisions)
    for what, times in (
        ("aborted input", len(evidence.fed.aborted)),
        ("late input", kinds["late"]),
        ("repeated input", duplicates),
        ("poison", len(causes)),
    ):
        if not times:
            findings.add("I8 not fired", what)
