"""Nothing is lost on real Kafka: whatever lies in the input, good events are answered and bad ones kept, each once."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Producer
from confluent_kafka.serialization import MessageField, SerializationContext

from choreo.runtime.broker import EmbeddedBroker
from choreo.testing.broker import RunningBroker
from choreo.testing.checkers import Input, check_run
from tests.chaos import reader
from tests.chaos.feeder import Feed, headers
from tests.chaos.project_copy import counting
from tests.chaos.run import Run
from tests.chaos.target import Target

pytestmark = pytest.mark.kafka

# Below, small outputs of one burst together are larger than their topic accepts in a batch; none is by itself.
SMALL_LIMIT_BYTES = 20_000
# With key and headers about the largest record that a topic with Kafka's usual limit of 1 MiB takes.
LARGEST_BYTES = 1_048_300
# Belongs to another partition than 0 (see the assertion where it is used).
MISPLACED_KEY = b"entity-0001"


class Bad(NamedTuple):
    """A record that cannot be handled, and the code that says why."""

    name: str
    code: str
    key: bytes | None
    value: bytes | None
    partition: int = -1  # -1: where the key belongs


def bad_records(target: Target) -> list[Bad]:
    (wire,) = target.inputs.values()
    good = {"entity": "entity-0002", "n": 0}
    return [
        Bad("no-avro", "CH0201", b"entity-0002", b"\xff\xfe\x00 not avro"),
        Bad("truncated", "CH0201", b"entity-0002", wire.encode({**good, "order": "count"})[:-2]),
        Bad("trailing", "CH0201", b"entity-0002", wire.encode({**good, "order": "count"}) + b"\0"),
        Bad("unknown-id", "CH0205", b"entity-0002", struct.pack(">bI", 0, 999_999) + b"\0\0"),
        Bad("largest", "CH0201", b"entity-0003", b"\x07" * LARGEST_BYTES),
        Bad("tombstone", "CH0201", b"entity-0002", None),
        Bad("no-key", "CH0206", None, wire.encode({**good, "order": "count"}), 1),
        Bad("key-not-utf8", "CH0206", b"\xff\xfe", wire.encode({**good, "order": "count"})),
        Bad("misplaced", "CH0301", MISPLACED_KEY, wire.encode({"entity": "entity-0001", "n": 0, "order": "count"}), 0),
        Bad(
            "handler-raises", "CH0303", b"entity-0004", wire.encode({"entity": "entity-0004", "n": 0, "order": "fail"})
        ),
        Bad("oversize", "CH0305", b"entity-0005", wire.encode({"entity": "entity-0005", "n": 0, "order": "oversize"})),
    ]


def send(target: Target, records: list[Bad]) -> list[Input]:
    """Writes bad records, each with an id of its own."""
    (topic,) = target.inputs
    producer = Producer(
        {
            "bootstrap.servers": target.bootstrap,
            "partitioner": "murmur2_random",
            "message.max.bytes": 2_000_000,
            "log_level": 0,
        }
    )
    landed: list[Input] = []
    for record in records:
        event_id = f"bad-{record.name}"

        def delivered(error, message, event_id=event_id, key=record.key):
            assert error is None, error
            text = (key or b"").decode(errors="replace")
            landed.append(Input(topic, message.partition(), message.offset(), text, event_id, 0))

        where = {} if record.partition < 0 else {"partition": record.partition}
        producer.produce(
            topic, key=record.key, value=record.value, headers=headers(event_id, ""), on_delivery=delivered, **where
        )
        producer.flush(30)
    return landed


def test_each_bad_input_is_one_dead_letter_with_its_bytes(kafka_broker: RunningBroker, tmp_path: Path) -> None:
    """Rules: sizes are checked before an outcome enters a transaction, and ``batch.size`` stays below the smallest
    ``max.message.bytes`` (one refused record aborts the burst with its innocent steps); the dead-letter topic takes the
    largest input and 64 KiB; each input's partition is checked against its key. A kill -9 in the middle."""
    limited = {"counted": f"message_bytes_max: {SMALL_LIMIT_BYTES}"}
    target = counting(kafka_broker.bootstrap, tmp_path, "bad", latency_s=0.0, topic_settings=limited)
    bad = bad_records(target)
    with Run(target, seed=31, workers=1, feed=Feed(target.inputs, keys=40)) as run:
        run.feeder.pump(500)
        sent = send(target, bad)
        run.feeder.pump(2_000)
        run.add(run.workers[0])
        run.progress(200)
        run.plan("kill -9")
        run.note("kill -9", fired=run.workers[0].kill())
        run.workers[0].start()
        run.healed()
        fed = run.finish()
        live = run.live_rows()
        run.stop_workers()
        letters = {letter.event_id: letter for letter in reader.dead_letters(target.bootstrap, target.dead_letters)}
        found = reader.read(target.bootstrap, target.output)
        report = check_run(
            [*fed.committed, *sent],
            run.outputs(found),
            aborted=fed.aborted,
            changelog=run.changelog(),
            live=live,
            dead=[letter.event_id for letter in reader.dead_letters(target.bootstrap, target.dead_letters)],
            dead_expected=[record.id for record in sent],
            committed=reader.committed_offsets(reader.admin(target.bootstrap), target.group),
        )
        report.require()
    for record in bad:
        letter = letters[f"bad-{record.name}"]
        assert (letter.code, letter.key, letter.value) == (record.code, record.key, record.value), record.name


@contextmanager
def served_registry(project: Path) -> Iterator[str]:
    """The file registry over HTTP, by ``choreo schemas serve``; its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from choreo.cli._main import main; main()", "schemas", "serve", "--port", "0"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address is not None, f"no address in {line!r}"
        yield address[0].rstrip('.,)"')
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.filterwarnings("ignore:The httpx module is deprecated")  # authlib, which the registry client imports
def test_other_clients_read_our_topics(kafka_broker: RunningBroker, tmp_path: Path) -> None:
    """An output topic is read by confluent-kafka's ``AvroDeserializer`` and by Java's console consumer: the same
    records, the declared fields, nothing of aborted transactions."""
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer

    target = counting(kafka_broker.bootstrap, tmp_path, "others", latency_s=0.0)
    with Run(target, seed=32, workers=1, feed=Feed(target.inputs, keys=20)) as run:
        run.feeder.pump(100)
        run.add(run.workers[0])
        run.finish()
        run.stop_workers()
        found = reader.read(target.bootstrap, target.output)
        expected = [(one.partition, one.offset, one.key, one.value) for one in found]
        with served_registry(target.folder) as address, SchemaRegistryClient({"url": address}) as registry:
            deserialize = AvroDeserializer(registry)
            context = SerializationContext(target.output, MessageField.VALUE)
            for one in found:
                assert deserialize(one.value, context) == target.event.decode(one.value or b"")
        if isinstance(kafka_broker, EmbeddedBroker):
            from choreo.runtime.broker.tools import console_consumer

            seen = console_consumer(
                kafka_broker.java, target.bootstrap, target.output, records_max=len(expected), timeout_s=60
            )
            assert sorted((one.partition, one.offset, one.key, one.value) for one in seen) == expected
            names = {name for one in seen for name, _ in one.headers}
            assert {"ce_id", "ce_source", "ce_type", "ce_time", "ce_specversion", "traceparent"} <= names
    assert json.loads((target.folder / "schemas" / "registry.lock.json").read_text("utf-8"))["format"] == 1
