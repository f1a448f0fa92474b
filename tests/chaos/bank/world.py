"""The processes of one round: Kafka, ledger, workers, feeder, watch; and waiting that never waits for ever."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from choreo.errors import EXIT_UNREACHABLE
from choreo.runtime import tether
from choreo.runtime.broker import EmbeddedBroker, EmbeddedCluster, Node
from tests.chaos.bank.collect import Wires
from tests.chaos.bank.evidence import AGENTS, Disturbance, Zombie, group
from tests.chaos.bank.feed import PARTITIONS, BankFeeder
from tests.chaos.bank.watch import Snapshots, Watch
from tests.chaos.project_copy import choreo, schema_ids
from tests.chaos.target import REPOSITORY
from tests.chaos.workers import Worker

WORKERS: Final = 2
"""Of each agent, before any joins."""
SESSION: Final = "6s"
"""Kafka's default minimum: what a zombie has to outlive."""
STALLED_S: Final = 60.0
"""Nothing decided for so long although something waits: well over session, transaction timeout and a broker restart."""
SETTLED_DECISIONS: Final = 3
"""A worker counts as at work when it has partitions and its agent has decided so much since."""
TICK_S: Final = 0.02
REBALANCE_MS: Final = 5_000
"""Before a worker says what it was given, others gave it up; after it, calls start."""
OUTAGES: Final = ("broker kill -9", "broker restart")
CLIENT_CRASHES: Final = (-signal.SIGSEGV, -signal.SIGABRT)
TOPOLOGY_FILE: Final = "topologies/bank.yaml"

Broker = EmbeddedBroker | Node
"""What a fault can hurt: the only broker, or one of a cluster."""

_STAMP = re.compile(r"^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})\]")
_MOVED = re.compile(r"(assigned|lost) partitions \[|starting over in")
_ASSIGNED = re.compile(r"assigned partitions \[([\d, ]*)\]")
_RESTORED = re.compile(r"restored partition (\d+) of")


class Stalled(AssertionError):
    """The round makes no progress any more."""


class Kill(NamedTuple):
    """A ``kill -9`` that hit a worker at work."""

    agent: str
    owner: str
    at_ms: int


class BankWorker(Worker):
    """A worker of one of the bank's agents."""

    agent = ""
    settled_from: int | None = None  # decisions of its agent when it was seen with partitions

    @property
    def owner(self) -> str:
        """Its transactional id."""
        return f"{group(self.agent)}.{self.name}"

    def partitions(self) -> tuple[int, ...]:
        """Partitions that it was given since its start; those taken away since then included."""
        numbers = {
            int(number)
            for line in self.lines()
            for found in _ASSIGNED.findall(line)
            for number in found.split(",")
            if number.strip()
        }
        return tuple(sorted(numbers))

    def assignments(self) -> list[int]:
        """When it was given partitions since its start: wall time, milliseconds."""
        return [stamp for line in self.lines() if _ASSIGNED.search(line) and (stamp := stamp_ms(line))]

    def restored(self, since_ms: int) -> set[int]:
        """Partitions that it has restored since that moment."""
        found: set[int] = set()
        for line in self.lines():
            restored = _RESTORED.search(line)
            if restored is not None and (stamp_ms(line) or 0) > since_ms:
                found.add(int(restored[1]))
        return found


