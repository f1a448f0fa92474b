"""A right round without Kafka: the evidence that a bank without faults in it leaves, for tests of the invariants.

The model decides what each step does; chance decides which agent takes its turn. Everything else (offsets with gaps,
dead letters, repetitions, snapshots, a zombie, the ledger) is laid out as a real round lays it out.
"""

from __future__ import annotations

import random
import zlib
from collections import defaultdict, deque
from datetime import UTC, datetime
from typing import Any

from tests.chaos.bank import model
from tests.chaos.bank.collect import DECISIONS_TOPIC, event
from tests.chaos.bank.evidence import (
    AGENTS,
    CREDIT,
    DEBIT,
    NOTIFY,
    READS,
    TABLES,
    TOPICS,
    TRANSFERS,
    Call,
    Change,
    Commit,
    Decision,
    Disturbance,
    Event,
    Evidence,
    Fed,
    Letter,
    Place,
    Snapshot,
    Value,
    Zombie,
    group,
)
from tests.chaos.bank.feed import ACCOUNTS, PARTITIONS, POISONS, SHARES, Wish, Wishes, account
from tests.chaos.reader import Found
from tests.chaos.target import REPOSITORY
from tests.chaos.transactions import Landed
from tests.chaos.wire import Wire

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TURNS_PER_TRANSACTION = 25
FROZEN, THAWED, BACK = 0.4, 0.5, 0.55  # of the round's time


class _Bank:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(f"synthetic {seed}")
        wire = Wire.load(REPOSITORY / "schemas" / "TransferRequested.avsc", 1_000)
        self.wire = wire
        self.wishes = Wishes(wire, seed=seed, name=f"synthetic-{seed}")
        self.fed = Fed()
        self.ends: dict[tuple[str, int], int] = defaultdict(int)
        self.events: dict[str, list[Event]] = {topic: [] for topic in TOPICS}
        self.queues: dict[tuple[str, int], deque[Event]] = defaultdict(deque)
        self.changes: dict[str, list[Change]] = {TABLES[agent]: [] for agent in AGENTS}
        self.decisions: list[Decision] = []
        self.letters: list[Letter] = []
        self.commits: list[Commit] = []
        self.committed: dict[tuple[str, str, int], int] = {}
        self.calls: list[Call] = []
        self.snapshots: list[Snapshot] = []
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.done: set[tuple[str, str]] = set()
        self.sequences: dict[tuple[str, int, str], int] = defaultdict(int)
        self.clock_ms = 1_000_000

    def transaction(self, wishes: list[Wish], *, abort: bool = False) -> None:
        places = []
        for wish in wishes:
            partition = wish.draft.partition
            if partition < 0:
                partition = zlib.crc32(wish.draft.key or b"") % PARTITIONS
            offset = self._next(TRANSFERS, partition)
            places.append(Landed(partition, offset))
            if abort:
                self.fed.aborted.add(wish.id)
                continue
            draft = wish.draft
            found = Found(TRANSFERS, partition, offset, draft.key, draft.value, dict(draft.headers))
            self._arrive(event(found, self.wire))
            self.fed.committed[Place(TRANSFERS, partition, offset)] = wish.id
            self.fed.kinds.setdefault(wish.id, wish.kind)
            if wish.poison is not None:
                self.fed.poison[wish.id] = wish.poison
        for partition in {place.partition for place in places}:
            self._next(TRANSFERS, partition)  # the marker
        if not abort:
            self.wishes.landed(wishes, places)

    def _next(self, topic: str, partition: int) -> int:
        self.ends[topic, partition] += 1
        return self.ends[topic, partition] - 1

    def _arrive(self, one: Event) -> None:
        self.events[one.place.topic].append(one)
        self.queues[one.place.topic, one.place.partition].append(one)

    def turn(self) -> bool:
        """One step of one agent; False if there was nothing to do."""
        self.clock_ms += 10
        able = [
            (agent, place)
            for agent in AGENTS
            for place, queue in self.queues.items()
            if queue and place[0] in READS[agent]
        ]
        if not able:
            return False
        agent, (topic, partition) = self.chance.choice(sorted(able))
        self._step(agent, self.queues[topic, partition].popleft())
        if self.chance.random() < 0.02:
            self.snapshot()
        return True

    def snapshot(self) -> None:
        def ends(agent: str) -> dict[int, int]:
            return {number: self.ends[TABLES[agent], number] for number in range(PARTITIONS)}

        self.snapshots.append(Snapshot(ends(CREDIT), ends(DEBIT)))

    def _step(self, agent: str, one: Event) -> None:
        entity = one.key or ""
        lane = (agent, one.place.partition, entity)
        if one.key is not None:
            self.sequences[lane] += 1
        before: Value | None = self.rows.get((agent, entity))
        after: Value | None = None
        made: list[model.Made] = []
        outcome = "done"
        poison = self.fed.poison.get(one.id)
        asks = one.place.topic == TRANSFERS and poison is None and (agent, one.id) not in self.done
        if asks and one.value is not None:
            self.calls.append(Call(len(self.calls) + 1, self.clock_ms, entity, str(one.value["transfer_id"])))
        if poison is not None:
            outcome = "dead_letter"
            self.letters.append(Letter(agent, one.id, poison.code, one.place, one.raw_key, one.raw_value))
        elif (agent, one.id) in self.done:
            outcome = "duplicate"
        else:
            assert one.value is not None
            self.done.add((agent, one.id))
            after, made = model.step(agent, one.place.topic, one.value, before or model.fresh(agent, entity))
            self.rows[agent, entity] = dict(after)
            table, partition = TABLES[agent], one.place.partition
            self.changes[table].append(Change(table, partition, self._next(table, partition), entity, after, one.id))
        emits = []
        for number, out in enumerate(made):
            event_id = model.event_id(agent, one.id, number)
            emits.append((out.topic, event_id))
            partition = zlib.crc32(out.key.encode()) % PARTITIONS
            place = Place(out.topic, partition, self._next(out.topic, partition))
            source = f"/choreo/bank/{agent}"
            chain = (source, one.time, one.correlation, one.id, one.hop + 1)
            self._arrive(Event(place, out.key, out.value, out.key.encode(), None, event_id, *chain))
        at = Place(DECISIONS_TOPIC, one.place.partition, self._next(DECISIONS_TOPIC, one.place.partition))
        changed = outcome == "done"
        self.decisions.append(
            Decision(
                at,
                agent,
                entity,
                self.sequences[lane] if one.key is not None else 0,
                outcome,
                one.id,
                one.place,
                one.correlation,
                one.causation,
                one.hop + 1,
                tuple(emits),
                before if changed else None,
                after,
                changed,
                poison.code if poison is not None else None,
            )
        )
        name, topic, number = group(agent), one.place.topic, one.place.partition
        owner = f"{name}.{agent}-{number % 2 + 1}"
        self.commits.append(Commit(name, topic, number, one.place.offset + 1, "", owner, self.clock_ms))
        self.committed[name, topic, number] = one.place.offset + 1


