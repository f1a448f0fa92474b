"""One run of a demo: workers up, events in, everything decided, workers down, everything counted."""

from __future__ import annotations

import importlib
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from choreo.agent.record import Record
from choreo.cli._demo.accounting import Account, Decided, Found, Letter, account
from choreo.cli._demo.history import History, Made, Told, reader_for
from choreo.cli._demo.interface import Demo, Fact
from choreo.cli._demo.latency import Latency, latency
from choreo.cli._demo.ledger import Client, Decoders, Sources, event_of, read_between
from choreo.cli._demo.watch import Watch
from choreo.codec.types import short_name
from choreo.codec.wire import Decoder
from choreo.errors import HostError
from choreo.runtime.producer import Producer
from choreo.runtime.project import SCHEMAS, Project
from choreo.runtime.supervisor import Supervisor, faust_worker, free_ports
from choreo.topology import names
from choreo.topology.model import Topology

READY_S_MAX: Final = 60.0
"""Five workers on two cores import and join in about six seconds; a slow machine gets ten times that."""
CRASHES_AT_START_MAX: Final = 3
UNDECIDED_MAX: Final = 400
"""The feed pauses while more (agent, record) pairs than this wait to be decided. A demo squeezes days into a minute: a
tenth of a second on the wall is many minutes of event time, and agents that fall behind would hear of a storm after it
has passed. So the feed goes as fast as the agents keep up, and events/s is what they sustain."""
QUIET_S: Final = 1.0
"""Everything is decided and nothing new came for so long: the chains that began with the last event have ended."""
STALLED_S: Final = 45.0
"""Nothing came for so long although something is undecided: longer than a worker's restart and take-over."""
_TICK_S: Final = 0.02
_BATCH: Final = 500
"""Records taken between two looks at the feed: reading must not hold the feed up."""
_LINES_KEPT: Final = 40
"""Last lines of each worker's log, shown only when something went wrong."""


