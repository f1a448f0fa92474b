"""The least that each part of a step can cost in CPython: CPU of the calling thread, in microseconds per event.

    python -m benchmarks.floor [--events 50000] [--repeats 5]

Parts are run one after the other over the same messages, each with the fewest calls that do it; the best of the
repeats counts. What an engine does is measured by ``benchmarks.throughput``; the sum here is what no change of the
engine can get below as long as it uses these libraries, one Python thread and these headers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from fastavro import schemaless_reader, schemaless_writer
from rich.console import Console
from rich.table import Table

from benchmarks.feed import PaymentFeed
from benchmarks.machine import load
from benchmarks.raw_loop import CONSTANTS, PARSED, PREFIX_BYTES, prefix
from benchmarks.scoring import PARTITIONS, SOURCE, Scoring
from choreo.runtime import kafka_config
from choreo.runtime.broker import EmbeddedBroker

BATCH: Final = 2_000
SEED: Final = 5
READ_S: Final = 10.0


def thread_us(work: Callable[[], object], events: int) -> float:
    """CPU of this thread for each event."""
    before_s = time.thread_time()
    work()
    return (time.thread_time() - before_s) / events * 1e6


def consume(bootstrap: str, events: int, take: Callable[[list[Any]], object]) -> tuple[float, float]:
    """Reads the input; thread CPU per event for ``consume`` and for ``take`` on each batch."""
    consumer = Consumer({**kafka_config.reader(bootstrap, {}), "enable.partition.eof": False})
    consumer.assign([TopicPartition(SOURCE, number, 0) for number in range(PARTITIONS)])
    left, consume_s, take_s = events, 0.0, 0.0
    while left:
        started_s = time.thread_time()
        messages = consumer.consume(min(BATCH, left), READ_S)
        consumed_s = time.thread_time()
        if not messages:
            raise TimeoutError("the input was not read to its end")
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
        checked_s = time.thread_time()
        take(messages)
        take_s += time.thread_time() - checked_s
        consume_s += consumed_s - started_s
        left -= len(messages)
    consumer.close()
    return consume_s / events * 1e6, take_s / events * 1e6


def coordinates(messages: Iterable[Any]) -> None:
    for one in messages:
        one.topic(), one.partition(), one.offset(), one.timestamp(), one.key(), one.value()


def produce(
    bootstrap: str, topic: str, events: int, headers: Callable[[], list[tuple[str, bytes]]], *, report: bool
) -> float:
    """Thread CPU of ``produce`` with its delivery reports, one record per event."""
    settings = kafka_config.transactional_producer(
        bootstrap, {}, transactional_id="floor", batch_bytes=1_000_000, message_bytes_max=1_048_576
    )
    producer = Producer(settings)
    producer.init_transactions(READ_S)
    producer.begin_transaction()
    value, key = b"x" * 40, b"account-000001"
    refused: list[object] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            refused.append(error)

    def plain() -> None:
        for _ in range(events):
            producer.produce(topic, value, key, headers=headers())
        producer.flush(READ_S * 3)

    def reported() -> None:
        for _ in range(events):
            producer.produce(topic, value, key, headers=headers(), on_delivery=delivered)
        producer.flush(READ_S * 3)

    took_us = thread_us(reported if report else plain, events)
    producer.abort_transaction(READ_S)
    if refused:
        raise RuntimeError(f"Kafka refused records: {refused[0]}")
    return took_us


def measure(events: int, repeats: int, note: Callable[[str], None]) -> dict[str, float]:
    """Part to microseconds."""
    found: dict[str, float] = {}

    def best(part: str, us: float) -> None:
        found[part] = min(us, found.get(part, us))

    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        job = Scoring(broker.bootstrap, Path(folder))
        PaymentFeed(broker.bootstrap, SOURCE, job.ids["Payment"], keys=1_000, seed=SEED).write(events)
        job.cluster.create(["floor"], partitions=PARTITIONS)
        kept: list[Any] = []
        consume(broker.bootstrap, events, kept.extend)
        came = [message.headers() for message in kept]
        values = [message.value() for message in kept]
        del kept
        all_headers = [
            ("ce_id", b"0" * 32),
            *CONSTANTS,
            ("ce_time", came[0][5][1]),
            ("ce_correlationid", b"1" * 32),
            ("ce_causationid", b"2" * 32),
            ("ce_choreohop", b"1"),
            ("traceparent", b"3" * 55),
            ("ce_subject", b"account-000001"),
        ]
        event_schema, output_schema, row_schema = PARSED
        decoded: list[Any] = [schemaless_reader(BytesIO(one[PREFIX_BYTES:]), event_schema, None) for one in values]
        row = {
            "account": "a" * 14,
            "payments": 9,
            "total_cents": 9**6,
            "largest_cents": 99_000,
            "last_merchant": "m" * 12,
        }
        output = {"account": "a" * 14, "number": 9**5, "payments": 9, "total_cents": 9**6, "unusual": False}
        start = prefix(1_000)

        def read() -> None:
            for one in values:
                schemaless_reader(BytesIO(one[PREFIX_BYTES:]), event_schema, None)

        def write(schema: Any, value: dict[str, Any]) -> Callable[[], None]:
            def work() -> None:
                for _ in decoded:
                    out = BytesIO()
                    out.write(start)
                    schemaless_writer(out, schema, value)
                    out.getvalue()

            return work

        def as_dicts() -> None:
            for one in came:
                dict(one)

        def digest() -> None:
            for _ in came:
                sha256(b"x" * 80).hexdigest()

        for number in range(1, repeats + 1):
            note(f"repeat {number} of {repeats}")
            polled, read_out = consume(broker.bootstrap, events, coordinates)
            best("consume a batch", polled)
            best("topic, partition, offset, timestamp, key, value of a message", read_out)
            _, with_headers = consume(
                broker.bootstrap, events, lambda messages: [message.headers() for message in messages]
            )
            best("headers() of a message", with_headers)
            best("dict of the headers", thread_us(as_dicts, events))
            best("fastavro reads the event", thread_us(read, events))
            best("fastavro writes the output", thread_us(write(output_schema, output), events))
            best("fastavro writes the row", thread_us(write(row_schema, row), events))
            best("one sha256 to hex", thread_us(digest, events))
            none = produce(broker.bootstrap, "floor", events, lambda: [], report=False)
            best("produce, no headers", none)
            best("produce, 11 headers", produce(broker.bootstrap, "floor", events, lambda: all_headers, report=False))
            best(
                "produce, 11 headers, delivery report to Python",
                produce(broker.bootstrap, "floor", events, lambda: all_headers, report=True),
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    with console.status("starting") as status:
        found = measure(given.events, given.repeats, status.update)
    table = Table(title="CPU of the calling thread per event, best of the repeats")
    table.add_column("µs", justify="right")
    table.add_column("part")
    for part, us in found.items():
        table.add_row(f"{us:.2f}", part)
    console.print(table)
    console.print(f"load average {load()}")


if __name__ == "__main__":
    main()
