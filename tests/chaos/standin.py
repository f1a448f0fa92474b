"""A worker of some hundred lines that keeps a counter by hand, right or deliberately wrong in one way.

The harness has to be believed before it may judge the engine: with the right stand-in it must find nothing, with each
wrong one it must find what is wrong, under real kills on a real broker. The wrong ways are those that are common:

* ``at-least-once``: records and offsets go out without a transaction; what was done since the last commit is repeated;
* ``offsets-first``: offsets are committed before the records are produced; what was under way is lost;
* ``outside``: the outputs leave by a producer of their own, outside the transaction of rows and offsets;
* ``forgetful``: the table is not restored; counters start again.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.chaos import reader
from tests.chaos.wire import Wire

MODES = ("right", "at-least-once", "offsets-first", "outside", "forgetful")
BURST = 40
# Long enough for nearly every kill to land inside a burst.
BURST_S = 0.12


class Standin:
    """One worker, one input topic, one thread."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.mode: str = options.mode
        self.rows: dict[int, dict[str, int]] = {}
        schemas = Path(options.schemas)
        self.arrived = Wire.load(schemas / "Arrived.avsc", options.id)
        self.counted = Wire.load(schemas / "Counted.avsc", options.id)
        self.counter = Wire.load(schemas / "Counter.avsc", options.id)
        self.producer = self._producer(transactional=self.mode != "at-least-once")
        self.outside = self._producer(transactional=False)
        if self.mode != "at-least-once":
            self.producer.init_transactions(30)
        self.consumer = Consumer(
            {
                "bootstrap.servers": options.bootstrap,
                "group.id": options.group,
                "group.instance.id": options.instance,
                "group.protocol": "classic",
                "partition.assignment.strategy": "cooperative-sticky",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 6_000,
                "heartbeat.interval.ms": 500,
                "fetch.wait.max.ms": 20,
                "metadata.recovery.strategy": "none",  # the default can block for ever when the only broker restarts
                "log_level": 0,
            }
        )
        self.consumer.subscribe([options.input], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)

    def run(self) -> None:
        stopped = False

        def stop(*_: object) -> None:
            nonlocal stopped
            stopped = True

        signal.signal(signal.SIGTERM, stop)
        while not stopped:
            batch = [message for message in self.consumer.consume(BURST, 0.02) if self._usable(message)]
            if batch:
                self._burst(batch)
        self.consumer.close()

    def _producer(self, *, transactional: bool) -> Producer:
        settings: dict[str, str | int | bool] = {
            "bootstrap.servers": self.options.bootstrap,
            "partitioner": "murmur2_random",
            "acks": "all",
            "linger.ms": 1,
            "metadata.recovery.strategy": "none",  # the default can block for ever when the only broker restarts
            "log_level": 0,
        }
        if transactional:
            settings["transactional.id"] = f"{self.options.group}.{self.options.instance}"
            settings["transaction.timeout.ms"] = 10_000
        return Producer(settings)

    @staticmethod
    def _usable(message: Message) -> bool:
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF and not error.retriable():
            raise KafkaException(error)
        return error is None

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Committed offsets first (that call waits for open transactions), the table afterwards."""
        starts = consumer.committed(partitions, 30)
        wanted = {place.partition for place in partitions}
        for partition in wanted:
            self.rows[partition] = {}
        if self.mode != "forgetful":
            for change in reader.changes(reader.read(self.options.bootstrap, self.options.changelog), self.counter):
                if change.partition in wanted and change.total is not None:
                    self.rows[change.partition][change.key] = change.total
        consumer.incremental_assign(
            [TopicPartition(place.topic, place.partition, max(0, place.offset)) for place in starts]
        )

    def _revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for place in partitions:
            self.rows.pop(place.partition, None)
        consumer.incremental_unassign(partitions)

    def _burst(self, batch: list[Message]) -> None:
        last = {(message.topic(), message.partition()): message.offset() for message in batch}
        offsets = [TopicPartition(topic, partition, offset + 1) for (topic, partition), offset in last.items()]
        transactional = self.mode != "at-least-once"
        if self.mode == "offsets-first":
            self.consumer.commit(offsets=offsets, asynchronous=False)
        if transactional:
            self.producer.begin_transaction()
        for message in batch:
            self._step(message)
        if self.mode == "outside":
            self.outside.flush(30)
        self.producer.flush(30)
        time.sleep(BURST_S)
        if not transactional:
            self.consumer.commit(offsets=offsets, asynchronous=False)
            return
        if self.mode != "offsets-first":
            self.producer.send_offsets_to_transaction(offsets, self.consumer.consumer_group_metadata(), 30)
        self.producer.commit_transaction(30)

    def _step(self, message: Message) -> None:
        partition, key = message.partition(), message.key()
        assert partition is not None and key is not None
        event = self.arrived.decode(message.value() or b"")
        entity = event["entity"]
        total = self.rows[partition].get(entity, 0) + 1
        self.rows[partition][entity] = total
        cause = dict(message.headers() or [])["ce_id"]
        row = self.counter.encode({"entity": entity, "total": total})
        self.producer.produce(self.options.changelog, key=key, value=row, partition=partition)
        output = self.counted.encode({"entity": entity, "n": event["n"], "total": total, "padding": b""})
        producer = self.outside if self.mode == "outside" else self.producer
        producer.produce(self.options.output, key=key, value=output, headers=[("ce_causationid", cause)])


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "group", "instance", "input", "output", "changelog", "schemas"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--id", type=int, required=True)
    try:
        Standin(parser.parse_args()).run()
    except KafkaException:
        os._exit(70)  # crash-only, as the engine: what is in memory is worth nothing after this


if __name__ == "__main__":
    main()
