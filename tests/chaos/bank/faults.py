"""The faults. Each one plans itself, hurts, sees to it that it was felt, and lets the bank get on.

While a fault takes its time (a frozen worker, a rebalance), workers of the other agents are killed: faults overlap.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Final

from tests.chaos.bank import collect
from tests.chaos.bank.evidence import AGENTS, DEBIT, Zombie
from tests.chaos.bank.feed import ACCOUNTS, account
from tests.chaos.bank.world import TICK_S, BankWorker, Broker, Kill, World, now_ms

FROZEN_S: Final = 8.0
"""Beyond the session timeout: the group has given the partitions away."""
HEIRS_DECIDE: Final = 50
"""Decisions after a restore, by which its partitions' offsets have been committed."""
WORKERS_MAX: Final = 4
"""Of one agent."""
AT_START_SHARE: Final = 0.25
"""Of the kills hit a worker that still imports, joins or restores."""
GAP_S_MAX: Final = 1.2
"""Longest pause between two kills, beyond waiting for somebody to be at work."""
SLOW_ACCOUNTS: Final = 5
SLOW_S: Final = 5.0
OTHERS_DECIDE: Final = 15
"""While a slow account's question is open, debit has to decide so much of others."""
ATTEMPTS_MAX: Final = 5
ENDING_S: Final = 0.5
"""A broker writes the markers of a transaction within milliseconds."""

KILL, KILL_AT_START, ZOMBIE = "kill -9", "kill -9 at start", "zombie"
BROKER_KILL, BROKER_RESTART = "broker kill -9", "broker restart"
JOIN, LEAVE, SLOW, DISK_FULL = "worker joins", "worker leaves", "slow keys", "disk full"
KINDS: Final = (KILL, KILL_AT_START, ZOMBIE, BROKER_KILL, BROKER_RESTART, JOIN, LEAVE, SLOW, DISK_FULL)


def kill(world: World, agents: Sequence[str] = AGENTS) -> None:
    """One ``kill -9`` at a random moment, and a start. The first and one in four hit a worker that is just starting."""
    world.wait_s(world.chance.random() * GAP_S_MAX)
    starting = [
        worker
        for agent in agents
        for worker in world.workers[agent]
        if worker.alive and worker.settled_from is None and worker not in world.held
    ]
    if starting and (world.chance.random() < AT_START_SHARE or not world.fired[KILL_AT_START]):
        _kill(world, world.chance.choice(starting), KILL_AT_START)
        return
    world.wait(lambda: bool(world.at_work(agents)), f"somebody of {', '.join(agents)} to be at work")
    _kill(world, world.chance.choice(world.at_work(agents)), KILL)


def _kill(world: World, victim: BankWorker, kind: str) -> None:
    world.planned[kind] += 1
    world.tell(f"{kind} {victim.name}")
    fired, at_ms = victim.kill(), now_ms()
    world.fired[kind] += fired
    if fired and kind == KILL:
        world.kills.append(Kill(victim.agent, victim.owner, at_ms))
    world.disturbed(kind, [victim.agent], at_ms, worker=victim.owner)
    world.start(victim)


def _meanwhile(world: World, condition: Callable[[], bool], spared: str, budget: Budget, why: str) -> None:
    """Waits for a condition and kills workers of other agents until it holds."""
    others = [agent for agent in AGENTS if agent != spared]
    while not condition() and budget.left:
        budget.left -= 1
        kill(world, others)
    world.wait(condition, why)


class Budget:
    """Kills that a round still has to make."""

    def __init__(self, kills: int) -> None:
        self.left = kills


