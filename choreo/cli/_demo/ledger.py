"""Reads topics whole, at ``read_committed``, with a client of its own: what the accounting is made from.

The end of a topic is taken at READ_UNCOMMITTED and then read up to at read_committed: a transaction that is still open
holds the reader up instead of hiding what it wrote.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from choreo.cli._demo.accounting import Decided, Found, Letter
from choreo.cli._demo.history import Made, Told
from choreo.codec.wire import Decoder
from choreo.errors import HostError
from choreo.kernel.envelope import parse_headers
from choreo.kernel.ids import Identity
from choreo.kernel.values import Delivery, InputTopic
from choreo.runtime.builtin_schemas import builtin_id, builtin_lock
from choreo.runtime.kafka_config import reader
from choreo.runtime.log_ends import log_ends
from choreo.runtime.preflight import admin_client, cluster_topics

BATCH: Final = 2_000
# Longer than the broker may take to end the transaction of a worker that died (15 s, then its scan).
QUIET_S_MAX: Final = 30.0
# A broker gives some hundred new partitions their leaders within about five seconds, on a busy machine in ten.
LEADERS_S_MAX: Final = 60.0
_POLL_S: Final = 0.2


class Entry(NamedTuple):
    """One record as read."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    headers: Mapping[str, bytes]
    value: bytes | None


class Client:
    """How to reach the cluster."""

    def __init__(self, bootstrap: str, security: Mapping[str, str]) -> None:
        self.bootstrap = bootstrap
        self.security = dict(security)

    def partitions(self, topics: Sequence[str]) -> list[tuple[str, int]]:
        """Every partition of the topics.

        Raises:
            HostError: CH0805, a topic does not exist.
        """
        known = cluster_topics(admin_client(self.bootstrap, self.security), self.bootstrap)
        missing = [topic for topic in topics if topic not in known]
        if missing:
            raise HostError(f"the cluster has no topic {missing[0]}", code="CH0805", hint="run `choreo apply`")
        return [(topic, number) for topic in topics for number in range(known[topic])]

    def ends(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """End offsets, open transactions included.

        Raises:
            HostError: CH0801, the cluster does not answer.
        """
        return log_ends(self.bootstrap, self.security, partitions, OffsetSpec.latest(), patience_s=LEADERS_S_MAX)

    def consumer(self) -> Consumer:
        """A reader at read_committed that is assigned by hand and commits nothing."""
        return Consumer({**reader(self.bootstrap, self.security), "log_level": 0})


def read_between(
    client: Client, starts: Mapping[tuple[str, int], int], ends: Mapping[tuple[str, int], int]
) -> Iterator[Entry]:
    """Committed records from the start offsets up to, not including, the end offsets."""
    left = {place for place, end in ends.items() if end > starts[place]}
    consumer = client.consumer()
    quiet_since = time.monotonic()
    try:
        consumer.assign([TopicPartition(topic, number, starts[(topic, number)]) for topic, number in sorted(left)])
        while left:
            messages = consumer.consume(BATCH, _POLL_S)
            for message in messages:
                entry = entry_of(message)
                if entry is not None and entry.offset < ends[(entry.topic, entry.partition)]:
                    yield entry
            # The position passes commit markers, which no message shows.
            for place in consumer.position([TopicPartition(*place) for place in left]):
                if place.offset >= ends[(place.topic, place.partition)]:
                    left.discard((place.topic, place.partition))
            if messages:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > QUIET_S_MAX:
                raise HostError(
                    f"{len(left)} partitions did not come to their end for {QUIET_S_MAX:g} s, one of them {min(left)}",
                    code="CH0801",
                    hint="a transaction may still be open",
                )
    finally:
        consumer.close()


def entry_of(message: Any) -> Entry | None:
    """A message as an entry; None for the end of a partition.

    Raises:
        KafkaException: the client failed.
    """
    error = message.error()
    if error is not None:
        if error.code() == KafkaError._PARTITION_EOF or (not error.fatal() and error.retriable()):
            return None
        raise KafkaException(error)
    _, timestamp_ms = message.timestamp()
    headers = dict(message.headers() or ())
    return Entry(message.topic(), message.partition(), message.offset(), timestamp_ms, headers, message.value())


class Sources:
    """Who wrote a record, by its ``ce_source``."""

    def __init__(self, topology: str, agents: Iterable[str]) -> None:
        self._agent_of = {Identity(topology, agent).source.encode(): agent for agent in agents}

    def agent(self, entry: Entry) -> str | None:
        """The agent; None: the record came from outside."""
        return self._agent_of.get(entry.headers.get("ce_source", b""))


def event_of(entry: Entry, agent: str | None) -> tuple[Found, Told]:
    """A record of the topology's topics, for the accounting and for stories."""
    where = (entry.topic, entry.partition, entry.offset)
    delivery = Delivery(*where, entry.timestamp_ms, None, None, tuple(entry.headers.items()))
    envelope = parse_headers(delivery, InputTopic(entry.topic))
    told = Told(*where, entry.timestamp_ms, envelope.event_id, agent, envelope.time_ms, entry.value or b"")
    return Found(*where, envelope.event_id, agent), told


class Decoders:
    """Decodes choreo's own records."""

    def __init__(self) -> None:
        self._decision = Decoder(builtin_id("Decision")[1], builtin_lock().schema)
        self._letter = Decoder(builtin_id("DeadLetter")[1], builtin_lock().schema)

    def decision(self, entry: Entry) -> tuple[Decided, Made]:
        """A Decision record, for the accounting and for stories."""
        value = self._decision.decode(entry.value or b"", f"{entry.topic}/{entry.partition}/{entry.offset}")
        emits = value["emits"]
        place = None if value["topic"] is None else (value["topic"], value["partition"], value["offset"])
        decided = Decided(
            value["agent"],
            value["kind"],
            value["outcome"],
            place,
            value["event_id"],
            tuple((emit["topic"], emit["event_id"]) for emit in emits),
        )
        made = Made(
            value["agent"],
            value["kind"],
            value["event_id"],
            value["timer"],
            value["causation_id"],
            tuple(emit["event_id"] for emit in emits),
            tuple(source["event_id"] for source in value["sources"]),
        )
        return decided, made

    def letter(self, entry: Entry) -> Letter:
        value = self._letter.decode(entry.value or b"", f"{entry.topic}/{entry.partition}/{entry.offset}")
        return Letter(value["agent"], value["event_id"])
