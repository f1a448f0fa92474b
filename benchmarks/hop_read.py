"""Reader of the hop benchmark: notes when each committed output could first be seen. Ends on SIGTERM.

    python -m benchmarks.hop_read BOOTSTRAP FILE TOPIC …

The file has one line per output: topic number, payment number, nanoseconds of the machine's monotonic clock.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from fastavro import schemaless_reader

from benchmarks.raw_loop import PREFIX_BYTES, schema_of
from benchmarks.scoring import PARTITIONS
from choreo.runtime import kafka_config

POLL_S: Final = 0.2


class Seen(NamedTuple):
    """One output."""

    topic: int
    number: int
    at_ns: int


def read(file: Path) -> Iterator[Seen]:
    """What a reader wrote."""
    for line in file.read_text("ascii").splitlines():
        topic, number, at_ns = line.split()
        yield Seen(int(topic), int(number), int(at_ns))


def main() -> None:
    bootstrap, file, *topics = sys.argv[1:]
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
    numbers = {topic: number for number, topic in enumerate(topics)}
    parsed = schema_of("PaymentScored")
    consumer = Consumer({**kafka_config.reader(bootstrap, {}), "enable.partition.eof": False})
    consumer.assign([TopicPartition(topic, number, 0) for topic in topics for number in range(PARTITIONS)])
    seen: list[tuple[int, int, bytes]] = []
    while not stopping:
        message = consumer.poll(POLL_S)
        if message is None:
            continue
        at_ns = time.monotonic_ns()
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                continue
            raise KafkaException(error)
        seen.append((numbers[message.topic()], at_ns, message.value()))
    consumer.close()
    with Path(file).open("w", encoding="ascii") as out:
        for topic_number, at_ns, value in seen:
            event: Any = schemaless_reader(BytesIO(value[PREFIX_BYTES:]), parsed, None)
            out.write(f"{topic_number} {event['number']} {at_ns}\n")


if __name__ == "__main__":
    main()
