"""``choreo.Producer``: events from outside enter a topology, typed, keyed and traced like any other.

An agent emits with ``ctx.emit``, inside its step's transaction. Everything else (a web handler, an import, a feed) uses
this: the event's class chooses the topic and its schema, the topology says which fields make the key, and the headers
start a new chain: a fresh id that is its own correlation, hop 0, a trace context marked unsampled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as KafkaProducer

from choreo.agent.record import Record
from choreo.codec.keys import encode_key
from choreo.codec.schema import Schema
from choreo.codec.wire import Encoder
from choreo.errors import ChoreoError, HostError, SchemaError, UndeclaredError
from choreo.kernel.envelope import Header, constant_headers, rfc3339
from choreo.kernel.ids import SPAN_ID_CHARS, Identity, trace_id
from choreo.runtime import kafka_config
from choreo.runtime.project import Project
from choreo.runtime.registry_choice import value_subject
from choreo.topology.model import Topic, Topology

SOURCE: Final = "producer"
"""Stands for the agent in ``ce_source``: ``/choreo/{topology}/producer``."""
DELIVERY_S_MAX: Final = 120.0
"""A record that no broker took for so long is reported as not delivered; Kafka's own default."""
QUEUE_WAIT_S: Final = 0.5
"""One wait for room in the full queue, before delivery reports are looked at again."""


class _Route(NamedTuple):
    """Everything about one (event class, topic) that does not change from event to event."""

    topic: Topic
    encoder: Encoder
    constants: tuple[Header, ...]


