"""The declared topology as frozen values. Everything below was checked by the parser; nothing here reads a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

StoreKind = Literal["memory", "rocksdb"]
AgentKind = Literal["handlers", "react", "faust"]
Start = Literal["earliest", "latest"]
Audit = Literal["full", "brief", "off"]
Compatibility = Literal["BACKWARD", "FORWARD", "FULL", "NONE"]


class Position(NamedTuple):
    """Where in which file something is declared; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """How to reach Kafka and the registry. ``bootstrap`` is None when neither file nor environment says so."""

    bootstrap: str | None = None
    schema_registry: str = field(default="file", repr=False)  # "file", or the URL of a Confluent-compatible registry
    security: Mapping[str, str] = field(default_factory=dict, repr=False)  # librdkafka settings; may hold passwords
    replication: int | None = None  # of topics that apply creates; None: the cluster's own default


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    schema: str  # short or full name of an Avro record under schemas/
    key: tuple[str, ...]  # fields of the record that make the message key, in order
    partitions: int
    retention_ms: int | None  # None: kept for ever
    position: Position
    compact: bool = False
    external: bool = False  # owned by someone else: never created, never changed
    ingress: bool = False  # ours, but written from outside: Producer, `choreo send`, a connector
    dedupe_ms: int | None = None
    compatibility: Compatibility = "BACKWARD"
    message_bytes_max: int = 1_048_576


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    schema: str
    key: tuple[str, ...]
    position: Position
    store: StoreKind = "memory"
    reference: bool = False  # read-only, whole, in every worker
    partitions: int = 1  # of a reference table's own topic; other tables follow their agent


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    kind: str
    function: str | None
    effect: str
    timeout_ms: int
    position: Position


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    provider: str
    position: Position
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one agent. Durations in milliseconds."""

    in_flight: int = 256  # lanes that may wait for a call at the same time, in one worker
    hops: int = 16  # events that went through more agents than this are dead letters
    merge_wait_ms: int = 100  # how long one input waits for another of the same partition
    retries: int = 5  # attempts after the first, before a failing step becomes a dead letter
    retry_backoff_ms: int = 100  # first wait; doubles each time, at most 30 s
    steps: int | None = None
    tokens: int | None = None
    deadline_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    name: str
    app: str  # dotted module that holds `app`
    kind: AgentKind
    position: Position
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    start: Start = "earliest"
    limits: Limits = Limits()
    audit: Audit = "full"
    autonomy: Mapping[str, object] = field(default_factory=dict)
    model: str | None = None
    prompt: str | None = None
    answer: str | None = None
    version: int = 1


@dataclass(frozen=True, slots=True)
class Flow:
    name: str
    source: str
    to: str
    position: Position
    when: str | None = None
    within_ms: int | None = None
    exactly: int | None = None
    at_most: int | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    name: str
    owner: str
    file: str
    cluster: Cluster
    topics: Mapping[str, Topic]
    tables: Mapping[str, Table]
    agents: Mapping[str, Agent]
    tools: Mapping[str, Tool] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    flows: Mapping[str, Flow] = field(default_factory=dict)
    # Where each value of the file stands, by its path: ("agents", "desk", "reads", 0). Only what the file says is here.
    positions: Mapping[tuple[str | int, ...], Position] = field(default_factory=dict, compare=False, repr=False)

    def at(self, *path: str | int) -> Position:
        """Place of a value in the file, or of the nearest thing around it that the file says."""
        for length in range(len(path), 0, -1):
            found = self.positions.get(path[:length])
            if found is not None:
                return found
        return Position(self.file, 1, 1)

    def declares(self, *path: str | int) -> bool:
        """Whether the file itself gives this value (a default is not declared)."""
        return path in self.positions

    def partitions_of(self, agent: str) -> int:
        """Partition count of an agent: that of its inputs (lint CH01xx refuses inputs that differ)."""
        return max((self.topics[name].partitions for name in self.agents[agent].reads), default=1)
