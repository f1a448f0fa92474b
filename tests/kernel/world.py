"""Simulated worlds: workers with real engines on a cluster in memory, under faults, from one seed.

    python -m tests.kernel.world --seed 17          # replays one world and tells what happened
    python -m tests.kernel.world --seeds 0-20000    # many of them

Theory of operation. A worker's thread is a generator that does what ``choreo/runtime/session.py`` does and yields
wherever a crash, a pause or another worker may come in between; its restore is a second one, after
``choreo/runtime/restore.py``. A seeded scheduler resumes one of them at a time and plants faults; then it heals the
world and lets everything come to rest. What the log then says is compared with what the promises say. There are no
threads and no clocks: a seed is a schedule.

The cluster has what the promises lean on: transactions whose markers take offsets, read_committed, fencing, unstable
offsets, generations, static members. It has no compaction and no retention; ``kernel/restore.py`` has tests of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from choreo.kernel.engine import Engine, EngineConfig, Refusals
from choreo.kernel.envelope import parse_headers, rfc3339
from choreo.kernel.partitioner import murmur2_partition
from choreo.kernel.progress import Snapshot
from choreo.kernel.values import InputTopic, OutRecord, ParkedRow, Settlement
from choreo.testing.bus import MemoryBus, MemoryProducer
from tests.kernel.checks import CLOCK_JUMP_MS, EVENT_STEP_MS, Broken, Checks
from tests.kernel.cluster import Group
from tests.kernel.fakes import CHANGELOG, DEAD, DECISIONS, FACTS, OUT, TABLE, FakeRunner, Script
from tests.kernel.worker import JOURNAL, PARKED, RECORDS, TIMERS, State, Worker

INBOX: Final = "inbox"
WALL_START_MS: Final = 1_700_000_000_000
EVENT_START_MS: Final = WALL_START_MS - 1_000 * EVENT_STEP_MS
"""Before the wall clock: an event time may not lead its Kafka timestamp by much."""
HEAL_ROUNDS_MAX: Final = 4_000


@dataclass(frozen=True)
class Plan:
    """What a seed decides beforehand."""

    partitions: int
    workers: int
    inputs: tuple[InputTopic, ...]
    entities: int
    events: int
    in_flight: int
    retries: int
    steps: int
    fault_rate: float
    faults: tuple[str, ...]
    words: tuple[str, ...]
    single_topic: bool
    ordered_times: bool


FAULTS: Final = ("crash", "start", "start", "pause", "stall", "expire", "twin", "clock", "timeout", "leave")
STALLS: Final = ("stall", "stall", "stall", "start", "crash")
"""A worker stops within a transaction and goes on when others have taken over: the schedules that are hardest to get
right are rare unless asked for."""


def plan_of(chance: random.Random, *, stalls: bool) -> Plan:
    stalls = stalls or chance.random() < 0.2
    topics = 1 if chance.random() < 0.6 else 2
    dedupe_ms = None if chance.random() < 0.5 else 10**12
    words = ["", "", "call", "call call", "timer", "timer call", "cancel"]
    for more in (["flaky", "flaky call"], ["tired", "broken"], ["park", "park call"], ["big", "forget", "call flaky"]):
        words += more if chance.random() < 0.5 else []
    if chance.random() < 0.1:
        words.append("rejected")
    return Plan(
        partitions=chance.randint(1, 4),
        workers=3 if stalls else chance.randint(1, 3),
        inputs=(
            *(InputTopic(f"in-{number}", dedupe_ms, "c", f"t{number}") for number in range(topics)),
            InputTopic(INBOX, None, "c", "ti", inbox=True),
        ),
        entities=chance.choice((1, 3, 8)),
        events=chance.randint(10, 60),
        in_flight=chance.choice((1, 2, 100)),
        retries=chance.randint(0, 2),
        steps=chance.randint(100, 400),
        fault_rate=0.15 if stalls else chance.choice((0.0, 0.03, 0.08, 0.15)),
        faults=STALLS if stalls else FAULTS,
        words=tuple(words),
        single_topic=topics == 1,
        ordered_times=chance.random() < 0.5,
    )


class World:
    """Everything there is, from one seed."""

    def __init__(
        self, seed: int, *, mutant: str = "", stalls: bool = False, told: Callable[[str], None] | None = None
    ) -> None:
        self.seed = seed
        self.mutant = mutant
        self.chance = random.Random(seed)
        self.plan = plan = plan_of(self.chance, stalls=stalls)
        self.input_names = [topic.name for topic in plan.inputs]
        self.bus = MemoryBus()
        aligned = (*self.input_names, CHANGELOG, JOURNAL, TIMERS, PARKED)
        for name in aligned:
            self.bus.create_topic(name, plan.partitions)
        for name in (OUT, DEAD, DECISIONS):
            self.bus.create_topic(name, 1)
        self.group = Group(self.bus, plan.partitions, self.chance)
        self.script = Script(timer_after_ms=2 * EVENT_STEP_MS + EVENT_STEP_MS // 2)
        self.now_ms = WALL_START_MS
        self.workers: dict[str, Worker] = {}
        self.zombies: list[Worker] = []
        self.faults: Counter[str] = Counter()
        self.answers = 0.3
        self.repeats_callbacks = self.chance.random() < 0.3
        self.redrives: Counter[tuple[str, int, int]] = Counter()
        self.healed = False
        self._left = plan.events
        self._jumps = 2
        self._feeder: MemoryProducer | None = None
        self._told = told
        self._ids = 0

    def note(self, what: str, whom: object = "") -> None:
        self.faults[what] += 1
        if self._told is not None:
            self._told(f"{self.now_ms - WALL_START_MS:>9} ms  {what} {whom}")

    def make_engine(self, owner: str, refusals: Refusals) -> Engine:
        plan = self.plan
        config = EngineConfig(
            inputs=plan.inputs,
            partitions=plan.partitions,
            owner=owner,
            facts=FACTS,
            changelogs={TABLE: CHANGELOG},
            parse=parse_headers,
            partition_of=murmur2_partition,
            settlement=RECORDS.settlement,
            references=lambda table, key: None,
            in_flight=plan.in_flight,
            retries=plan.retries,
            retry_backoff_ms=50,
        )
        return Engine(config, FakeRunner(self.script), refusals)

    # -- the run ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Raises ``Broken`` (or whatever an engine raises) if a promise is not kept."""
        for number in range(self.plan.workers):
            self._start(f"w{number}")
        for _ in range(self.plan.steps):
            self.now_ms += self.chance.choice((0, 1, 10))
            if self.chance.random() < 0.3:
                self._feed()
            if self.chance.random() < self.plan.fault_rate:
                self._fault()
            for worker in self.workers.values():
                if worker.paused and self.chance.random() < 0.03:
                    worker.paused = False
                    self.note("continue", worker.instance)
            threads = [
                (worker, thread)
                for worker in (*self.workers.values(), *self.zombies)
                if not worker.paused
                for thread in worker.threads()
            ]
            if threads:
                worker, thread = self.chance.choice(threads)
                worker.resume(thread)
                if not worker.in_callback and hasattr(worker, "member") and self.chance.random() < 0.2:
                    self.group.heartbeat(worker.member)
        self._heal()
        Checks(self).all()

    def ended(self, worker: Worker) -> None:
        """A process exited by itself."""
        if self.workers.get(worker.instance) is worker:
            del self.workers[worker.instance]
        else:
            self.zombies.remove(worker)

    def _start(self, instance: str) -> None:
        self.workers[instance] = Worker(self, instance)

    def _fault(self) -> None:
        kind = self.chance.choice(self.plan.faults)
        alive = list(self.workers.values())
        absent = [f"w{number}" for number in range(self.plan.workers) if f"w{number}" not in self.workers]
        if kind == "crash" and alive:
            worker = self.chance.choice(alive)
            worker.main.close()
            del self.workers[worker.instance]
            self.note("crash", worker.instance)
        elif kind == "start" and absent:
            instance = self.chance.choice(absent)
            self._start(instance)
            self.note("start", instance)
        elif kind == "pause" and alive:
            worker = self.chance.choice(alive)
            worker.paused = True
            self.note("pause", worker.instance)
        elif kind == "expire":
            away = [*absent, *(worker.instance for worker in alive if worker.paused)]
            if away:
                instance = self.chance.choice(away)
                self.group.expire(instance)
                self.note("session expired", instance)
        elif kind == "twin" and alive:
            worker = self.chance.choice(alive)
            self.zombies.append(worker)
            self._start(worker.instance)
            self.note("started twice", worker.instance)
        elif kind == "stall":
            committing = [worker for worker in alive if worker.in_transaction and not worker.paused]
            if committing:
                worker = self.chance.choice(committing)
                worker.paused = True
                self.group.expire(worker.instance)
                self.note("stopped within a transaction past its session", worker.instance)
        elif kind == "leave" and len(alive) > 1:
            worker = self.chance.choice(alive)
            worker.main.close()
            del self.workers[worker.instance]
            self.group.expire(worker.instance)
            self.note("crash and session expired", worker.instance)
        elif kind == "clock" and self._jumps:
            self._jumps -= 1
            self.now_ms += self.chance.choice((-1, 1)) * CLOCK_JUMP_MS
            self.note("clock jumps")
        elif kind == "timeout" and absent:
            self.bus.producer(f"choreo.{self.chance.choice(absent)}")
            self.note("transaction timed out")

    def commit_fault(self) -> str:
        if self.healed or self.chance.random() > self.plan.fault_rate:
            return ""
        return self.chance.choice(("aborted", "unknown, not committed", "unknown, committed"))

    def seek(self, offset: int) -> int:
        """Where the consumer goes on after a seek: what was fetched before may still come out first."""
        return self.chance.choice((offset, offset, 0))

    # -- input -----------------------------------------------------------------------------------------------------

    def _feed(self) -> None:
        chance = self.chance
        if self._left <= 0:
            return
        transactional = chance.random() < 0.5
        producer = None
        if transactional:
            producer = self.bus.producer("feeder")
            producer.begin()
        aborted = transactional and chance.random() < 0.3
        for _ in range(chance.randint(1, 4)):
            record = self._input()
            if producer is None:
                self.bus.send(record, self.now_ms)
            else:
                producer.send(record, self.now_ms)
            if not aborted:
                self._left -= 1
        if producer is not None:
            if aborted:
                producer.abort()
            else:
                producer.commit()

    def _input(self) -> OutRecord:
        chance, plan = self.chance, self.plan
        topic = chance.choice(plan.inputs[:-1])
        entity = f"e{chance.randrange(plan.entities)}"
        key: bytes | None = entity.encode()
        partition = murmur2_partition(entity.encode(), plan.partitions)
        unusable = chance.random()
        if unusable < 0.02:
            key = None
        elif unusable < 0.04:
            key = b"\xff\xfe"
        elif unusable < 0.06:
            partition = (partition + 1) % plan.partitions
        self._ids += 1
        number = self._ids
        if topic.dedupe_ms is not None and chance.random() < 0.15:
            number = max(1, number - chance.randint(1, 3))  # sent again
        event_id = f"{topic.name}-{entity}-{number}"
        late = 0 if plan.ordered_times else chance.choice((0, 0, 3, -3))
        time_ms = EVENT_START_MS + (self._ids + late) * EVENT_STEP_MS
        value = chance.choice(plan.words).encode()
        headers = (("ce_id", event_id.encode()), ("ce_time", rfc3339(time_ms).encode()))
        return OutRecord(topic.name, partition, key, value, headers)

    # -- people ----------------------------------------------------------------------------------------------------

    def settle(self, settlement: Settlement) -> None:
        partition = murmur2_partition(settlement.entity.encode(), self.plan.partitions)
        value = RECORDS.encode_settlement(settlement)
        self.bus.send(OutRecord(INBOX, partition, settlement.entity.encode(), value, ()), self.now_ms)
        self.note(settlement.kind, settlement.entity)

    def parked_rows(self) -> list[ParkedRow]:
        rows: list[ParkedRow] = []
        for number in range(self.plan.partitions):
            state = State()
            for one in self.bus.read(PARKED, number, 0)[0]:
                state.take(PARKED, one)
            rows += state.parked.values()
        return rows

    def _people(self, parked: list[ParkedRow]) -> None:
        """Settles what waits for a person: cures the cause of some, then retries or drops."""
        for entity in sorted({row.entity for row in parked}):
            rows = [row for row in parked if row.entity == entity]
            for row in rows:
                if self.chance.random() < 0.6:
                    self.script.cured.add(row.event_id)
            if self.chance.random() < 0.3:
                number = self.chance.choice((-1, rows[0].number, rows[-1].number))
                self.settle(Settlement("drop", entity, number, "me", "no use", None))
            else:
                self.settle(Settlement("retry", entity, -1, "me", "", None))

    def _redrive(self) -> None:
        for told in self.dead_letters():
            source = told["source"]
            if source is None or told["code"] not in ("CH9003", "CH0304") or self.chance.random() < 0.5:
                continue
            topic, partition, offset = source
            if self.redrives[topic, partition, offset]:
                continue
            delivery = next(one for one in self.bus.read(topic, partition, 0)[0] if one.offset == offset)
            self.redrives[topic, partition, offset] += 1
            if self.chance.random() < 0.7:
                self.script.cured.add(parse_headers(delivery, self.topic(topic)).event_id)
            self.settle(Settlement("redrive", told["entity"], -1, "me", "", delivery))

    def topic(self, name: str) -> InputTopic:
        return next(topic for topic in self.plan.inputs if topic.name == name)

    def dead_letters(self) -> list[dict[str, Any]]:
        return [json.loads(one.value or b"") for one in self.bus.read(DEAD, 0, 0)[0]]

    # -- rest ------------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.note("healed")
        self.healed = True
        self.answers = 1.0
        while self._left > 0:
            self._feed()
        for worker in (*self.workers.values(), *self.zombies):
            worker.paused = False
        for number in range(self.plan.workers):
            instance = f"w{number}"
            if instance not in self.workers:
                if number and self.chance.random() < 0.5:
                    self.group.expire(instance)
                else:
                    self._start(instance)
        self._rest("input")
        for _ in range(3):
            self._redrive()
            self._rest("redriven input")
        for _ in range(50):
            parked = self.parked_rows()
            if not parked:
                break
            self._people(parked)
            self._rest("settlements")
        else:
            for entity in {row.entity for row in self.parked_rows()}:
                self.settle(Settlement("drop", entity, -1, "me", "enough", None))
            self._rest("settlements")
        self.now_ms += EVENT_STEP_MS * (self.plan.events + 100)
        self._rest("timers")
        self.now_ms += 2_000  # commits of positions behind markers
        self._rest("idle commits")

    def _rest(self, waiting_for: str) -> None:
        for round_number in range(HEAL_ROUNDS_MAX):
            self.now_ms += 25
            if round_number % 100 == 50:
                self._time_out_transactions()
            for worker in (*self.workers.values(), *self.zombies):
                for thread in worker.threads():
                    worker.resume(thread)
            for number in range(self.plan.workers):  # somebody was fenced by an heir: its supervisor starts it again
                if f"w{number}" not in self.workers and (not self.workers or self.group.waits_for(f"w{number}")):
                    self._start(f"w{number}")
            if self._at_rest():
                return
        raise Broken(f"no rest while waiting for {waiting_for}: {self._unrest()}")

    def _time_out_transactions(self) -> None:
        for number in range(self.plan.workers):
            if f"w{number}" not in self.workers:
                self.bus.producer(f"choreo.w{number}")

    def _at_rest(self) -> bool:
        return not self._unrest()

    def _unrest(self) -> str:
        owned: Counter[int] = Counter()
        if self.zombies:
            return "zombies"
        for worker in self.workers.values():
            for number, error in worker.stopped.items():
                if number in worker.member.owned:
                    raise Broken(f"{worker.instance} cannot start partition {number}: {error}")
        for worker in self.workers.values():
            engine = worker.engine
            if engine is None or not hasattr(worker, "member"):
                return f"{worker.instance} has not joined"
            if worker.tickets or worker.restores or worker.results or worker.calls or worker.in_transaction:
                return f"{worker.instance} restores, calls or commits"
            if not engine.idle:
                return f"{worker.instance} is not idle: {engine.statistics()}"
            wakes_at_ms = engine.wakes_at_ms(self.now_ms)
            if wakes_at_ms is not None and wakes_at_ms <= self.now_ms:
                return f"{worker.instance} wants to go on"
            for number in worker.member.owned:
                owned[number] += 1
                for topic in self.input_names:
                    if worker.positions.get((topic, number), -1) < self.bus.end_offset(topic, number):
                        return f"{worker.instance} has not read {topic}/{number}"
        if owned != Counter(range(self.plan.partitions)):
            return f"owned: {owned}"
        return ""

    # -- while it runs ---------------------------------------------------------------------------------------------

    def check_offsets(self, before: dict[tuple[str, int], Snapshot | None]) -> None:
        """What was finished stays finished: no commit may take progress back."""
        for place, earlier in before.items():
            later, _ = self.group.committed(*place)
            if earlier is not None and (later is None or not _covers(later, earlier)):
                raise Broken(f"{place}: committed {earlier}, then {later}")