def zombie(world: World, budget: Budget) -> None:
    """Stops a worker past its session while it works, lets others take over, and lets it go on."""
    world.planned[ZOMBIE] += 1

    def ready() -> list[str]:
        agents = [agent for agent in AGENTS if len(world.workers[agent]) >= 2]
        return [agent for agent in agents if len(world.at_work([agent])) == len(world.workers[agent])]

    world.wait(lambda: bool(ready()), "all workers of an agent to be at work")
    agent = world.chance.choice(ready())
    victim = world.chance.choice(world.workers[agent])
    world.held.add(victim)
    world.tell(f"{ZOMBIE} {victim.name}")
    partitions, frozen_ms = victim.partitions(), now_ms()
    stopped = victim.freeze()
    until = time.monotonic() + FROZEN_S
    _meanwhile(world, lambda: time.monotonic() >= until, agent, budget, "the session to end")
    heirs = [worker for worker in world.workers[agent] if worker is not victim]
    world.wait(lambda: any(heir.restored(frozen_ms) & set(partitions) for heir in heirs), "an heir to take over")
    world.wait_decided(HEIRS_DECIDE, [agent])  # it has committed, too
    given = len(victim.assignments())
    world.fired[ZOMBIE] += stopped and victim.alive
    thawed_ms = now_ms()
    victim.thaw()
    world.wait(lambda: not victim.alive or len(victim.assignments()) > given, f"{victim.name} to find out")
    back_ms = now_ms() if not victim.alive else victim.assignments()[given]
    world.zombies.append(Zombie(victim.owner, agent, partitions, frozen_ms, thawed_ms, back_ms))
    if not victim.alive:  # its heir had to end a transaction that it left open: then it has to say so
        log = "".join(victim.lines())
        if victim.exit_code != 1 or "CH0306" not in log:
            world.ended.append(f"zombie {victim.name} ended with {victim.exit_code}: {victim.tail(12)}")
        world.start(victim)
    world.held.discard(victim)
    world.disturbed(ZOMBIE, [agent], frozen_ms, after_ms=5_000)


def broker_kill(world: World, _: Budget) -> None:
    """Kills a broker and leaves the bank alone for a while: without any, or with two of three. Then it comes back."""
    away_s = world.chance.random() * 2

    def hurt(broker: Broker) -> None:
        broker.kill()
        time.sleep(away_s)
        broker.start()

    _broker(world, BROKER_KILL, hurt)


def broker_restart(world: World, _: Budget) -> None:
    """Stops a broker in order and starts it again."""
    _broker(world, BROKER_RESTART, lambda broker: broker.restart())


def _broker(world: World, kind: str, hurt: Callable[[Broker], None]) -> None:
    world.planned[kind] += 1
    world.wait_in_sync()
    world.wait_decided(1)
    broker = world.chance.choice(world.brokers)
    world.tell(f"{kind}: {broker.bootstrap}")
    before, from_ms = broker.pid, now_ms()
    world.broker_away = True
    with ThreadPoolExecutor(1) as pool:
        with _no_commit_under_way(world) if len(world.brokers) == 1 else nullcontext():
            hurting = pool.submit(hurt, broker)
            while not hurting.done() and broker.running and broker.pid == before:
                time.sleep(TICK_S)
        while not hurting.done():
            world.wait_s(TICK_S)
        hurting.result()
    world.tell("broker is back")
    world.fired[kind] += broker.pid != before
    world.wait_decided(3)
    world.broker_away = False
    world.disturbed(kind, AGENTS, from_ms, after_ms=10_000)


@contextmanager
def _no_commit_under_way(world: World) -> Iterator[None]:
    """Everybody stands still, in whatever it does, and the broker has ended all transactions that it was told to end.

    Kafka 4.3.1 loses markers when the only replica of a partition goes while a transaction ends: its coordinator takes
    partitions without a leader for deleted, leaves them out and calls the transaction complete. Its records in them are
    then open for ever, or belong to the producer's next transaction (docs/reliability.md).
    """
    frozen = [worker for worker in world.everyone() if worker not in world.held and worker.freeze()]
    try:
        with world.feeder.still():
            time.sleep(ENDING_S)
            yield
    finally:
        for worker in frozen:
            worker.thaw()


def join(world: World, budget: Budget) -> None:
    """One more worker: a rebalance, in which partitions move while others are killed."""
    world.planned[JOIN] += 1
    agents = [agent for agent in AGENTS if len(world.workers[agent]) < WORKERS_MAX]
    agent = world.chance.choice(agents)
    from_ms = now_ms()
    worker = world.add(agent)
    world.held.add(worker)
    world.tell(f"{JOIN}: {worker.name}")
    _meanwhile(world, worker.assigned, agent, budget, f"{worker.name} to get partitions")
    world.held.discard(worker)
    world.fired[JOIN] += worker.assigned()
    world.wait_decided(3, [agent])
    world.disturbed(JOIN, [agent], from_ms, after_ms=5_000)


def leave(world: World, _: Budget) -> None:
    """A worker is told to stop: it finishes what it has begun and goes."""
    world.planned[LEAVE] += 1

    def able() -> list[BankWorker]:
        return [worker for worker in world.at_work() if len(world.workers[worker.agent]) > 2]

    world.wait(lambda: bool(able()), "a worker that can leave")
    worker = world.chance.choice(able())
    world.tell(f"{LEAVE}: {worker.name}")
    world.held.add(worker)
    from_ms = now_ms()
    code = worker.stop()
    world.workers[worker.agent].remove(worker)
    world.held.discard(worker)
    world.fired[LEAVE] += code == 0
    world.wait_decided(3, [worker.agent])
    world.disturbed(LEAVE, [worker.agent], from_ms, after_ms=15_000)


