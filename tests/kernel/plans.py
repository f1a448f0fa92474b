"""What a seed decides beforehand about its world."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Final

import choreo.kernel.burst as burst_module
import choreo.kernel.engine as engine_module
import choreo.kernel.partition as partition_module
from choreo.kernel.progress import Snapshot, encode_metadata
from choreo.kernel.values import InputTopic
from choreo.topology import names
from choreo.topology.model import Agent, Cluster, Limits, Position, Table, Topic, Topology
from tests.kernel.fakes import AGENT, OUT, TABLE, TOPOLOGY
from tests.kernel.places import INBOX

FAULTS: Final = (
    "crash",
    "crash",
    "start",
    "start",
    "start",
    "pause",
    "stall",
    "expire",
    "twin",
    "clock",
    "timeout",
    "leave",
    "stop",
    "slow",
    "person",
    "cut_off",
)
STALLS: Final = ("stall", "stall", "stall", "start", "crash", "leave", "cut_off")
"""A worker stops within a transaction and goes on when others have taken over: the schedules that are hardest to get
right are rare unless asked for."""
PLAIN_CHARS: Final = len(encode_metadata(Snapshot(0, ()), names.transactional_id(TOPOLOGY, AGENT, "w0")))
"""Length of a commit's metadata that says nothing but its owner."""
_HERE: Final = Position("simulated", 1, 1)


@dataclass(frozen=True)
class Plan:
    """One world."""

    partitions: int = 1
    workers: int = 1
    inputs: tuple[InputTopic, ...] = ()  # the inbox is the last
    entities: int = 1
    events: int = 0
    in_flight: int = 100
    retries: int = 1
    steps: int = 0
    fault_rate: float = 0.0
    yield_rate: float = 0.0  # how often the world goes on elsewhere at a fault point
    restore_rate: float = 1.0  # how often a restore's thread runs when it is its turn
    faults: tuple[str, ...] = ()
    words: tuple[str, ...] = ("",)
    ordered_times: bool = True
    rocksdb: bool = False
    bounds: Mapping[tuple[ModuleType, str], int] = field(default_factory=dict)  # constants of the kernel, made small
    values: tuple[str, ...] = field(default=())  # fixed inputs instead of drawn ones, see `sweep.py`

    @property
    def single_topic(self) -> bool:
        return len(self.inputs) == 2

    def topology(self) -> Topology:
        topics = {
            one.name: Topic(one.name, "E", ("k",), self.partitions, None, _HERE, dedupe_ms=one.dedupe_ms)
            for one in self.inputs[:-1]
        }
        reads = tuple(topics)
        topics[OUT] = Topic(OUT, "E", ("k",), 1, None, _HERE)
        limits = Limits(in_flight=self.in_flight, retries=self.retries, retry_backoff_ms=50)
        agent = Agent(AGENT, "a", "handlers", _HERE, reads, (OUT,), (TABLE,), limits=limits)
        tables = {TABLE: Table(TABLE, "C", ("k",), _HERE, store="rocksdb" if self.rocksdb else "memory")}
        return Topology(TOPOLOGY, "tests", "simulated", Cluster(), topics, tables, {AGENT: agent})


def inputs(topics: int, dedupe_ms: int | None) -> tuple[InputTopic, ...]:
    return (
        *(InputTopic(f"in-{number}", dedupe_ms, "c", f"t{number}") for number in range(topics)),
        InputTopic(INBOX, None, "c", "ti", inbox=True),
    )


def plan_of(chance: random.Random, *, stalls: bool) -> Plan:
    stalls = stalls or chance.random() < 0.2
    topics = 1 if chance.random() < 0.6 else 2
    dedupe_ms = None if chance.random() < 0.5 else 10**12
    words = ["", "", "plain", "many", "call", "call call", "timer", "timer call", "cancel"]
    for more in (["flaky", "flaky call"], ["tired", "broken"], ["park", "park call"], ["big", "forget", "call flaky"]):
        words += more if chance.random() < 0.5 else []
    if chance.random() < 0.1:
        words.append("rejected")
    return Plan(
        partitions=chance.randint(1, 4),
        workers=3 if stalls else chance.randint(1, 4),
        inputs=inputs(topics, dedupe_ms),
        entities=chance.choice((1, 3, 8)),
        events=chance.randint(10, 60),
        in_flight=chance.choice((1, 2, 100)),
        retries=chance.randint(0, 2),
        steps=chance.randint(200, 800),
        fault_rate=0.1 if stalls else chance.choice((0.0, 0.02, 0.05, 0.1)),
        yield_rate=0.3 if stalls else chance.choice((0.02, 0.1, 0.3)),
        restore_rate=chance.choice((0.2, 1.0, 1.0)),
        faults=STALLS if stalls else FAULTS,
        words=tuple(words),
        ordered_times=chance.random() < 0.5,
        rocksdb=chance.random() < 0.5,
        bounds=_bounds(chance),
    )


def _bounds(chance: random.Random) -> dict[tuple[ModuleType, str], int]:
    """Makes some bounds so small that a small world meets them."""
    bounds: dict[tuple[ModuleType, str], int] = {}
    if chance.random() < 0.3:
        bounds[engine_module, "BUFFERED_RECORDS_MAX"] = chance.choice((1, 4))
    if chance.random() < 0.3:
        bounds[engine_module, "BURST_BYTES_MAX"] = bounds[burst_module, "BURST_BYTES_MAX"] = chance.choice((1, 1_500))
    if chance.random() < 0.2:
        bounds[burst_module, "BURST_STEPS_MAX"] = chance.choice((1, 2))
    if chance.random() < 0.2:
        bounds[burst_module, "OFFSETS_MAX"] = 1
    if chance.random() < 0.3:
        chars = chance.choice((PLAIN_CHARS, PLAIN_CHARS + 4, PLAIN_CHARS + 8))
        bounds[burst_module, "METADATA_CHARS_MAX"] = bounds[partition_module, "METADATA_CHARS_MAX"] = chars
    return bounds