def _covers(later: Snapshot, earlier: Snapshot) -> bool:
    """Whether all that was finished still is."""
    above = {offset for start, end in later.done for offset in range(start, end)}
    return later.low >= earlier.low and all(
        offset < later.low or offset in above for start, end in earlier.done for offset in range(start, end)
    )


def run_world(seed: int, *, mutant: str = "", stalls: bool = False) -> World:
    """The world of a seed, at rest, with all promises kept."""
    world = World(seed, mutant=mutant, stalls=stalls)
    try:
        world.run()
    except Exception as error:
        replay = f"python -m tests.kernel.world --seed {seed}{' --stalls' if stalls else ''}"
        raise Broken(f"{type(error).__name__}: {error}; replay: {replay}") from error
    return world


def main(arguments: Iterable[str]) -> int:
    parser = argparse.ArgumentParser(description="Runs simulated worlds.")
    parser.add_argument("--seed", type=int, help="replay one world, step by step")
    parser.add_argument("--seeds", default="0-500", help="first and last, such as 0-20000")
    parser.add_argument("--stalls", action="store_true", help="only worlds in which workers stop within transactions")
    chosen = parser.parse_args(list(arguments))
    if chosen.seed is not None:
        world = World(chosen.seed, stalls=chosen.stalls, told=print)
        print(world.plan)  # noqa: T201
        world.run()
        return 0
    first, last = map(int, chosen.seeds.split("-"))
    faults: Counter[str] = Counter()
    broken: list[int] = []
    for seed in range(first, last):
        try:
            faults += run_world(seed, stalls=chosen.stalls).faults
        except Broken as error:
            broken.append(seed)
            print(error)  # noqa: T201
    print(f"{last - first} worlds, {len(broken)} broken: {broken}; {dict(faults)}")  # noqa: T201
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
