"""The raw loop: the same job as ``agents/scoring.py``, as plain as exactly-once allows. The limit choreo is held to.

    python -m benchmarks.raw_loop '{"bootstrap": …}'

What a good engineer would write by hand with confluent-kafka and fastavro: batch consume, Avro to a dict, state in a
dict, one Avro output per event, one changelog row per changed account and transaction, offsets in the transaction. No
types, no checks of values, no dead letters, no order across a retry. So it does less than choreo in every respect, on
the same broker, with the same client library and client settings, except those that were tried and found better for it
(``benchmarks/tune_raw.py`` prints the trials).

``headers: all`` writes and reads every header that choreo does, which shows what the wire format alone costs.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from choreo.runtime import kafka_config
from choreo.runtime.collector import tune_collector

SCHEMAS: Final = Path(__file__).parent / "project" / "schemas"
PREFIX_BYTES: Final = 5
CALL_TIMEOUT_S: Final = 30.0
IDLE_S: Final = 0.25
MESSAGE_BYTES_MAX: Final = 1_048_576


@dataclass(frozen=True)
class RawSettings:
    """One raw worker.

    Args:
        burst: events of one transaction at most.
        wait_s: how long a transaction waits for its events to come; 0 takes what is there.
        headers: ``one`` (the event's id) or ``all`` (as choreo writes them, on outputs and rows).
        rows: ``burst`` writes an account's row once per transaction, ``event`` after each event.
        progress: topic that gets a record for each partition of a transaction, as choreo's journal does; "": none.
        producer, consumer: librdkafka settings that differ from choreo's.
    """

    bootstrap: str
    group: str
    source: str
    output: str
    changelog: str
    ids: dict[str, int]
    burst: int = 10_000
    wait_s: float = 0.1
    headers: str = "one"
    rows: str = "burst"
    progress: str = ""
    producer: dict[str, Any] | None = None
    consumer: dict[str, Any] | None = None


def schema_of(name: str) -> Any:
    """A schema of the benchmark's project, as fastavro wants it."""
    return parse_schema(json.loads((SCHEMAS / f"{name}.avsc").read_text("utf-8")))


class RawLoop:
    """Consumer, producer, state and the loop."""

    def __init__(self, settings: RawSettings) -> None:
        self.settings = settings
        self.stopping = False
        common: dict[str, str] = {}
        self.producer = Producer(
            {
                **kafka_config.transactional_producer(
                    settings.bootstrap,
                    common,
                    transactional_id=f"{settings.group}.1",
                    batch_bytes=MESSAGE_BYTES_MAX - 1_000,
                    message_bytes_max=MESSAGE_BYTES_MAX,
                ),
                **(settings.producer or {}),
            }
        )
        self.producer.init_transactions(CALL_TIMEOUT_S)
        self.consumer = Consumer(
            {
                **kafka_config.group_consumer(
                    settings.bootstrap, common, group=settings.group, instance="1", session_timeout_ms=10_000
                ),
                "auto.offset.reset": "earliest",
                "enable.partition.eof": False,
                **(settings.consumer or {}),
            }
        )
        self.consumer.subscribe([settings.source])
        self.state: dict[str, dict[str, Any]] = {}
        self.rows_restored = self._restore()

    def _restore(self) -> int:
        """Rows of an earlier round, so that totals go on."""
        reader = Consumer(kafka_config.reader(self.settings.bootstrap, {}))
        parsed = schema_of("Account")
        topic = self.settings.changelog
        partitions = reader.list_topics(topic, CALL_TIMEOUT_S).topics[topic].partitions
        reader.assign([TopicPartition(topic, number, 0) for number in partitions])
        left = set(partitions)
        rows = 0
        while left:
            for message in reader.consume(10_000, 0.1):
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    left.discard(message.partition())
                    continue
                row: Any = schemaless_reader(BytesIO(message.value()[PREFIX_BYTES:]), parsed, None)
                self.state[row["account"]] = row
                rows += 1
        reader.close()
        return rows

    def run(self) -> None:
        """Until SIGTERM."""
        step = self._step_all_headers if self.settings.headers == "all" else self._step
        while not self.stopping:
            step()
        self.consumer.close()

    def _messages(self) -> list[Any]:
        """A full burst, or what came within the wait; without a wait whatever is there as soon as something is."""
        if self.settings.wait_s:
            return list(self.consumer.consume(self.settings.burst, self.settings.wait_s))
        first = self.consumer.poll(IDLE_S)
        return [] if first is None else [first, *self.consumer.consume(self.settings.burst, 0)]

    def _commit(self, positions: dict[int, int]) -> None:
        source, progress = self.settings.source, self.settings.progress
        if progress:
            for number, offset in positions.items():
                self.producer.produce(progress, b"%d" % offset, source.encode(), number)
        # Without it the offsets' request races with those that add the partitions, is told CONCURRENT_TRANSACTIONS
        # and backs off for 100 ms: p50 of a hop 150 ms instead of 15 (measured on 2.16.1).
        self.producer.flush(CALL_TIMEOUT_S)
        self.producer.send_offsets_to_transaction(
            [TopicPartition(source, number, offset) for number, offset in positions.items()],
            self.consumer.consumer_group_metadata(),
            CALL_TIMEOUT_S,
        )
        self.producer.commit_transaction(CALL_TIMEOUT_S)

    def _step(self) -> None:
        """One transaction, with one header on each output. Written out in one function: calls are what costs here."""
        settings = self.settings
        messages = self._messages()
        if not messages:
            return
        event_schema, output_schema, row_schema = PARSED
        output_prefix, row_prefix = prefix(settings.ids["PaymentScored"]), prefix(settings.ids["Account"])
        state, produce, output_topic = self.state, self.producer.produce, settings.output
        every_row = settings.rows == "event"
        positions: dict[int, int] = {}
        touched: dict[str, tuple[bytes, int]] = {}
        self.producer.begin_transaction()
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
            partition, offset, key = message.partition(), message.offset(), message.key()
            event: Any = schemaless_reader(BytesIO(message.value()[PREFIX_BYTES:]), event_schema, None)
            account = event["account"]
            amount = event["amount_cents"]
            row = state.get(account)
            if row is None:
                row = state[account] = {
                    "account": account,
                    "payments": 0,
                    "total_cents": 0,
                    "largest_cents": 0,
                    "last_merchant": "",
                }
            row["payments"] += 1
            row["total_cents"] += amount
            if amount > row["largest_cents"]:
                row["largest_cents"] = amount
            row["last_merchant"] = event["merchant"]
            out = BytesIO()
            out.write(output_prefix)
            schemaless_writer(
                out,
                output_schema,
                {
                    "account": account,
                    "number": event["number"],
                    "payments": row["payments"],
                    "total_cents": row["total_cents"],
                    "unusual": amount * row["payments"] > 3 * row["total_cents"],
                },
            )
            produce(output_topic, out.getvalue(), key, headers=[("ce_id", b"%d-%d" % (partition, offset))])
            positions[partition] = offset + 1
            if every_row:
                self._row(row_schema, row_prefix, row, key, partition, None)
            else:
                touched[account] = (key, partition)
        for account, (key, partition) in touched.items():
            self._row(row_schema, row_prefix, state[account], key, partition, None)
        self._commit(positions)

    def _step_all_headers(self) -> None:
        """As ``_step``, with the headers of CloudEvents and W3C on outputs and rows, made from those that came."""
        settings = self.settings
        messages = self._messages()
        if not messages:
            return
        event_schema, output_schema, row_schema = PARSED
        output_prefix, row_prefix = prefix(settings.ids["PaymentScored"]), prefix(settings.ids["Account"])
        state, produce, output_topic = self.state, self.producer.produce, settings.output
        every_row = settings.rows == "event"
        positions: dict[int, int] = {}
        touched: dict[str, tuple[bytes, int, list[tuple[str, bytes]]]] = {}
        self.producer.begin_transaction()
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
            partition, offset, key = message.partition(), message.offset(), message.key()
            came = dict(message.headers())
            event: Any = schemaless_reader(BytesIO(message.value()[PREFIX_BYTES:]), event_schema, None)
            account = event["account"]
            amount = event["amount_cents"]
            row = state.get(account)
            if row is None:
                row = state[account] = {
                    "account": account,
                    "payments": 0,
                    "total_cents": 0,
                    "largest_cents": 0,
                    "last_merchant": "",
                }
            row["payments"] += 1
            row["total_cents"] += amount
            if amount > row["largest_cents"]:
                row["largest_cents"] = amount
            row["last_merchant"] = event["merchant"]
            out = BytesIO()
            out.write(output_prefix)
            schemaless_writer(
                out,
                output_schema,
                {
                    "account": account,
                    "number": event["number"],
                    "payments": row["payments"],
                    "total_cents": row["total_cents"],
                    "unusual": amount * row["payments"] > 3 * row["total_cents"],
                },
            )
            correlation = ("ce_correlationid", came["ce_correlationid"])
            causation = ("ce_causationid", came["ce_id"])
            traceparent = ("traceparent", came["traceparent"])
            produce(
                output_topic,
                out.getvalue(),
                key,
                headers=[
                    ("ce_id", b"%016x%016x" % (partition, offset)),
                    *CONSTANTS,
                    ("ce_time", came["ce_time"]),
                    correlation,
                    causation,
                    ("ce_choreohop", b"%d" % (int(came["ce_choreohop"]) + 1)),
                    traceparent,
                    ("ce_subject", key),
                ],
            )
            positions[partition] = offset + 1
            if every_row:
                self._row(row_schema, row_prefix, row, key, partition, [causation, correlation, traceparent])
            else:
                touched[account] = (key, partition, [causation, correlation, traceparent])
        for account, (key, partition, headers) in touched.items():
            self._row(row_schema, row_prefix, state[account], key, partition, headers)
        self._commit(positions)

    def _row(
        self,
        schema: Any,
        start: bytes,
        row: dict[str, Any],
        key: bytes,
        partition: int,
        headers: list[tuple[str, bytes]] | None,
    ) -> None:
        out = BytesIO()
        out.write(start)
        schemaless_writer(out, schema, row)
        if headers is None:
            self.producer.produce(self.settings.changelog, out.getvalue(), key, partition)
        else:
            self.producer.produce(self.settings.changelog, out.getvalue(), key, partition, headers=headers)


PARSED: Final = (schema_of("Payment"), schema_of("PaymentScored"), schema_of("Account"))
CONSTANTS: Final = (
    ("ce_source", b"/choreo/payments/off_memory"),
    ("ce_type", b"bench.PaymentScored"),
    ("ce_specversion", b"1.0"),
    ("content-type", b"application/avro"),
)


def prefix(schema_id: int) -> bytes:
    """Magic byte and schema id."""
    return b"\0" + schema_id.to_bytes(4, "big")


def main() -> None:
    loop = RawLoop(RawSettings(**json.loads(sys.argv[1])))

    def stop(*_: object) -> None:
        loop.stopping = True

    signal.signal(signal.SIGTERM, stop)
    tune_collector()
    loop.run()


if __name__ == "__main__":
    main()