class Producer:
    """Sends events into a topology from outside it.

    Args:
        topology: file from the project root; ``CHOREO_TOPOLOGY`` overrides it. May be left out in a project with one.
        brokers: bootstrap addresses; ``CHOREO_BROKERS`` or the topology says if absent.
        transactional_id: makes each ``flush`` one transaction, so that readers see a batch whole or not at all. Give
            every process that runs at the same time its own.

    Guarantee:
        At least once, in order per key, without duplicates from retries (idempotent, acks=all). With a
        ``transactional_id``: what was sent between two flushes becomes visible at once or never.

    Example:
        ```python
        with choreo.Producer("topologies/logistics.yaml") as producer:
            producer.send(FlightDeparted(tail_number="N14228", dep_delay_minutes=45))
        ```
    """

    def __init__(
        self,
        topology: str | None = None,
        /,
        *,
        brokers: str | None = None,
        transactional_id: str | None = None,
    ) -> None:
        project = Project.find()
        self._start(project, project.load_topology(project.settings.topology or topology), brokers, transactional_id)

    @classmethod
    def _of(cls, project: Project, topology: Topology, *, transactional_id: str | None = None) -> Producer:
        """A producer for a topology that is loaded already (the command line)."""
        producer = cls.__new__(cls)
        producer._start(project, topology, None, transactional_id)
        return producer

    def _start(self, project: Project, topology: Topology, brokers: str | None, transactional_id: str | None) -> None:
        self._topology = topology
        self._bootstrap = brokers or project.bootstrap(self._topology)
        self._registry = project.registry(self._topology)
        self._identity = Identity(self._topology.name, SOURCE)
        self._routes: dict[tuple[type[Record] | Schema, str | None], _Route] = {}
        self._refused: ChoreoError | None = None
        self._transactional = transactional_id is not None
        self._in_transaction = False
        self._client = KafkaProducer(
            client_settings(self._bootstrap, self._topology.cluster.security, transactional_id)
        )
        if self._transactional:
            try:
                self._client.init_transactions(kafka_config.REQUEST_TIMEOUT_S)
            except KafkaException as error:
                raise self._failed(error.args[0]) from error

    def send(
        self,
        event: Record,
        *,
        topic: str | None = None,
        at: datetime | None = None,
        key: str | None = None,
    ) -> str:
        """Queue one event; ``flush`` waits until Kafka has it.

        Args:
            event: instance of a generated event class.
            topic: where to; needed only if several topics carry this event.
            at: event time, with a time zone; now if absent.
            key: message key; made of the topic's key fields if absent.

        Returns:
            The event's id: 32 hex digits.

        Raises:
            UndeclaredError: CH0311, no topic of the topology carries this event.
            SchemaError: CH0204, the event does not fit its schema; CH0205, the schema is not registered; CH0206, key.
            HostError: an earlier event could not be delivered.
        """
        route = self._routes.get((type(event), topic)) or self._route(type(event), topic)
        return self._send(route, event._to_avro(), at, key)

    def send_values(
        self,
        schema: Schema,
        values: Mapping[str, object],
        *,
        topic: str,
        at: datetime | None = None,
        key: str | None = None,
    ) -> str:
        """As ``send``, for values of a schema without its generated class (the command line)."""
        route = self._routes.get((schema, topic))
        if route is None:
            route = self._routes[(schema, topic)] = self._route_of(self._topology.topics[topic], schema)
        return self._send(route, values, at, key)

    def _send(self, route: _Route, values: Mapping[str, object], at: datetime | None, key: str | None) -> str:
        self._raise_refused()
        value = route.encoder.encode(values)
        message_key = encode_key([values.get(name) for name in route.topic.key]) if key is None else key.encode()
        event_id = os.urandom(16).hex()
        headers = root_headers(route.constants, event_id, message_key, datetime.now(UTC) if at is None else at)
        self.send_bytes(route.topic.name, message_key, value, headers)
        return event_id

    def send_bytes(self, topic: str, key: bytes | None, value: bytes | None, headers: tuple[Header, ...]) -> None:
        """Queue one record that is encoded already."""
        if self._transactional and not self._in_transaction:
            self._client.begin_transaction()
            self._in_transaction = True
        while True:
            try:
                self._client.produce(topic, value, key, on_delivery=self._delivered, headers=[*headers])
            except BufferError:
                self._client.poll(QUEUE_WAIT_S)  # the queue is full: let the network take some
                self._raise_refused()
            except KafkaException as error:
                raise self._failed(error.args[0], topic) from error
            else:
                self._client.poll(0)
                return

    def flush(self) -> None:
        """Wait until Kafka has everything; with a ``transactional_id``, commit it.

        Raises:
            HostError: CH0801 or CH0805, something was not delivered; with a ``transactional_id``, nothing of the batch
                was, unless the error is ``in_doubt``.
        """
        left = self._client.flush(DELIVERY_S_MAX)
        if left:
            self._refused = self._refused or HostError(
                f"{left} events were not delivered within {DELIVERY_S_MAX:.0f} s",
                code="CH0801",
                where=self._bootstrap,
                in_doubt=not self._transactional,
            )
        if self._in_transaction:
            self._in_transaction = False
            if self._refused is None:
                self._commit()
            else:
                self._client.abort_transaction(kafka_config.REQUEST_TIMEOUT_S)
        self._raise_refused()

    def _commit(self) -> None:
        """Commit; a commit whose answer was lost is asked again, which is safe."""
        while True:
            try:
                self._client.commit_transaction(DELIVERY_S_MAX)
            except KafkaException as error:
                cause: KafkaError = error.args[0]
                if cause.retriable():
                    continue
                if cause.txn_requires_abort():
                    self._client.abort_transaction(kafka_config.REQUEST_TIMEOUT_S)
                    raise self._failed(cause) from error
                raise self._failed(cause, in_doubt=True) from error
            else:
                return

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.flush()
        elif self._in_transaction:
            self._in_transaction = False
            self._client.abort_transaction(kafka_config.REQUEST_TIMEOUT_S)

    def _route(self, event: type[Record], wanted: str | None) -> _Route:
        """Topic, encoder and headers of an event class."""
        route = self._route_of(topic_of(self._topology, event, wanted), event._schema())
        self._routes[(event, wanted)] = route
        return route

    def _route_of(self, topic: Topic, schema: Schema) -> _Route:
        schema_id = self._registry.id_for(value_subject(topic.name), schema)
        return _Route(topic, Encoder(schema_id, schema), constant_headers(self._identity, schema.full_name))

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None and self._refused is None:
            self._refused = self._failed(error, message.topic())

    def _raise_refused(self) -> None:
        if self._refused is not None:
            refused, self._refused = self._refused, None
            raise refused

    def _failed(self, error: KafkaError, topic: str | None = None, *, in_doubt: bool = False) -> HostError:
        if error.name() in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"):
            return HostError(
                f"topic {topic} does not exist",
                code="CH0805",
                where=self._bootstrap,
                hint=f"create it with `choreo apply {self._topology.file}`",
                fault="user",
            )
        if error.name() in ("_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"):
            return HostError(
                "another producer with the same transactional_id has taken over", code="CH0306", where=self._bootstrap
            )
        code = "CH0305" if error.name() == "MSG_SIZE_TOO_LARGE" else "CH0801"
        return HostError(error.str(), code=code, where=topic or self._bootstrap, in_doubt=in_doubt)


