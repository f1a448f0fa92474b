"""The counting agent of ``fake_agent`` as a real worker: topics, engine threads, and what comes out."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from choreo.kernel.values import Call, Outcome
from choreo.runtime import kafka_config
from choreo.runtime.session import SessionConfig
from choreo.runtime.shell import EngineShell
from choreo.topology import names
from choreo.topology.model import Agent, Cluster, Position, Table, Topic, Topology
from tests.engine.fake_agent import CountingRunner, CountingStep

_HERE = Position("test", 1, 1)


class Live:
    """One topology ``{name}``: agent ``a`` reads ``in``, counts in table ``counts``, writes ``out``."""

    def __init__(
        self, bootstrap: str, name: str, state_dir: Path, *, partitions: int = 2, store: str = "memory"
    ) -> None:
        self.bootstrap, self.partitions, self.state_dir = bootstrap, partitions, state_dir
        self.input, self.output = f"{name}-in", f"{name}-out"
        self.failures: list[BaseException] = []
        topics = {topic: Topic(topic, "E", ("k",), partitions, None, _HERE) for topic in (self.input, self.output)}
        table = Table("counts", "C", ("k",), _HERE, store=store)  # type: ignore[arg-type]
        agent = Agent("a", "a", "handlers", _HERE, (self.input,), (self.output,), ("counts",), audit="off")
        self.topology = Topology(name, "tests", "test", Cluster(), topics, {"counts": table}, {"a": agent})
        self.admin = AdminClient(kafka_config.admin(bootstrap, {}))
        plain = [
            self.input,
            self.output,
            names.decisions(name),
            names.dead_letters(name, "a"),
            names.settled(name, "a"),
        ]
        state = [names.changelog(name, "a", "counts"), names.journal(name, "a")]
        state += [names.timers(name, "a"), names.parked(name, "a")]
        wanted = [NewTopic(topic, partitions, 1) for topic in plain]
        wanted += [NewTopic(topic, partitions, 1, config={"cleanup.policy": "compact"}) for topic in state]
        for created in self.admin.create_topics(wanted).values():
            created.result(30)

    @property
    def group(self) -> str:
        return names.group(self.topology.name, "a")

    def feed(self, values: list[tuple[bytes, bytes]], *, abort: bool = False) -> None:
        """(key, value) pairs in one transaction."""
        settings = kafka_config.transactional_producer(
            self.bootstrap,
            {},
            transactional_id=f"feed-{self.input}",
            batch_bytes=100_000,
            message_bytes_max=1_048_588,
        )
        producer = Producer(settings)
        producer.init_transactions(30)
        producer.begin_transaction()
        for key, value in values:
            producer.produce(self.input, key=key, value=value)
        producer.flush()
        if abort:
            producer.abort_transaction()
        else:
            producer.commit_transaction()

    def shell(self, instance: str, **changes: Any) -> EngineShell:
        config = SessionConfig(
            self.topology,
            self.topology.agents["a"],
            self.bootstrap,
            instance,
            self.state_dir / instance,
            6_000,
            lambda facts: _runner(self.topology.name, self.output),
        )

        async def call(call: Call) -> None:
            await asyncio.sleep(0.01)

        return EngineShell(replace(config, **changes), call=call, on_failure=self.failures.append)

    def emitted(self, topic: str, count: int, timeout_s: float = 30.0) -> list[bytes]:
        """Committed values of a topic, read until ``count`` and the ends are there; then what else is there."""
        consumer = Consumer(kafka_config.reader(self.bootstrap, {}))
        consumer.assign([TopicPartition(topic, number, 0) for number in range(self.partitions)])
        values: list[bytes] = []
        deadline = time.monotonic() + timeout_s
        ends: set[int] = set()
        while time.monotonic() < deadline and not (len(values) >= count and len(ends) == self.partitions):
            message = consumer.poll(0.1)
            if message is None:
                continue
            if message.error() is None:
                values.append(message.value() or b"")
                ends.discard(message.partition() or 0)
            else:
                ends.add(message.partition() or 0)
        consumer.close()
        return values


def _runner(name: str, output: str) -> CountingRunner:
    def renamed(outcome: Outcome) -> Outcome:
        topics = {"out": output, "decisions": names.decisions(name), "dead": names.dead_letters(name, "a")}
        outcome.emits = [record._replace(topic=topics[record.topic]) for record in outcome.emits]
        if outcome.decision is not None:
            outcome.decision = outcome.decision._replace(topic=topics[outcome.decision.topic])
        if outcome.dead_letter is not None:
            outcome.dead_letter = outcome.dead_letter._replace(topic=topics[outcome.dead_letter.topic])
        return outcome

    class Step(CountingStep):
        def advance(self, answer: Any, /) -> Any:
            result = super().advance(answer)
            return renamed(result) if isinstance(result, Outcome) else result

    class Runner(CountingRunner):
        def dead_letter(self, *arguments: Any) -> Outcome:
            return renamed(super().dead_letter(*arguments))

    return Runner(Step)


@contextmanager
def running(*shells: EngineShell, drain_s: float = 3.0) -> Iterator[None]:
    """Starts the shells on an event loop of their own; stops them in the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        for shell in shells:
            shell.start(loop)
        yield
    finally:
        for shell in shells:
            asyncio.run_coroutine_threadsafe(shell.stop(drain_s), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