class Progress(Protocol):
    """Where a run shows how far it is."""

    def phase(self, text: str) -> None: ...

    def fed(self, done: int, total: int) -> None: ...

    def decided(self, by_agent: Mapping[str, int], undecided: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left behind."""

    account: Account
    history: History
    latency: Latency
    latency_by_agent: Mapping[str, Latency]
    span_s: float
    fed: int
    restarts: int
    worker_lines: Mapping[str, Sequence[str]]


class Stage:
    """A demo's topology on a cluster: everything that stays the same during a run."""

    def __init__(self, demo: Demo, project: Project, topology: Topology, bootstrap: str) -> None:
        self.demo = demo
        self.project = project
        self.topology = topology
        self.client = Client(bootstrap, topology.cluster.security)
        self.reads = {agent.name: agent.reads for agent in topology.agents.values()}
        self.sources = Sources(topology.name, topology.agents)
        self.letters = [names.dead_letters(topology.name, agent) for agent in topology.agents]
        self.decisions = names.decisions(topology.name)
        self.environment = {"CHOREO_BROKERS": bootstrap, "CHOREO_TOPOLOGY": demo.topology}


def run(stage: Stage, facts: Sequence[Fact], *, rate: float, progress: Progress) -> Outcome:
    """Start a worker for each agent, feed, wait until everything is decided, stop, and read everything again.

    Args:
        stage: what runs where; topics exist, reference tables are loaded.
        facts: events, in order.
        rate: events a second.
        progress: where to show how far it is.

    Raises:
        HostError: the workers did not start, or crashed again and again.
    """
    watch = Watch(
        stage.client,
        stage.topology.topics,
        decisions=stage.decisions,
        letters=stage.letters,
        reads=stage.reads,
        sources=stage.sources,
    )
    logs: dict[str, deque[str]] = {agent: deque(maxlen=_LINES_KEPT) for agent in stage.topology.agents}
    supervisor = _supervisor(stage, logs)
    try:
        with supervisor:
            progress.phase(f"starting {len(logs)} workers")
            _wait_ready(supervisor)
            progress.phase("feeding")
            fed = _feed(stage, facts, rate, watch, supervisor, progress)
            progress.phase("waiting for the last decisions")
            ends = _wait_decided(stage, watch, supervisor, progress)
            restarts = sum(state.restarts for state in supervisor.states())
            progress.phase("stopping the workers")
    except HostError as error:
        raise _with_lines(error, logs) from error
    finally:
        watch.close()
    progress.phase("counting")
    latencies = watch.latencies_ms()
    counted, history = _read_back(stage, watch.starts, ends, fed)
    return Outcome(
        account=counted,
        history=history,
        latency=latency([one for some in latencies.values() for one in some]),
        latency_by_agent={agent: latency(some) for agent, some in latencies.items()},
        span_s=watch.span_s(),
        fed=len(fed),
        restarts=restarts,
        worker_lines={agent: tuple(lines) for agent, lines in logs.items()},
    )


def _supervisor(stage: Stage, logs: Mapping[str, deque[str]]) -> Supervisor:
    agents = stage.topology.agents.values()
    workers = [
        faust_worker(
            agent.app,
            name=agent.name,
            folder=stage.project.root,
            environment=stage.environment,
            port=port,
            log_level="warn",
        )
        for agent, port in zip(agents, free_ports(len(stage.topology.agents)), strict=True)
    ]
    return Supervisor(
        workers,
        on_line=lambda name, line: logs[name].append(line),
        on_change=lambda name, text: logs[name].append(f"({text})"),
    )


def _wait_ready(supervisor: Supervisor) -> None:
    """Until every worker has its partitions and has restored them."""
    deadline = time.monotonic() + READY_S_MAX
    waiting = {worker.name: f"{worker.url}/ready" for worker in supervisor.workers}
    while waiting:
        supervisor.poll()
        for name, url in list(waiting.items()):
            if _answers(url):
                del waiting[name]
        crashing = any(state.restarts >= CRASHES_AT_START_MAX for state in supervisor.states())
        if waiting and (crashing or time.monotonic() > deadline):
            raise HostError(
                f"workers did not come up: {', '.join(sorted(waiting))}",
                code="CH0808",
                hint="the last lines of their logs say why",
            )
        time.sleep(_TICK_S if waiting else 0)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _feed(
    stage: Stage,
    facts: Sequence[Fact],
    rate: float,
    watch: Watch,
    supervisor: Supervisor,
    progress: Progress,
) -> list[str]:
    """Send the facts, at most ``rate`` a second and only while the agents keep up. Returns their ids."""
    ids: list[str] = []
    last = time.monotonic()
    allowance = 0.0
    with Producer(stage.demo.topology, brokers=stage.client.bootstrap) as producer:
        while len(ids) < len(facts):
            now = time.monotonic()
            allowance = min(allowance + (now - last) * rate, rate * _TICK_S * 2)
            last = now
            if watch.undecided_of(len(ids)) < UNDECIDED_MAX:
                due = min(len(facts), len(ids) + int(allowance))
                allowance -= due - len(ids)
                ids.extend(producer.send(fact.event, topic=fact.topic, at=fact.at) for fact in facts[len(ids) : due])
            watch.poll(_TICK_S, _BATCH)
            supervisor.poll()
            progress.fed(len(ids), len(facts))
            progress.decided(watch.decided, watch.undecided)
            if watch.quiet_s > STALLED_S:
                break
        producer.flush()
    return ids


def _wait_decided(stage: Stage, watch: Watch, supervisor: Supervisor, progress: Progress) -> dict[tuple[str, int], int]:
    """Until everything up to some moment is decided, or nothing moves any more. Returns the ends at that moment."""

    def until(condition: Callable[[], bool]) -> None:
        while not condition() and watch.quiet_s < STALLED_S:
            watch.poll(0.1, _BATCH)
            supervisor.poll()
            progress.decided(watch.decided, watch.undecided)

    until(lambda: watch.settled and watch.quiet_s >= QUIET_S)
    ends = stage.client.ends(list(watch.starts))
    until(lambda: watch.decided_up_to(ends))
    return ends


def _read_back(
    stage: Stage, starts: Mapping[tuple[str, int], int], ends: Mapping[tuple[str, int], int], fed: Sequence[str]
) -> tuple[Account, History]:
    """The account and the history, from a second and complete reading with a client of its own."""
    decoders = Decoders()
    letter_topics = frozenset(stage.letters)
    found: list[Found] = []
    told: list[Told] = []
    decided: list[Decided] = []
    made: list[Made] = []
    letters: list[Letter] = []
    for entry in read_between(stage.client, starts, stage.client.ends(list(starts))):
        if entry.topic == stage.decisions:
            for_account, for_story = decoders.decision(entry)
            decided.append(for_account)
            made.append(for_story)
        elif entry.topic in letter_topics:
            letters.append(decoders.letter(entry))
        else:
            record, event = event_of(entry, stage.sources.agent(entry))
            found.append(record)
            told.append(event)
    counted = account(found, decided, reads=stage.reads, fed=fed, letters=letters, ends=ends)
    return counted, History(told, made, _reader(stage))


def _reader(stage: Stage) -> Callable[[str, bytes], Record]:
    """Turns the bytes of a topic's record into its event class."""
    registry = stage.project.registry(stage.topology)
    classes = event_classes(stage.topology)
    decoders = {topic: Decoder(cls._schema(), registry.schema_by_id) for topic, cls in classes.items()}
    return reader_for(classes, lambda topic, value: decoders[topic].decode(value))


def event_classes(topology: Topology) -> dict[str, type[Record]]:
    """The generated class of each topic's events; the project root has to be importable."""
    module = importlib.import_module(SCHEMAS)
    classes = {}
    for topic in topology.topics.values():
        cls = getattr(module, short_name(topic.schema), None)
        if cls is None:
            raise HostError(
                f"the package schemas has no class {short_name(topic.schema)}",
                where=str(topic.position),
                hint="run `choreo schemas generate`",
                fault="user",
            )
        classes[topic.name] = cls
    return classes


def _with_lines(error: HostError, logs: Mapping[str, Sequence[str]]) -> HostError:
    """The error with what the workers said last."""
    lines = [f"  {name}: {line}" for name, last in logs.items() for line in list(last)[-5:]]
    return HostError("\n".join([error.message, *lines]), code=error.code, where=error.where, hint=error.hint)