def client_settings(bootstrap: str, security: Mapping[str, str], transactional_id: str | None) -> dict[str, Any]:
    """Every librdkafka option of the ingress producer."""
    settings: dict[str, Any] = {
        **kafka_config.common(bootstrap, security),
        "client.id": transactional_id or "choreo-producer",
        "enable.idempotence": True,
        "acks": "all",
        "retries": 2_147_483_647,  # bounded by time, not by number
        "message.timeout.ms": int(DELIVERY_S_MAX * 1000),
        "request.timeout.ms": 30_000,
        "max.in.flight.requests.per.connection": 5,
        "linger.ms": 10,
        "batch.size": 262_144,
        "compression.type": "none",
        "queue.buffering.max.messages": 100_000,
        "queue.buffering.max.kbytes": 131_072,
        "partitioner": "murmur2_random",
        "allow.auto.create.topics": False,
        "log_level": 0,  # failures come back as delivery reports
    }
    if transactional_id is not None:
        settings["transactional.id"] = transactional_id
        settings["transaction.timeout.ms"] = 60_000
        settings["message.timeout.ms"] = 60_000
    return settings


def root_headers(constants: tuple[Header, ...], event_id: str, key: bytes, at: datetime) -> tuple[Header, ...]:
    """Headers of an event that nothing in the topology caused.

    Raises:
        SchemaError: CH0204, ``at`` has no time zone.
    """
    if at.tzinfo is None:
        raise SchemaError(f"event time {at.isoformat()} has no time zone", code="CH0204", hint="use datetime(…, UTC)")
    time_ms = int(at.timestamp() * 1000)
    span = os.urandom(SPAN_ID_CHARS // 2).hex()
    return (
        ("ce_id", event_id.encode()),
        *constants,
        ("ce_time", rfc3339(time_ms).encode()),
        ("ce_correlationid", event_id.encode()),
        ("ce_choreohop", b"0"),
        ("traceparent", f"00-{trace_id(event_id)}-{span}-00".encode()),
        ("ce_subject", key),
    )


def topic_of(topology: Topology, event: type[Record], wanted: str | None) -> Topic:
    """The topic of a topology that carries an event.

    Raises:
        UndeclaredError: CH0311, there is none, or several and none was named.
    """
    full_name = event.__avro_name__
    short_name = full_name.rpartition(".")[2]
    carrying = {name: topic for name, topic in topology.topics.items() if topic.schema in (full_name, short_name)}
    if wanted is not None and wanted in carrying:
        return carrying[wanted]
    if wanted is None and len(carrying) == 1:
        return next(iter(carrying.values()))
    if wanted is not None:
        declared = topology.topics.get(wanted)
        seen = "is not declared" if declared is None else f"carries {declared.schema}"
        raise UndeclaredError(
            f"topic {wanted} {seen}; {short_name} goes to: {', '.join(carrying) or 'no topic'}", where=topology.file
        )
    if carrying:
        raise UndeclaredError(f"{short_name} goes to {', '.join(carrying)}: say topic=…", where=topology.file)
    raise UndeclaredError(
        f"no topic of the topology carries {short_name}",
        where=topology.file,
        hint=f"add under topics: `some-name: {{schema: {short_name}, key: …}}`",
    )