def slow_keys(world: World, _: Budget) -> None:
    """The ledger takes its time with some accounts; others are decided meanwhile. Every other time, debit is killed."""
    world.planned[SLOW] += 1
    for _attempt in range(ATTEMPTS_MAX):
        if _slowly(world):
            world.fired[SLOW] += 1
            return


def _slowly(world: World) -> bool:
    world.wait(lambda: bool(world.at_work([DEBIT])), "debit to be at work")
    world.tell(SLOW)
    names = {account(number) for number in world.chance.sample(range(ACCOUNTS), SLOW_ACCOUNTS)}
    after = len(collect.calls(world.ledger_file))
    world.ask_ledger("PUT", "/slow", dict.fromkeys(names, SLOW_S))
    try:
        world.wait(
            lambda: any(call.account in names for call in collect.calls(world.ledger_file, after)),
            "a slow account's question",
        )
        begun, before = time.monotonic(), world.watch.decided_by[DEBIT]
        while time.monotonic() - begun < SLOW_S * 0.9:
            world.tend()
            if world.watch.decided_by[DEBIT] >= before + OTHERS_DECIDE:
                if world.chance.random() < 0.5 and world.at_work([DEBIT]):
                    _kill(world, world.chance.choice(world.at_work([DEBIT])), KILL)
                return True
            time.sleep(TICK_S)
        return False
    finally:
        world.ask_ledger("PUT", "/slow", {})


def disk_full(world: World, _: Budget) -> None:
    """No write of a worker to its stores succeeds any more. It has to end; the next one rebuilds what is missing."""
    world.planned[DISK_FULL] += 1
    world.wait(lambda: bool(world.at_work()), "somebody to be at work")
    victim = world.chance.choice(world.at_work())
    world.tell(f"{DISK_FULL}: {victim.name}")
    world.held.add(victim)
    from_ms = now_ms()
    victim.fill_disk()
    world.wait(lambda: not victim.alive, f"{victim.name} to end with a full disk")
    code, said = victim.exit_code, "".join(victim.lines())
    world.fired[DISK_FULL] += code not in (0, None) and "File too large" in said
    world.start(victim)
    world.held.discard(victim)
    world.disturbed(DISK_FULL, [victim.agent], from_ms, worker=victim.owner)
    world.wait_decided(3, [victim.agent])


Fault = Callable[[World, Budget], None]

FAULTS: Final[dict[str, Fault]] = {
    ZOMBIE: zombie,
    BROKER_KILL: broker_kill,
    BROKER_RESTART: broker_restart,
    JOIN: join,
    LEAVE: leave,
    SLOW: slow_keys,
    DISK_FULL: disk_full,
}

# One of each kind for so many kills (at least one in a round). A leave follows each join.
KILLS_PER: Final = {ZOMBIE: 25, BROKER_KILL: 25, BROKER_RESTART: 50, JOIN: 20, SLOW: 25, DISK_FULL: 20}


def schedule(seed: str, kills: int, store: str) -> list[str]:
    """The other faults of a round in their order; kills fill the time between them."""
    chance = random.Random(f"schedule {seed}")
    kinds = [
        kind
        for kind, each in KILLS_PER.items()
        if kind != DISK_FULL or store == "rocksdb"
        for _ in range(max(1, round(kills / each)))
    ]
    chance.shuffle(kinds)
    leaves = kinds.count(JOIN)
    order: list[str] = []
    owed = 0
    for kind in kinds:
        order.append(kind)
        owed += kind == JOIN
        if owed and leaves and chance.random() < 0.5:
            order.append(LEAVE)
            owed, leaves = owed - 1, leaves - 1
    return order + [LEAVE] * owed


def run(world: World, kills: int) -> None:
    """A round's faults: the scheduled ones spread evenly among the kills."""
    order = schedule(world.seed, kills, world.store)
    budget = Budget(kills)
    for place, kind in enumerate(order):
        keep = kills * (len(order) - place) // (len(order) + 1)
        while budget.left > keep:
            budget.left -= 1
            kill(world)
        FAULTS[kind](world, budget)
    while budget.left:
        budget.left -= 1
        kill(world)
