"""Fills a table's changelog the way a worker does: committed rows with their headers, on their keys' partitions."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

from confluent_kafka import Producer
from fastavro import schemaless_writer

from benchmarks.raw_loop import prefix, schema_of
from choreo.kernel.partitioner import murmur2_partition
from choreo.runtime import kafka_config

BURST: Final = 10_000
CALL_S: Final = 60.0
MESSAGE_BYTES_MAX: Final = 1_048_576


def account_name(number: int) -> str:
    return f"account-{number:06}"


def account_row(number: int, schema: Any, start: bytes) -> bytes:
    """Row of ``benchmarks/project/schemas/Account.avsc``, wire format included."""
    out = BytesIO()
    out.write(start)
    row = {
        "account": account_name(number),
        "payments": number % 100,
        "total_cents": number * 37,
        "largest_cents": number % 100_000,
        "last_merchant": f"merchant-{number % 500:03}",
    }
    schemaless_writer(out, schema, row)
    return out.getvalue()


def row_headers(number: int) -> list[tuple[str, str | bytes | None]]:
    """What choreo puts on a row: which event shaped it, and its trace."""
    event_id = b"%032x" % (number * 0x9E3779B97F4A7C15 % 2**128)
    return [
        ("ce_causationid", event_id),
        ("ce_correlationid", event_id),
        ("traceparent", b"00-%s-%s-00" % (event_id, event_id[:16])),
    ]


def fill(bootstrap: str, changelog: str, schema_id: int, count: int, *, partitions: int, first: int = 0) -> int:
    """Writes one row for each of ``count`` accounts, in transactions.

    Returns:
        Avro bytes of one row on average, without the wire format's prefix.

    Raises:
        RuntimeError: Kafka did not take all of them.
    """
    client = Producer(
        kafka_config.transactional_producer(
            bootstrap,
            {},
            transactional_id=f"fill.{changelog}",
            batch_bytes=MESSAGE_BYTES_MAX - 1_000,
            message_bytes_max=MESSAGE_BYTES_MAX,
        )
    )
    client.init_transactions(CALL_S)
    schema, start = schema_of("Account"), prefix(schema_id)
    written = 0
    for low in range(first, first + count, BURST):
        client.begin_transaction()
        for number in range(low, min(low + BURST, first + count)):
            key, value = account_name(number).encode(), account_row(number, schema, start)
            written += len(value) - len(start)
            client.produce(changelog, value, key, murmur2_partition(key, partitions), headers=row_headers(number))
        client.commit_transaction(CALL_S)
    return round(written / count)