def stamp_ms(line: str) -> int | None:
    """The time that a log line begins with, in milliseconds since 1970."""
    found = _STAMP.match(line)
    if found is None:
        return None
    return round(datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").timestamp() * 1_000)  # noqa: DTZ007 - local time


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class World:
    """Everything that runs in one round. Use as a context manager: whatever happens, no process is left behind.

    Args:
        folder: for logs, stores and the ledger's file.
        seed: decides input, victims and moments.
        store: ``memory`` or ``rocksdb``.
        nodes: of Kafka, 1 or 3.
        tell: told in a few words what happens now.
    """

    def __init__(self, folder: Path, *, seed: str, store: str, nodes: int, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.seed = seed
        self.store = store
        self.nodes = nodes
        self.tell = tell
        self.chance = random.Random(f"faults {seed}")
        self.planned: Counter[str] = Counter()
        self.fired: Counter[str] = Counter()
        self.kills: list[Kill] = []
        self.zombies: list[Zombie] = []
        self.disturbances: list[Disturbance] = []
        self.ended: list[str] = []
        self.crashed: list[str] = []
        self.fenced: list[str] = []
        self._everyone: list[BankWorker] = []
        self.workers: dict[str, list[BankWorker]] = {agent: [] for agent in AGENTS}
        self.held: set[BankWorker] = set()  # in the middle of a fault of its own
        self.ledger_file = folder / "ledger.sqlite"
        self.broker_away = False
        self._joined = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.kafka: EmbeddedBroker | EmbeddedCluster = (
            EmbeddedBroker() if self.nodes == 1 else EmbeddedCluster(self.nodes)
        )
        self._stack.enter_context(self.kafka)
        self.bootstrap = self.kafka.bootstrap
        choreo(REPOSITORY, "apply", TOPOLOGY_FILE, brokers=self.bootstrap)
        self.wires = Wires(REPOSITORY, schema_ids(REPOSITORY))
        self.ledger = self._start_ledger()
        self.watch = Watch(self.bootstrap, self.wires)
        self._stack.callback(self.watch.stop)
        self.feeder = BankFeeder(self.bootstrap, self.wires.events["transfers"], seed=self._number(), name=self.seed)
        self._stack.callback(self.feeder.halt)
        for agent in AGENTS:
            for _ in range(WORKERS):
                self.add(agent)

    def _number(self) -> int:
        return self.chance.randrange(1 << 30)

    def _start_ledger(self) -> str:
        """Its address. This process is never killed in a round."""
        command = [sys.executable, "-m", "demos.bank_ledger", "--file", str(self.ledger_file), "--port", "0"]
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(tether.__file__), str(os.getpid()), *command],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )

        def end() -> None:
            process.kill()
            process.wait(30)

        self._stack.callback(end)
        assert process.stdout is not None
        with process.stdout:
            address = process.stdout.readline().strip()
        assert address, "the ledger printed no address"
        return address

    def ask_ledger(self, method: str, path: str, body: object = None) -> Any:
        """An answer of the ledger."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.ledger}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    # -- workers -------------------------------------------------------------------------------------------------------

    def add(self, agent: str) -> BankWorker:
        """Starts one more worker of an agent."""
        self._joined += 1
        name = f"{agent}-{self._joined}"
        environment = {
            "CHOREO_BROKERS": self.bootstrap,
            "CHOREO_INSTANCE": name,
            "CHOREO_SESSION_TIMEOUT": SESSION,
            "CHOREO_STATE_DIR": str(self.folder / "state"),
            "BANK_LEDGER": self.ledger,
            "PYTHONFAULTHANDLER": "1",
            "PYTHONPATH": str(REPOSITORY),
            **({"CHOREO_PROFILE": "rocksdb"} if self.store == "rocksdb" else {}),
        }
        command = [sys.executable, "-m", "faust", "-A", f"agents.bank.{agent}", "worker", "-l", "info", "--without-web"]
        worker = BankWorker(name, command, self.folder, environment, runs_in=REPOSITORY)
        worker.agent = agent
        self._stack.callback(worker.discard)
        self.workers[agent].append(worker)
        self._everyone.append(worker)
        self.start(worker)
        return worker

    def start(self, worker: BankWorker) -> None:
        worker.settled_from = None
        worker.start()

    def everyone(self) -> list[BankWorker]:
        return [worker for agent in AGENTS for worker in self.workers[agent]]

    def at_work(self, agents: Sequence[str] = AGENTS) -> list[BankWorker]:
        """Workers that have partitions, whose agent has got on since, and that no other fault holds."""
        return [
            worker
            for agent in agents
            for worker in self.workers[agent]
            if worker not in self.held
            and worker.alive
            and worker.settled_from is not None
            and self.watch.decided_by[agent] >= worker.settled_from + SETTLED_DECISIONS
        ]

    def tend(self) -> int:
        """Takes in what was decided, sees who works, starts again who ended by itself; how much was decided."""
        decided = self.watch.poll()
        for worker in self.everyone():
            if worker in self.held:
                continue
            if not worker.alive:
                self._ended_by_itself(worker)
                self.start(worker)
            elif worker.settled_from is None and worker.assigned():
                worker.settled_from = self.watch.decided_by[worker.agent]
        return decided

    def _ended_by_itself(self, worker: BankWorker) -> None:
        """Only an outage or an heir excuses it.

        Who starts while there is no broker says so and ends. An heir that has to end the open transaction of a worker's
        last life may meet its new one: that one says CH0306 and ends (decision 10). And librdkafka may end the process
        when a broker comes back: to the promises that is one more kill. The last two are counted.
        """
        if self.broker_away and worker.exit_code == EXIT_UNREACHABLE:
            return
        if worker.exit_code == 1 and any("CH0306" in line for line in worker.lines()):
            self.fenced.append(worker.name)
            return
        what = f"{worker.name} ended with {worker.exit_code}: {worker.tail(12)}"
        lately = any(one.kind in OUTAGES and one.to_ms > now_ms() for one in self.disturbances)
        if worker.exit_code in CLIENT_CRASHES and (self.broker_away or lately):
            self.crashed.append(what)
            self.disturbed("crash", [worker.agent], now_ms() - 1_000, worker=worker.owner)
        else:
            self.ended.append(what)

    @property
    def brokers(self) -> list[Broker]:
        """Those that can be hurt, one at a time."""
        return [self.kafka] if isinstance(self.kafka, EmbeddedBroker) else list(self.kafka.nodes)

    def wait_in_sync(self) -> None:
        """Waits until the others have copies of everything; a single broker has nobody to wait for."""
        if isinstance(self.kafka, EmbeddedCluster):
            self.kafka.wait_in_sync()

    # -- waiting -------------------------------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], bool], why: str) -> None:
        """Waits until a condition holds.

        Raises:
            Stalled: nothing was decided for ``STALLED_S``, or too little for three times as long.
        """
        begun = moved = time.monotonic()
        while True:
            if self.tend():
                moved = time.monotonic()
            if condition():
                return
            now = time.monotonic()
            if now - moved > STALLED_S or now - begun > 3 * STALLED_S:
                raise Stalled(f"nothing more happens; waited for {why}\n{self.describe()}")
            time.sleep(TICK_S)

    def wait_s(self, seconds: float) -> None:
        """Lets the bank work for a while."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.tend()
            time.sleep(min(TICK_S, max(0.0, until - time.monotonic())))

    def wait_decided(self, each: int, agents: Sequence[str] = AGENTS) -> None:
        """Waits until each of these agents has decided so much more."""
        self.watch.poll()
        wanted = {agent: self.watch.decided_by[agent] + each for agent in agents}
        self.wait(
            lambda: all(self.watch.decided_by[agent] >= number for agent, number in wanted.items()),
            f"{each} more decisions each of {', '.join(agents)}",
        )

    def describe(self) -> str:
        """How things stand, for whoever has to find out why nothing moves."""
        undecided = self.watch.undecided()
        lines = [
            f"decided {dict(self.watch.decided_by)}, undecided {len(undecided)}: "
            + ", ".join(f"{agent} {place}" for agent, place in undecided[:20]),
            self.watch.told(),
        ]
        for worker in self.everyone():
            state = "runs" if worker.alive else f"ended with {worker.exit_code}"
            lines.append(f"{worker.name} {state}, partitions {worker.partitions()}, start {worker.starts}")
        lines.append(choreo(REPOSITORY, "status", "--topology", TOPOLOGY_FILE, brokers=self.bootstrap))
        return "\n".join(lines)

    def snapshots(self) -> Snapshots:
        """Starts taking snapshots."""
        taken = Snapshots(self.bootstrap, PARTITIONS)
        self._stack.callback(taken.stop)
        return taken

    def disturbed(
        self, kind: str, agents: Sequence[str], from_ms: int, *, after_ms: int = 500, worker: str = ""
    ) -> None:
        """Notes that a fault touched agents (or one worker) from then until now and a little more."""
        self.disturbances.append(Disturbance(kind, tuple(agents), from_ms, now_ms() + after_ms, worker))

    def rebalances(self) -> list[Disturbance]:
        """When partitions moved, as the workers' logs say: calls in flight are given up and made again elsewhere."""
        return [
            Disturbance("rebalance", (worker.agent,), stamp - REBALANCE_MS, stamp + REBALANCE_MS)
            for worker in self._everyone
            for line in worker.log().splitlines()
            if _MOVED.search(line) and (stamp := stamp_ms(line)) is not None
        ]
