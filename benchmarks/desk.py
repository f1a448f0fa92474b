"""A worker whose steps wait for calls (``waiting_project``), its requests, and a reader of its answers.

python -m benchmarks.desk '{"bootstrap": …}'     sends requests at planned moments, see ``Plan``
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from benchmarks.cluster import Cluster
from benchmarks.commands import prepare
from benchmarks.machine import REPOSITORY
from benchmarks.processes import Process
from benchmarks.raw_loop import PREFIX_BYTES, prefix
from choreo.kernel.envelope import constant_headers
from choreo.kernel.ids import Identity
from choreo.runtime import kafka_config
from choreo.runtime.producer import client_settings, root_headers

PROJECT: Final = Path(__file__).parent / "waiting_project"
TOPOLOGY: Final = "desk"
REQUESTS, ANSWERS = "requests", "answers"
PARTITIONS: Final = 4
IN_FLIGHT: Final = 1_000
"""As ``waiting_project/topologies/desk.yaml`` says."""
FLUSH_S: Final = 60.0
READY_S: Final = 60.0
SPIN_S: Final = 0.0005
HEAD_START_S: Final = 0.01


@dataclass(frozen=True)
class Plan:
    """What a feeder sends: requests of random persons at a steady rate, whatever becomes of them (open loop).

    Args:
        schema_id: of ``Request``.
        persons: number of keys, each as likely as the others.
        first: number of the first request; they rise by one.
        count: how many.
        per_s: rate; 0 sends as fast as Kafka takes them.
        wait_ms: how long the call for each of them takes.
        slow_ms: before all others one request of person 0 whose call takes this long; 0: none.
    """

    bootstrap: str
    schema_id: int
    persons: int
    first: int
    count: int
    per_s: int = 0
    wait_ms: int = 0
    slow_ms: int = 0
    seed: int = 1


def person(number: int) -> str:
    return f"person-{number:04}"


def schema_of(name: str) -> Any:
    return parse_schema(json.loads((PROJECT / "schemas" / f"{name}.avsc").read_text("utf-8")))


def feed(plan: Plan) -> float:
    """Sends a plan's requests.

    Returns:
        By how many milliseconds the latest of them was late.

    Raises:
        RuntimeError: Kafka did not take all of them.
    """
    chance = random.Random(f"requests {plan.seed} {plan.first}")
    client = Producer({**client_settings(plan.bootstrap, {}, None), "linger.ms": 0 if plan.per_s else 50})
    constants = constant_headers(Identity("people", "producer"), "bench.Request")
    schema, start = schema_of("Request"), prefix(plan.schema_id)
    refused: list[Any] = []

    def send(who: int, number: int, wait_ms: int, meant_ns: int) -> None:
        out = BytesIO()
        out.write(start)
        request = {"person": person(who), "number": number, "wait_ms": wait_ms, "meant_ns": meant_ns}
        schemaless_writer(out, schema, request)
        key = person(who).encode()
        headers = root_headers(constants, f"{chance.getrandbits(128):032x}", key, datetime.now(UTC))
        while True:
            try:
                client.produce(
                    REQUESTS,
                    out.getvalue(),
                    key,
                    headers=[*headers],
                    on_delivery=lambda error, _: None if error is None else refused.append(error),
                )
                break
            except BufferError:
                client.poll(0.05)
        client.poll(0)

    late_ns_max = 0
    begin_ns = time.monotonic_ns() + int(HEAD_START_S * 1e9)
    if plan.slow_ms:
        send(0, plan.first - 1, plan.slow_ms, begin_ns)
    for n in range(plan.count):
        meant_ns = begin_ns + n * 1_000_000_000 // plan.per_s if plan.per_s else time.monotonic_ns()
        ahead_s = (meant_ns - time.monotonic_ns()) / 1e9
        if ahead_s > SPIN_S:
            time.sleep(ahead_s - SPIN_S / 2)
        send(chance.randrange(plan.persons), plan.first + n, plan.wait_ms, meant_ns)
        late_ns_max = max(late_ns_max, time.monotonic_ns() - meant_ns)
    if client.flush(FLUSH_S) or refused:
        raise RuntimeError("Kafka did not take all of the requests")
    return late_ns_max / 1e6 if plan.per_s else 0.0


class Answer(NamedTuple):
    """One committed answer."""

    person: str
    number: int
    meant_ns: int
    at_ns: int  # when the reader had it, on the machine's monotonic clock


class Desk:
    """The project on a broker: topics made, files generated."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        self.cluster = Cluster(bootstrap)
        self.folder = folder / TOPOLOGY
        shutil.copytree(PROJECT, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        self._environment = {"CHOREO_BROKERS": bootstrap, "CHOREO_INSTANCE": "bench"}
        subjects = prepare(self.folder, f"topologies/{TOPOLOGY}.yaml", self._environment)
        self.schema_id = subjects[f"{REQUESTS}-value"]

    def worker(self) -> Process:
        """Started as users start it."""
        command = [sys.executable, "-m", "faust", "-A", "agents.desk", "worker", "-l", "info", "--without-web"]
        return Process("desk", command, self.folder, self._environment)

    def plan(self, **fields: Any) -> Plan:
        return Plan(self.bootstrap, self.schema_id, **fields)

    @contextmanager
    def feeding(self, plan: Plan) -> Iterator[subprocess.Popen[str]]:
        """A feeder in a process of its own; ``late_ms`` of it says how late it was."""
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.desk", json.dumps(asdict(plan))],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(FLUSH_S)


def late_ms(feeder: subprocess.Popen[str]) -> float:
    """Lateness of a feeder that is done.

    Raises:
        RuntimeError: it failed.
    """
    out, _ = feeder.communicate(timeout=FLUSH_S)
    if feeder.returncode:
        raise RuntimeError("the feeder failed")
    return float(out)


class Answers:
    """A reader of committed answers, from the beginning of the topic.

    Raises:
        RuntimeError: a person's answers came out of order, or one came twice.
    """

    def __init__(self, bootstrap: str) -> None:
        self._schema = schema_of("Answered")
        self._newest: dict[str, int] = {}
        self._consumer = Consumer({**kafka_config.reader(bootstrap, {}), "enable.partition.eof": False})
        self._consumer.assign([TopicPartition(ANSWERS, number, 0) for number in range(PARTITIONS)])

    def read(self, timeout_s: float = 0.2) -> list[Answer]:
        """What has come since the last time."""
        found: list[Answer] = []
        message = self._consumer.poll(timeout_s)
        while message is not None:
            at_ns = time.monotonic_ns()
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
            else:
                value: Any = schemaless_reader(BytesIO(message.value()[PREFIX_BYTES:]), self._schema, None)
                found.append(Answer(value["person"], value["number"], value["meant_ns"], at_ns))
            message = self._consumer.poll(0)
        for one in found:
            if one.number <= self._newest.get(one.person, -1):
                raise RuntimeError(f"answer {one.number} of {one.person} came after {self._newest[one.person]}")
            self._newest[one.person] = one.number
        return found

    def read_until(self, count: int, worker: Process, *, stalled_s: float, note: Callable[[int], None]) -> list[Answer]:
        """The next ``count`` answers.

        Raises:
            RuntimeError: none came for ``stalled_s``, or more came than were meant to.
        """
        found: list[Answer] = []
        moved_s = time.monotonic()
        while len(found) < count:
            more = self.read()
            if more:
                moved_s = time.monotonic()
                found += more
                note(len(found))
            elif time.monotonic() - moved_s > stalled_s:
                raise RuntimeError(f"stalled after {len(found)} of {count} answers\n{worker.tail()}")
            worker.require_alive()
        if len(found) > count:
            raise RuntimeError(f"{len(found)} answers to {count} requests")
        return found

    def close(self) -> None:
        self._consumer.close()


if __name__ == "__main__":
    sys.stdout.write(f"{feed(Plan(**json.loads(sys.argv[1])))}\n")