def right_round(seed: int, transactions: int = 60) -> Evidence:
    """Evidence in which nothing is wrong."""
    bank = _Bank(seed)
    kinds = [kind for kind, _ in SHARES if kind != "poison"] + ["poison"] * len(POISONS)
    bank.transaction([bank.wishes.one(NOW, "plain", account(number)) for number in range(ACCOUNTS)])
    bank.transaction([bank.wishes.one(NOW, "plain") for _ in range(5)], abort=True)
    bank.transaction([bank.wishes.one(NOW, kind) for kind in kinds])
    for _ in range(transactions):
        bank.transaction(bank.wishes.transaction(NOW), abort=bank.wishes.aborts())
        for _ in range(bank.chance.randrange(TURNS_PER_TRANSACTION)):
            bank.turn()
    healed = {(topic, number): bank.ends[topic, number] for topic in TOPICS for number in range(PARTITIONS)}
    bank.transaction([bank.wishes.one(NOW, "plain", account(number)) for number in range(ACCOUNTS)])
    while bank.turn():
        pass
    bank.snapshot()
    return _with_zombie(bank, healed)


def _with_zombie(bank: _Bank, healed: dict[tuple[str, int], int]) -> Evidence:
    """One worker of notify was frozen for a while; the other one had its partitions meanwhile."""
    victim, heir = f"{group(NOTIFY)}.notify-1", f"{group(NOTIFY)}.notify-2"
    own = [commit for commit in bank.commits if commit.owner == victim]
    span = own[-1].at_ms - own[0].at_ms
    frozen, thawed, back = (own[0].at_ms + round(span * share) for share in (FROZEN, THAWED, BACK))
    commits = [
        commit._replace(owner=heir) if commit.owner == victim and frozen <= commit.at_ms < back else commit
        for commit in bank.commits
    ]
    partitions = tuple(sorted({commit.partition for commit in own}))
    for topic in bank.events:
        bank.events[topic].sort(key=lambda one: one.place)
    for table in bank.changes:
        bank.changes[table].sort(key=lambda one: (one.partition, one.offset))
    asked = bank.calls[len(bank.calls) // 2]
    again = asked._replace(number=len(bank.calls) + 1, at_ms=asked.at_ms + 3_000)
    return Evidence(
        fed=bank.fed,
        events=bank.events,
        changes=bank.changes,
        decisions=sorted(bank.decisions, key=lambda one: one.at),
        letters=bank.letters,
        committed=bank.committed,
        commits=commits,
        snapshots=bank.snapshots,
        zombies=[Zombie(victim, NOTIFY, partitions, frozen, thawed, back)],
        calls=[*bank.calls, again],
        disturbances=[Disturbance("kill -9", (DEBIT,), asked.at_ms + 5, asked.at_ms + 500)],
        seen=[(one.at, one.event_id) for one in bank.decisions],
        healed=healed,
        planned={"kill -9": 30, "zombie": 1},
        fired={"kill -9": 30, "zombie": 1},
    )
