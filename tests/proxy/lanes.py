"""Workers in this process behind the proxy, each with topics, clients and faults of its own.

Most of a fault's time is waiting for a timeout; lanes wait side by side. A rule is meant for one lane: it names the
lane's ``client.id``, which every client of that worker sends.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import pytest
from confluent_kafka import KafkaError, Message, Producer

from choreo.errors import FencedSignal
from choreo.runtime import session as session_module
from choreo.runtime import shell as shell_module
from choreo.runtime import transaction as transaction_module
from choreo.runtime.broker import EmbeddedBroker
from choreo.runtime.session import Session, UnknownOutcome
from choreo.runtime.shell import EngineShell
from choreo.topology.model import Cluster
from tests.chaos.reader import Follower, Found
from tests.engine.live import Live, wait_until
from tests.proxy.frames import Api
from tests.proxy.proxy import LOOPBACK, Proxy, Rule

SOCKET_TIMEOUT_S = 2.0
"""After so long without an answer a client gives a connection up: 10 s in a worker; the matrix waits for it often."""
DELAY_S = 3.0
"""A delay: beyond that timeout."""
STALLED_S = 60.0
"""Nothing comes out for so long: well over the session, the transaction timeout and every backoff."""
GROUP_PATIENCE_MS = 2_000
"""Beyond the session: 30 s in a worker."""
BACKOFF_S_MAX = 0.5
"""Between two sessions: 10 s in a worker, which the many sessions of a test would reach."""
SESSIONS_MAX = 1_000_000
"""In a row that end early: 20 in a worker; those that a test asked for count too."""
KEYS = 5
EVENTS = 12
"""Fed at each fault, some of which wait for a call."""
DRAIN_S = 3.0

AT_START = frozenset(
    {
        Api.FIND_COORDINATOR,
        Api.INIT_PRODUCER_ID,
        Api.JOIN_GROUP,
        Api.LIST_OFFSETS,
        Api.METADATA,
        Api.OFFSET_FETCH,
        Api.SYNC_GROUP,
    }
)
"""Requests that a worker makes when a session begins, rarely later."""
OF_ADMIN = {Api.LIST_OFFSETS: "choreo-admin"}
"""Requests of clients that have a name of their own: such a rule hits whichever lane asks first."""


class Restartable(Session):
    """A session that ends when a test wants it to, as after a commit of unknown end."""

    unwanted: ClassVar[set[str]] = set()  # groups

    def turn(self) -> None:
        if self._config.group in self.unwanted:
            self.unwanted.discard(self._config.group)
            raise UnknownOutcome("the test wants another session")
        super().turn()


@dataclass(frozen=True)
class Result:
    """What became of one fault.

    Attributes:
        rule: the fault.
        fired: whether it really happened.
        problem: what was wrong afterwards, "" if nothing.
        seconds: until everything fed at the time had its answer.
        sessions: how many the worker began meanwhile.
        restarts: how often it exited because it was fenced, and was started again.
    """

    rule: Rule
    fired: bool
    problem: str
    seconds: float
    sessions: int
    restarts: int


class Lane:
    """One worker behind the proxy, an input of its own, and a reader that goes past the proxy."""

    def __init__(self, broker: EmbeddedBroker, proxy: Proxy, name: str, folder: Path) -> None:
        self.name = name
        self._proxy = proxy
        self.live = Live(broker.bootstrap, name, folder)
        timeout_ms = str(round(SOCKET_TIMEOUT_S * 1_000))
        settings = {"client.id": name, "socket.timeout.ms": timeout_ms, "log_level": "0"}
        self._topology = replace(self.live.topology, cluster=Cluster(security=settings))
        self.shell = self._worker()
        self.restarts = 0
        wait_until(lambda: self._is_known(self.live.output), f"{self.live.output} is there")
        self.follower = Follower(broker.bootstrap, self.live.output)
        self.fed: dict[bytes, list[bytes]] = defaultdict(list)
        self._count = 0
        self._refused: list[KafkaError] = []
        self._writer = Producer(
            {
                "bootstrap.servers": broker.bootstrap,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "log_level": 0,
            }
        )

    def _worker(self) -> EngineShell:
        return self.live.shell("w0", topology=self._topology, bootstrap=f"{LOOPBACK}:{self._proxy.port}")

    def _is_known(self, topic: str) -> bool:
        return self.live.admin.list_topics(topic, timeout=STALLED_S).topics[topic].error is None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.shell.start(loop)

    def supervise(self) -> None:
        """Starts a worker again that exited because it was fenced, as a supervisor does.

        Raises:
            AssertionError: it ended for another reason.
        """
        if self.shell.failure is None:
            return
        assert isinstance(self.shell.failure, FencedSignal), f"the worker ended: {self.shell.failure!r}"
        self.restarts += 1
        self.shell = self._worker()
        self.shell.start(self._loop)

    def feed(self, events: int = EVENTS) -> None:
        """Some events of each key, in an order that can be checked; every third makes its step wait for a call."""
        for number in range(events):
            key = b"k%d" % (number % KEYS)
            value = b"%s-%s-%d" % (b"call" if number % 3 == 0 else b"now", key, len(self.fed[key]) + 1)
            self.fed[key].append(value)
            self._writer.produce(self.live.input, value, key, on_delivery=self._delivered)
            self._count += 1
        left = self._writer.flush(STALLED_S)
        assert not left and not self._refused, f"{self.name} was not fed: {left} left, {self._refused[:3]}"

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._refused.append(error)

    def suffer(self, rules: Sequence[Rule]) -> list[Result]:
        """Lets some faults happen while events come in, and waits until every event has its answer."""
        begun, sessions, restarts = time.monotonic(), self.shell.status().sessions, self.restarts
        armed = [self._proxy.arm(replace(rule, client=OF_ADMIN.get(rule.api, self.name))) for rule in rules]
        if any(rule.api in AT_START for rule in rules):
            Restartable.unwanted.add(self.live.group)
        problem = ""
        try:
            self.feed()
            for one in armed:
                self._wait_fired(one.fired.is_set)
            self.wait_answered()
        except AssertionError as error:
            problem = f"{error}\n{self.shell.status().as_json()}"
        for one in armed:
            self._proxy.disarm(one)
        seconds = round(time.monotonic() - begun, 2)
        began, restarted = self.shell.status().sessions - sessions, self.restarts - restarts
        return [Result(one.rule, one.fired.is_set(), problem, seconds, began, restarted) for one in armed]

    def _wait_fired(self, fired: Callable[[], bool]) -> None:
        """Goes on feeding until the fault happens: some requests need something to do, and come at their n-th time."""
        deadline = time.monotonic() + STALLED_S
        while not fired():
            self.supervise()
            assert time.monotonic() < deadline, "the fault did not happen"
            if len(self.follower) >= self._count:
                self.feed(2)
            time.sleep(0.02)

    def wait_answered(self) -> None:
        """Waits until there are as many answers as events."""

        def answered() -> bool:
            self.supervise()
            return len(self.follower) >= self._count

        self.follower.wait(answered, stalled_s=STALLED_S, why=f"{self._count} answers in {self.name}")

    def check(self) -> None:
        """Every event has one answer, in its key's order, with its key's count.

        Raises:
            AssertionError: something was lost, repeated or out of order.
        """
        found = counts(self.follower.stop())
        for key, values in self.fed.items():
            wanted = [b"%s=%d" % (value, number) for number, value in enumerate(values, 1)]
            assert found.get(key) == wanted, f"{self.name} {key!r}: {_difference(found.get(key, []), wanted)}"
        assert found.keys() == self.fed.keys()


def counts(found: Sequence[Found]) -> dict[bytes, list[bytes]]:
    """Key to its answers, in the order of the log."""
    by_key: dict[bytes, list[bytes]] = defaultdict(list)
    for record in sorted(found, key=lambda record: (record.partition, record.offset)):
        by_key[record.key or b""].append(record.value or b"")
    return by_key


def _difference(found: Sequence[bytes], wanted: Sequence[bytes]) -> str:
    lost = [value for value in wanted if value not in set(found)]
    repeated = [value for place, value in enumerate(found) if value in set(found[:place])]
    return f"{len(found)} answers to {len(wanted)} events, lost {lost[:5]}, repeated {repeated[:5]}, {found[-5:]!r}"


class Lanes:
    """Some lanes on one broker. Use as a context manager.

    Args:
        folder: for the workers' state.
        count: how many lanes.
        prefix: of names that nobody else uses.
    """

    def __init__(self, folder: Path, *, count: int, prefix: str = "lane") -> None:
        self._folder, self._count, self._prefix = folder, count, prefix
        self._stack = ExitStack()
        self.lanes: list[Lane] = []

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
        self._stack.enter_context(restartable())
        broker: EmbeddedBroker | None = None
        self.proxy = self._stack.enter_context(
            Proxy(lambda: None if broker is None or not broker.running else broker.behind_port)
        )
        broker = self.broker = self._stack.enter_context(EmbeddedBroker(proxy_port=self.proxy.port))
        # the proxy's own address is not the broker's: what a client is told there leads back to the proxy
        self.lanes = [
            Lane(broker, self.proxy, f"{self._prefix}{number}", self._folder) for number in range(self._count)
        ]
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="calls of the lanes")
        thread.start()

        def end() -> None:
            stops = [asyncio.run_coroutine_threadsafe(lane.shell.stop(DRAIN_S), loop) for lane in self.lanes]
            for stop in stops:
                stop.result(STALLED_S)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

        self._stack.callback(end)
        for lane in self.lanes:
            lane.start(loop)
            lane.feed()
        for lane in self.lanes:
            lane.wait_answered()

    def run(self, work: Sequence[Sequence[Sequence[Rule]]]) -> list[Result]:
        """Each lane suffers its list of faults, one group of rules after another; all lanes at once.

        A lane that does not get over something stops there.
        """
        results: list[list[Result]] = [[] for _ in work]
        broken: list[BaseException] = []

        def drive(lane: Lane, groups: Sequence[Sequence[Rule]], into: list[Result]) -> None:
            try:
                for rules in groups:
                    into += lane.suffer(rules)
                    if into[-1].problem:
                        return
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
                broken.append(error)

        threads = [
            threading.Thread(target=drive, args=(lane, groups, into), name=lane.name)
            for lane, groups, into in zip(self.lanes, work, results, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if broken:
            raise broken[0]
        return [result for lane in results for result in lane]


@contextmanager
def restartable() -> Iterator[None]:
    """Engine threads begin sessions that a test can end, again and again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shell_module, "Session", Restartable)
        patch.setattr(shell_module, "RESTART_BACKOFF_S_MAX", BACKOFF_S_MAX)
        patch.setattr(shell_module, "SESSIONS_FAILED_MAX", SESSIONS_MAX)
        patch.setattr(transaction_module, "SOCKET_TIMEOUT_MS", SOCKET_TIMEOUT_S * 1_000)
        patch.setattr(session_module, "GROUP_PATIENCE_MS", GROUP_PATIENCE_MS)
        yield


def dealt(groups: Sequence[Sequence[Rule]], lanes: int, seed: int) -> list[list[Sequence[Rule]]]:
    """Groups of rules among lanes, in an order by seed."""
    shuffled = list(groups)
    random.Random(seed).shuffle(shuffled)
    return [shuffled[number::lanes] for number in range(lanes)]
