"""Kafka's log in memory: partitions, offsets, transactions, read_committed. No promise is proven on it.

It has what the engine relies on and what its tests must see: records of a transaction appear together or not at all,
aborted ones never; a reader at read_committed stops before the first open transaction; the end of a transaction takes
an offset that nobody delivers; a producer with a newer one of its transactional id is fenced; offsets committed in a
transaction appear with it. The same contract tests run on it and on a real broker (``tests/testing/test_bus.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from choreo.errors import FencedSignal, HostError
from choreo.kernel.partitioner import murmur2_partition
from choreo.kernel.values import Delivery, Headers, OutRecord

RECORDS_MAX: Final = 1_000_000
"""Records one bus holds: a test that writes more wants a real broker."""


class Committed(NamedTuple):
    """An offset that a group committed, with its metadata."""

    offset: int
    metadata: str


class Transaction:
    """What one transaction wrote. Made by ``MemoryProducer``."""

    __slots__ = ("offsets", "state", "touched")

    def __init__(self) -> None:
        self.state: Literal["open", "committed", "aborted"] = "open"
        self.touched: dict[tuple[str, int], None] = {}
        self.offsets: dict[tuple[str, str, int], Committed] = {}


class _Entry(NamedTuple):
    record: OutRecord | None  # None: the marker that ends a transaction
    timestamp_ms: int
    transaction: Transaction | None
    number: int  # order over all partitions


class MemoryBus:
    """Topics of one cluster.

    Args:
        cluster_id: its identity; with the topic's id it makes the ids of events that come without one.
    """

    def __init__(self, cluster_id: str = "memory") -> None:
        self.cluster_id = cluster_id
        self._logs: dict[str, list[list[_Entry]]] = {}
        self._offsets: dict[tuple[str, str, int], Committed] = {}
        self._producers: dict[str, MemoryProducer] = {}
        self._records = 0

    # -- topics --------------------------------------------------------------------------------------------------------

    def create_topic(self, name: str, partitions: int) -> None:
        """Makes a topic; one that exists with as many partitions stays as it is.

        Raises:
            HostError: CH0805, it exists with another number.
        """
        log = self._logs.setdefault(name, [[] for _ in range(partitions)])
        if len(log) != partitions:
            raise HostError(f"topic {name} has {len(log)} partitions, not {partitions}", code="CH0805", fault="user")

    @property
    def topics(self) -> Mapping[str, int]:
        """Partition counts by topic."""
        return {name: len(log) for name, log in self._logs.items()}

    def topic_id(self, name: str) -> str:
        """Identity of a topic."""
        return f"{self.cluster_id}/{name}"

    def _partition(self, topic: str, partition: int) -> list[_Entry]:
        log = self._logs.get(topic)
        if log is None or not 0 <= partition < len(log):
            raise HostError(f"there is no {topic}/{partition}", code="CH0805", fault="user")
        return log[partition]

    # -- writing -------------------------------------------------------------------------------------------------------

    def send(self, record: OutRecord, timestamp_ms: int) -> tuple[int, int]:
        """Appends one record outside any transaction.

        Returns:
            Its partition and offset.
        """
        return self.append(record, timestamp_ms, None)

    def producer(self, transactional_id: str) -> MemoryProducer:
        """A transactional producer. It aborts what an earlier one of the same id left open, and fences it."""
        earlier = self._producers.get(transactional_id)
        if earlier is not None:
            earlier.fence()
        made = self._producers[transactional_id] = MemoryProducer(self)
        return made

    def append(self, record: OutRecord, timestamp_ms: int, transaction: Transaction | None) -> tuple[int, int]:
        """For producers."""
        partition = record.partition
        if partition is None:
            count = self.topics.get(record.topic, 1)
            partition = 0 if record.key is None else murmur2_partition(record.key, count)
        entries = self._partition(record.topic, partition)
        if self._records >= RECORDS_MAX:
            raise HostError(f"the bus holds {RECORDS_MAX} records already", code="CH0805", fault="user")
        self._records += 1
        entries.append(_Entry(record, timestamp_ms, transaction, self._records))
        if transaction is not None:
            transaction.touched[record.topic, partition] = None
        return partition, len(entries) - 1

    def end(self, transaction: Transaction, state: Literal["committed", "aborted"], timestamp_ms: int) -> None:
        """For producers: markers into every partition, then the offsets."""
        transaction.state = state
        for topic, partition in transaction.touched:
            self._partition(topic, partition).append(_Entry(None, timestamp_ms, transaction, self._records))
        if state == "committed":
            self._offsets.update(transaction.offsets)

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(
        self, topic: str, partition: int, position: int, *, committed_only: bool = True
    ) -> tuple[list[Delivery], int]:
        """Records from a position on.

        Args:
            topic: which topic.
            partition: which partition.
            position: first offset that may be returned.
            committed_only: as ``isolation.level=read_committed``.

        Returns:
            The records, and the position after what was looked at: behind markers and aborted records too.
        """
        entries = self._partition(topic, partition)
        found: list[Delivery] = []
        while position < len(entries):
            entry = entries[position]
            state = "committed" if entry.transaction is None else entry.transaction.state
            if committed_only and state == "open":
                break
            record = entry.record
            if record is not None and (state == "committed" or not committed_only):
                headers: Headers = record.headers
                found.append(
                    Delivery(topic, partition, position, entry.timestamp_ms, record.key, record.value, headers)
                )
            position += 1
        return found, position

    def history(self, topic: str, after: int = 0) -> tuple[list[Delivery], int]:
        """Committed records of all partitions of a topic in the order they were written.

        Args:
            topic: which topic.
            after: what an earlier call returned second; 0 for all.

        Returns:
            The records, and where to go on.
        """
        found: list[tuple[int, Delivery]] = []
        for partition, entries in enumerate(self._logs.get(topic, [])):
            numbers = {offset: entry.number for offset, entry in enumerate(entries) if entry.number > after}
            if numbers:
                deliveries, _ = self.read(topic, partition, min(numbers))
                found += [(numbers[one.offset], one) for one in deliveries]
        found.sort(key=lambda one: one[0])
        return [one for _, one in found], max((number for number, _ in found), default=after)

    def end_offset(self, topic: str, partition: int) -> int:
        """The next offset to be written; open transactions count."""
        return len(self._partition(topic, partition))

    def committed(self, group: str, topic: str, partition: int) -> Committed | None:
        """What the group committed last for a partition."""
        return self._offsets.get((group, topic, partition))


class MemoryProducer:
    """A transactional producer of one transactional id. Made by ``MemoryBus.producer``."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._transaction: Transaction | None = None
        self._fenced = False
        self._last_ms = 0

    def begin(self) -> None:
        """Begins a transaction.

        Raises:
            FencedSignal: a newer producer has this transactional id.
            RuntimeError: one is open already.
        """
        self._check()
        if self._transaction is not None:
            raise RuntimeError("a transaction is open already")
        self._transaction = Transaction()

    def send(self, record: OutRecord, timestamp_ms: int) -> tuple[int, int]:
        """Appends a record to the open transaction: its partition and offset."""
        self._last_ms = timestamp_ms
        return self._bus.append(record, timestamp_ms, self._open())

    def send_offsets(self, group: str, offsets: Mapping[tuple[str, int], Committed]) -> None:
        """Commits a group's offsets with the transaction."""
        transaction = self._open()
        for (topic, partition), committed in offsets.items():
            transaction.offsets[group, topic, partition] = committed

    def commit(self) -> None:
        """Makes everything of the transaction visible at once."""
        self._end("committed")

    def abort(self) -> None:
        """Makes sure that nothing of the transaction is ever seen."""
        self._end("aborted")

    def fence(self) -> None:
        """For the bus: a newer producer took over."""
        if self._transaction is not None:
            self._end("aborted")
        self._fenced = True

    def _open(self) -> Transaction:
        self._check()
        if self._transaction is None:
            raise RuntimeError("no transaction is open")
        return self._transaction

    def _end(self, state: Literal["committed", "aborted"]) -> None:
        transaction = self._open()
        self._transaction = None
        self._bus.end(transaction, state, self._last_ms)

    def _check(self) -> None:
        if self._fenced:
            raise FencedSignal
