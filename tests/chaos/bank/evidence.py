"""What a round left behind, as values: all that the invariants are judged by, and nothing of how it was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

TOPOLOGY: Final = "bank"
DEBIT, CREDIT, NOTIFY = AGENTS = ("debit", "credit", "notify")
TRANSFERS, CREDITS, REFUNDS, OUTCOMES, NOTICES = TOPICS = ("transfers", "credits", "refunds", "outcomes", "notices")
READS: Final = {DEBIT: (TRANSFERS, REFUNDS), CREDIT: (CREDITS,), NOTIFY: (OUTCOMES,)}
TABLES: Final = {DEBIT: "paying_accounts", CREDIT: "receiving_accounts", NOTIFY: "customer_files"}
RECORDS: Final = {
    TRANSFERS: "TransferRequested",
    CREDITS: "CreditOrdered",
    REFUNDS: "RefundOrdered",
    OUTCOMES: "TransferDecided",
    NOTICES: "CustomerNotified",
    "paying_accounts": "PayingAccount",
    "receiving_accounts": "ReceivingAccount",
    "customer_files": "CustomerFile",
}

Value = Mapping[str, Any]


class Place(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class Event(NamedTuple):
    """A record of one of the bank's topics. ``key`` and ``value`` None: not readable as the topic says."""

    place: Place
    key: str | None
    value: Value | None
    raw_key: bytes | None
    raw_value: bytes | None
    id: str
    source: str
    time: str
    correlation: str  # the event's own id where no header says otherwise
    causation: str
    hop: int


class Change(NamedTuple):
    """A record of a table's changelog."""

    table: str
    partition: int
    offset: int
    key: str
    row: Value | None
    cause: str  # id of the event whose step wrote it


class Decision(NamedTuple):
    """A decision record: one step of one agent."""

    at: Place  # of the record itself
    agent: str
    entity: str
    sequence: int
    outcome: str
    event_id: str
    input: Place
    correlation: str
    causation: str
    hop: int
    emits: tuple[tuple[str, str], ...]  # (topic, event id)
    before: Value | None
    after: Value | None
    changed: bool  # whether a row is said to have changed
    code: str | None


class Letter(NamedTuple):
    """A dead letter."""

    agent: str
    event_id: str
    code: str
    input: Place
    key: bytes | None
    value: bytes | None


class Poison(NamedTuple):
    """What the feeder broke in an event, and the code that must come of it."""

    cause: str
    code: str


class Commit(NamedTuple):
    """One offset commit of a group, in the order in which the coordinator took them."""

    group: str
    topic: str
    partition: int
    offset: int
    metadata: str
    owner: str  # transactional id that the metadata names
    at_ms: int


class Zombie(NamedTuple):
    """A worker that was stopped past its session while it held partitions."""

    owner: str  # its transactional id
    agent: str
    partitions: tuple[int, ...]
    frozen_ms: int
    thawed_ms: int
    back_ms: int  # when it was given partitions again, or exited


class Snapshot(NamedTuple):
    """Ends of the account tables' changelogs at a moment (read_committed), credit's side read before debit's."""

    receiving: Mapping[int, int]
    paying: Mapping[int, int]


class Call(NamedTuple):
    """A question that the ledger recorded."""

    number: int
    at_ms: int
    account: str
    key: str


class Disturbance(NamedTuple):
    """A time in which a fault touched an agent's workers, or one of them (``worker``: its transactional id)."""

    kind: str
    agents: tuple[str, ...]
    from_ms: int
    to_ms: int
    worker: str = ""


@dataclass
class Fed:
    """What the feeder says it wrote."""

    committed: dict[Place, str] = field(default_factory=dict)  # → event id
    aborted: set[str] = field(default_factory=set)
    poison: dict[str, Poison] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)  # event id → what it is for, see feed.py


@dataclass
class Evidence:
    """One round."""

    fed: Fed
    events: dict[str, list[Event]]  # by topic, in the order of partition and offset
    changes: dict[str, list[Change]]  # by table, in the same order
    decisions: list[Decision]
    letters: list[Letter]
    committed: dict[tuple[str, str, int], int]  # (group, topic, partition) → offset at the end
    commits: list[Commit]
    snapshots: list[Snapshot]
    zombies: list[Zombie]
    calls: list[Call]
    disturbances: list[Disturbance]
    seen: list[tuple[Place, str]]  # decisions as a reader saw them during the run: place, event id
    healed: dict[tuple[str, int], int]  # (input topic, partition) → end when the last fault was over
    planned: Mapping[str, int]
    fired: Mapping[str, int]
    ended: Sequence[str] = ()  # workers that ended by themselves when they should not


def group(agent: str) -> str:
    return f"{TOPOLOGY}.{agent}"
