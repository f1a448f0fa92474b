"""Simulated worlds: real workers on a cluster in memory, under faults, from one seed.

    python -m tests.kernel.world --seed 17          # replays one world and tells what happened
    make sim SEEDS=0-20000                          # many of them

Theory of operation. A worker is the production code of ``shell.py``, ``session.py``, ``transaction.py``, ``restore.py``
and ``choreo/kernel`` on fake clients; its threads are greenlets (``process.py``). They switch at fault points
(``points.py``). A seeded scheduler resumes one of them at a time and plants faults; then it heals the world and lets
everything come to rest. What the log then says is compared with what the promises say (``checks.py``). There are no
threads and no clocks: a seed is a schedule.

The cluster has what the promises lean on: transactions whose markers take offsets, read_committed, fencing, unstable
offsets, generations, static members. It has no compaction and no retention; ``kernel/restore.py`` has tests of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import greenlet

from choreo.kernel.envelope import parse_headers, rfc3339
from choreo.kernel.partitioner import murmur2_partition
from choreo.kernel.progress import Snapshot
from choreo.kernel.values import Call, InputTopic, OutRecord, ParkedRow, Settlement
from choreo.testing.bus import MemoryBus, MemoryProducer
from choreo.topology import names
from tests.kernel.checks import CLOCK_JUMP_MS, EVENT_STEP_MS, Broken, Checks, Folded
from tests.kernel.clients import COMMIT_FAULTS
from tests.kernel.cluster import GROUP, Group, Known
from tests.kernel.disks import Disk
from tests.kernel.fakes import CHANGELOG, DEAD, DECISIONS, OUT, Script, count_and_chain
from tests.kernel.places import INBOX, JOURNAL, PARKED, TIMERS
from tests.kernel.plans import Plan, plan_of
from tests.kernel.points import Hits, Side
from tests.kernel.process import RECORDS, Process, how_it_ended, simulated
from tests.kernel.threads import FakeThread

WALL_START_MS: Final = 1_700_000_000_000
EVENT_START_MS: Final = WALL_START_MS - 1_000 * EVENT_STEP_MS
"""Before the wall clock: an event time may not lead its Kafka timestamp by much."""
HEAL_ROUNDS_MAX: Final = 1_000
"""Rounds in which every thread has a turn: after the faults everything must come to rest within so many. """
TRANSACTION_TIMEOUT_S: Final = 16.0
KNOWN_EARLIER: Final = 10
"""States that a coordinator may be behind with: one before and one after each commit."""
CALL_ROUNDS: Final = 3
"""How long calls take in a calm world."""

Trap = Callable[[Process, str, Side, int], None]


class World:
    """Everything there is, from one seed; or from a plan, calm, with a trap at one fault point."""

    def __init__(
        self,
        seed: int,
        *,
        stalls: bool = False,
        plan: Plan | None = None,
        trap: Trap | None = None,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.replay = f"python -m tests.kernel.world --seed {seed}{' --stalls' if stalls else ''}"
        self.restless = plan is None
        self.plan = plan = plan or plan_of(self.chance, stalls=stalls)
        self.trap = trap
        self.topology = plan.topology()
        self.input_names = [topic.name for topic in plan.inputs]
        self.bus = MemoryBus()
        for name in (*self.input_names, CHANGELOG, JOURNAL, TIMERS, PARKED):
            self.bus.create_topic(name, plan.partitions)
        for name in (OUT, DEAD, DECISIONS):
            self.bus.create_topic(name, 1)
        self.group = Group(self.bus, plan.partitions, self.chance)
        self.script = Script(timer_after_ms=2 * EVENT_STEP_MS + EVENT_STEP_MS // 2)
        self.now_ms = WALL_START_MS
        self.mono_s = 0.0
        self.hub = greenlet.getcurrent()
        self.current: Process | None = None
        self.workers: dict[str, Process] = {}
        self.zombies: list[Process] = []
        self.disks: dict[str, list[Disk]] = {}
        self.known_earlier: deque[Known] = deque(maxlen=KNOWN_EARLIER)
        self.slow: set[tuple[str, int]] = set()
        self.faults: Counter[str] = Counter()
        self.hits = Hits()
        self.crashed_at: Counter[tuple[str, Side]] = Counter()
        self.answers = 0.3 if self.restless else 1.0
        self.repeats_callbacks = self.restless and self.chance.random() < 0.3
        self.redrives: Counter[tuple[str, int, int]] = Counter()
        self.healed = False
        self.rounds: Counter[str] = Counter()
        self.planned_strikes: Mapping[str, tuple[int, ...]] = {}  # of a calm world
        self.each_round: Callable[[int], None] = lambda number: None
        self.no_restarts = False
        self.busy_until = 0  # round before which there is no rest, because something is still to happen
        self._asked: Counter[str] = Counter()
        self.round = 0
        self._left = plan.events
        self._jumps = 2
        self._told = told
        self._ids = 0

    def note(self, what: str, whom: object = "") -> None:
        self.faults[what] += 1
        if self._told is not None:
            self._told(f"{self.now_ms - WALL_START_MS:>9} ms  {what} {whom}")

    # -- for the fakes ---------------------------------------------------------------------------------------------

    @contextmanager
    def within(self, process: Process) -> Iterator[None]:
        before, self.current = self.current, process
        try:
            yield
        finally:
            self.current = before

    def passes(self, process: Process, name: str, side: Side) -> bool:
        """A process passes a fault point. True: somebody else goes on."""
        count = self.hits.note(name, side)
        if self.trap is not None:
            self.trap(process, name, side, count)
            return process.crash_wanted or process.paused
        return self.restless and not self.healed and self.chance.random() < self.plan.yield_rate

    def chances(self, rate: float) -> bool:
        """Something that may go either way without being a fault."""
        return self.restless and self.chance.random() < rate

    def strikes(self, name: str, weight: float) -> bool:
        """A fault that a client meets."""
        if not self.restless:
            self._asked[name] += 1
            if self._asked[name] not in self.planned_strikes.get(name, ()):
                return False
        elif self.healed or self.chance.random() >= self.plan.fault_rate * weight:
            return False
        self.note(name, "" if self.current is None else self.current.instance)
        return True

    def commit_fault(self) -> str:
        if not self.restless:
            return next((fault for fault in COMMIT_FAULTS if self.strikes(fault, 0.0)), "none")
        if not self.strikes("commit fault", 2.0):
            return "none"
        fault = self.chance.choice(COMMIT_FAULTS)
        self.note(fault)
        return fault

    def pass_s(self, seconds: float) -> None:
        """Somebody waited."""
        if self.restless and not self.healed:
            seconds *= self.chance.choice((0.0, 0.1, 1.0))
        self.mono_s += seconds
        self.now_ms += round(seconds * 1_000)

    def call_ends(self, started_in: int) -> bool:
        return self.chance.random() < self.answers if self.restless else self.round >= started_in + CALL_ROUNDS

    def pump_steps(self) -> int:
        return self.chance.choice((1, 3, 2_000)) if self.restless else 2_000

    def topic_id(self, name: str) -> str:
        return next((topic.topic_id for topic in self.plan.inputs if topic.name == name), name)

    def commit(self, producer: MemoryProducer) -> None:
        """A transaction commits; no commit may take progress back."""
        transaction = producer._transaction
        places = [] if transaction is None else [place for place in transaction.offsets if place[0] == GROUP]
        before = {place: self.group.committed(*place[1:])[0] for place in places}
        self.known_earlier.append(self.group.known())
        producer.commit()
        self.known_earlier.append(self.group.known())
        for place, earlier in before.items():
            later, _ = self.group.committed(*place[1:])
            if earlier is not None and (later is None or not _covers(later, earlier)):
                raise Broken(f"{place}: committed {earlier}, then {later}")

    def check_call(self, process: Process, call: Call) -> None:
        """A call rests on a row that is committed; unless only calls can make room in the offset map."""
        assert process.session is not None
        entity, chain = call.arguments, call.tool.partition(" ")[2]
        number = murmur2_partition(entity.encode(), self.plan.partitions)
        row: bytes | None = None
        for entry in self.bus._logs[CHANGELOG][number]:
            committed = entry.transaction is None or entry.transaction.state == "committed"
            if committed and entry.record is not None and entry.record.key == entity.encode():
                row = entry.record.value
        if count_and_chain(row)[1] != chain and process.owned_now(number) and not process.session._held_back:
            raise Broken(f"a call of {entity} rests on {chain}, committed is {row!r}")

    # -- the run ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Raises ``Broken`` (or whatever a worker ends with) if a promise is not kept."""
        with simulated(self):
            try:
                self._run()
                Checks(self).all()
            finally:
                for process in (*self.workers.values(), *self.zombies):
                    process.kill()

    def _run(self) -> None:
        for value in self.plan.values:
            self._send_fixed(value)
        for number in range(self.plan.workers):
            self._start(f"w{number}")
        for _ in range(self.plan.steps):
            self._tick()
            if self.chance.random() < 0.3:
                self._feed()
            if self.chance.random() < self.plan.fault_rate:
                self._fault()
            for process in self.workers.values():
                if process.paused and self.chance.random() < 0.03:
                    process.paused = False
                    self.note("continue", process.instance)
            turn = self._choose()
            if turn is not None:
                self._resume(*turn)
        self._heal()

    def _tick(self) -> None:
        passed_ms = self.chance.choice((0, 1, 10))
        self.now_ms += passed_ms
        self.mono_s += passed_ms / 1_000

    def _choose(self) -> tuple[Process, FakeThread] | None:
        turns = [
            (process, thread)
            for process in (*self.workers.values(), *self.zombies)
            if not process.paused
            for thread in process.threads
            if thread.may_run and (thread.name != "choreo-restore" or self.chance.random() < self.plan.restore_rate)
        ]
        return self.chance.choice(turns) if turns else None

    def _resume(self, process: Process, thread: FakeThread) -> None:
        process.resume(thread)
        if process.calls is not None:
            process.calls.answer()
        consumer = process.consumer
        if consumer is not None and consumer.member is not None and not consumer.in_callback and self.chances(0.2):
            self.group.heartbeat(consumer.member)

    def ended(self, process: Process) -> None:
        """A process exited by itself."""
        how = how_it_ended(process.failure)
        if not how:
            assert process.failure is not None
            raise process.failure
        if self.healed and how == "gave up":
            raise Broken(f"{process.instance} gave up although nothing fails any more: {process.failure}")
        self.note(how, process.instance)
        self._gone(process)

    def _gone(self, process: Process) -> None:
        if self.workers.get(process.instance) is process:
            del self.workers[process.instance]
        else:
            self.zombies.remove(process)

    def crash(self, process: Process, what: str = "crash") -> None:
        self.crashed_at[process.where] += 1
        process.kill()
        self._gone(process)
        self.note(what, f"{process.instance} {process.where[1]} {process.where[0]}")

    def _start(self, instance: str) -> None:
        """Where it runs nobody knows: on the machine of before, on another, or on one it was on long ago."""
        disks = self.disks.setdefault(instance, [])
        used = {id(process.disk) for process in (*self.workers.values(), *self.zombies)}
        free = [disk for disk in disks if id(disk) not in used]
        if not free or self.chances(0.2):
            free = [Disk(f"{instance}/{len(disks)}")]
            disks += free
        self.workers[instance] = Process(self, instance, self.chance.choice(free) if self.restless else free[-1])

    # -- faults ----------------------------------------------------------------------------------------------------

    def _fault(self) -> None:
        alive = list(self.workers.values())
        absent = [f"w{number}" for number in range(self.plan.workers) if f"w{number}" not in self.workers]
        getattr(self, f"_fault_{self.chance.choice(self.plan.faults)}")(alive, absent)

    def _fault_crash(self, alive: list[Process], absent: list[str]) -> None:
        if alive:
            self.crash(self.chance.choice(alive))

    def _fault_leave(self, alive: list[Process], absent: list[str]) -> None:
        if len(alive) > 1:
            process = self.chance.choice(alive)
            self.crash(process, "crash and session expired")
            self.group.expire(process.instance)

    def _fault_start(self, alive: list[Process], absent: list[str]) -> None:
        if absent:
            instance = self.chance.choice(absent)
            self._start(instance)
            self.note("start", instance)

    def _fault_stop(self, alive: list[Process], absent: list[str]) -> None:
        if alive:
            process = self.chance.choice(alive)
            process.stop()
            self.note("stop", process.instance)

    def _fault_pause(self, alive: list[Process], absent: list[str]) -> None:
        if alive:
            process = self.chance.choice(alive)
            process.paused = True
            self.note("pause", process.instance)

    def _fault_expire(self, alive: list[Process], absent: list[str]) -> None:
        away = [*absent, *(process.instance for process in alive if process.paused)]
        if away:
            instance = self.chance.choice(away)
            self.group.expire(instance)
            self.note("session expired", instance)

    def _fault_cut_off(self, alive: list[Process], absent: list[str]) -> None:
        """The group gives it up while it runs."""
        if alive:
            process = self.chance.choice(alive)
            self.group.expire(process.instance)
            self.note("cut off from its group", process.instance)

    def _fault_twin(self, alive: list[Process], absent: list[str]) -> None:
        if alive:
            process = self.chance.choice(alive)
            self.zombies.append(process)
            self._start(process.instance)
            self.note("started twice", process.instance)

    def _fault_stall(self, alive: list[Process], absent: list[str]) -> None:
        committing = [process for process in alive if process.in_transaction and not process.paused]
        if committing:
            process = self.chance.choice(committing)
            process.paused = True
            self.group.expire(process.instance)
            self.note("stopped within a transaction past its session", process.instance)

    def _fault_clock(self, alive: list[Process], absent: list[str]) -> None:
        if self._jumps:
            self._jumps -= 1
            forward = self.chance.random() < 0.5
            self.now_ms += CLOCK_JUMP_MS if forward else -CLOCK_JUMP_MS
            self.note("clock jumps forward" if forward else "clock jumps back")

    def _fault_timeout(self, alive: list[Process], absent: list[str]) -> None:
        late = [*absent, *(process.instance for process in alive if process.paused and process.in_transaction)]
        if late:
            self._time_out(self.chance.choice(late))
            self.mono_s += TRANSACTION_TIMEOUT_S
            self.note("transaction timed out")

    def _time_out(self, instance: str) -> None:
        self.bus.producer(names.transactional_id(self.topology.name, "a", instance))

    def _fault_slow(self, alive: list[Process], absent: list[str]) -> None:
        place = (self.chance.choice(self.input_names), self.chance.randrange(self.plan.partitions))
        if place in self.slow:
            self.slow.remove(place)
        else:
            self.slow.add(place)
            self.note("slow partition", place)

    def _fault_person(self, alive: list[Process], absent: list[str]) -> None:
        """People settle while things fail, too."""
        if self.chance.random() < 0.5:
            self._redrive()
        elif parked := self.parked_rows():
            self._people(parked)

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
        return self._record(topic, partition, key, event_id, chance.choice(plan.words), late)

    def _record(
        self, topic: InputTopic, partition: int, key: bytes | None, event_id: str, value: str, late: int = 0
    ) -> OutRecord:
        time_ms = EVENT_START_MS + (self._ids + late) * EVENT_STEP_MS
        headers = (("ce_id", event_id.encode()), ("ce_time", rfc3339(time_ms).encode()))
        return OutRecord(topic.name, partition, key, value.encode(), headers)

    def _send_fixed(self, value: str) -> None:
        """One input of a fixed plan: ``topic number, entity, words``; ``again`` repeats the id before; no entity: no
        key."""
        number, entity, *words = value.split(" ", 2)
        topic = self.plan.inputs[int(number)]
        text = " ".join(words)
        if text != "again":
            self._ids += 1
        key = entity.encode() or None
        partition = murmur2_partition(entity.encode(), self.plan.partitions)
        record = self._record(topic, partition, key, f"{topic.name}-{entity}-{self._ids}", text)
        self.bus.send(record, self.now_ms)

    def _probe_each_partition(self) -> None:
        """One plain event for each partition: what was healed must work, not only be quiet."""
        for number in range(self.plan.partitions):
            at = 0
            while murmur2_partition(f"probe{at}".encode(), self.plan.partitions) != number:
                at += 1
            self._ids += 1
            topic = self.chance.choice(self.plan.inputs[:-1])
            record = self._record(topic, number, f"probe{at}".encode(), f"probe-{number}", "")
            self.bus.send(record, self.now_ms)

    # -- people ----------------------------------------------------------------------------------------------------

    def settle(self, settlement: Settlement) -> None:
        partition = murmur2_partition(settlement.entity.encode(), self.plan.partitions)
        value = RECORDS.encode_settlement(settlement)
        self.bus.send(OutRecord(INBOX, partition, settlement.entity.encode(), value, ()), self.now_ms)
        self.note(settlement.kind, settlement.entity)

    def parked_rows(self) -> list[ParkedRow]:
        rows: list[ParkedRow] = []
        for number in range(self.plan.partitions):
            rows += Folded(self.bus, number).parked.values()
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
        self.slow.clear()
        while self._left > 0:
            self._feed()
        if self.restless:
            for process in (*self.workers.values(), *self.zombies):
                process.paused = False
        for number in range(self.plan.workers):
            instance = f"w{number}"
            if instance not in self.workers:
                if number and self.chance.random() < 0.5:
                    self.group.expire(instance)
                else:
                    self._start(instance)
        self._rest("input")
        self._probe_each_partition()
        self._rest("one event for each partition")
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
        self._time_out_transactions()  # what dead workers left open is over long since
        self._rest("timers")
        self.now_ms += 2_000  # commits of positions behind markers
        self._rest("idle commits")

    def _rest(self, waiting_for: str) -> None:
        for round_number in range(HEAL_ROUNDS_MAX):
            self.now_ms += 25
            self.mono_s += 0.025
            self.round += 1
            self.each_round(self.round)
            if round_number % 300 == (50 if self.restless else 299):
                self._time_out_transactions()
            for process in (*self.workers.values(), *self.zombies):
                for thread in list(process.threads):
                    if thread.may_run and not process.paused and not process.dead:
                        self._resume(process, thread)
            for number in range(self.plan.workers):  # somebody was fenced by an heir: its supervisor starts it again
                if self.no_restarts:
                    break
                if f"w{number}" not in self.workers and (not self.workers or self.group.waits_for(f"w{number}")):
                    self._start(f"w{number}")
            if not self._unrest():
                self.rounds[waiting_for] = max(self.rounds[waiting_for], round_number)
                return
        raise Broken(f"no rest while waiting for {waiting_for}: {self._unrest()}")

    def _time_out_transactions(self) -> None:
        for number in range(self.plan.workers):
            if f"w{number}" not in self.workers:
                self._time_out(f"w{number}")
            self._time_out(f"w{number}:restore")  # of a restore that died while it wrote; another may be at it now

    def _unrest(self) -> str:
        owned: Counter[int] = Counter()
        if self.round < self.busy_until:
            return "something is still to happen"
        if self.zombies:
            return "zombies"
        for process in self.workers.values():
            if process.paused:
                return f"{process.instance} is paused"
            for number, error in {} if process.session is None else process.session.stopped.items():
                if process.owned_now(number):  # else it was lost, and the worker is told with its next poll
                    raise Broken(f"{process.instance} cannot start partition {number}: {error}")
        for process in self.workers.values():
            busy = process.busy()
            if busy:
                return f"{process.instance} {busy}"
            assert process.consumer is not None
            for number in process.owned:
                owned[number] += 1
                for topic in self.input_names:
                    if not process.consumer.has_read((topic, number)):
                        return f"{process.instance} has not read {topic}/{number}"
        if owned != Counter(range(self.plan.partitions)):
            return f"owned: {owned}"
        return ""


def _covers(later: Snapshot, earlier: Snapshot) -> bool:
    """Whether all that was finished still is."""
    above = {offset for start, end in later.done for offset in range(start, end)}
    return later.low >= earlier.low and all(
        offset < later.low or offset in above for start, end in earlier.done for offset in range(start, end)
    )


def run(world: World) -> None:
    """Runs a world to its rest.

    Raises:
        Broken: a promise was not kept, or a worker met what it must not meet; with the command that replays it.
    """
    try:
        world.run()
    except Exception as error:
        raise Broken(f"{type(error).__name__}: {error}; replay: {world.replay}") from error


def run_world(seed: int, *, stalls: bool = False) -> World:
    """The world of a seed, at rest, with all promises kept."""
    world = World(seed, stalls=stalls)
    run(world)
    return world


def main(arguments: Iterable[str]) -> int:
    parser = argparse.ArgumentParser(description="Replays one simulated world, step by step.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--stalls", action="store_true", help="a world in which workers stop within transactions")
    chosen = parser.parse_args(list(arguments))
    world = World(chosen.seed, stalls=chosen.stalls, told=print)
    print(world.plan)  # noqa: T201
    world.run()
    print(dict(world.rounds))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
