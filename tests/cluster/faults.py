"""What can happen to nodes of a cluster. Each fault plans itself, hurts, sees that it was felt, and heals.

A fault speaks to a ``Scene``: the counting project (``tests.chaos.run``) or the bank is behind it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import NewTopic

from choreo.runtime.broker import EmbeddedCluster, Node
from tests.cluster import metadata

LAG_S: Final = 3.0
"""A follower that does not fetch for so long falls out of sync: 30 s in Kafka's default."""
SETTINGS: Final[Mapping[str, str]] = MappingProxyType({"replica.lag.time.max.ms": str(round(LAG_S * 1_000))})
SHORT_S: Final = (0.05, 1.0)
"""A pause that nobody takes for a death."""
LONG_S: Final = (LAG_S + 2.0, LAG_S + 6.0)
"""A pause past the lag and past the node's session with the controllers."""
REFUSAL_S: Final = 3.0
"""How long a write waits for a second copy before the broker gives up."""
PROBE_PARTITIONS: Final = 6
FELT_S: Final = 60.0

LEADER_KILL = "kill -9 of a leader"
GROUP_KILL = "kill -9 of the group's coordinator"
TRANSACTION_KILL = "kill -9 of the transactions' coordinator"
ROLLING = "rolling restart"
PAUSE, LONG_PAUSE = "node paused", "node paused past its lag"
ISR_STOPPED, ISR_KILLED = "min.isr lost, two nodes stopped", "min.isr lost, two nodes killed"


class Scene(Protocol):
    """A workload on a cluster."""

    cluster: EmbeddedCluster
    chance: random.Random
    topics: tuple[str, ...]  # whose leaders are hurt
    groups: tuple[str, ...]
    transactional_ids: tuple[str, ...]

    def plan(self, kind: str, /) -> None: ...

    def note(self, kind: str, /, *, fired: bool) -> None:
        """Counts a fault, if it was seen to have happened."""

    def progress(self) -> None:
        """Waits until every partition has got on from here."""

    def committed(self) -> int:
        """How much a read_committed reader has seen."""


def kill_leader(scene: Scene) -> None:
    """The leader of an input's partition."""
    topic = scene.chance.choice(scene.topics)
    partition = scene.chance.randrange(metadata.partitions_of(scene.cluster, topic))
    _kill(scene, LEADER_KILL, lambda: metadata.leader(scene.cluster, topic, partition))


def kill_group_coordinator(scene: Scene) -> None:
    group = scene.chance.choice(scene.groups)
    _kill(scene, GROUP_KILL, lambda: metadata.coordinator(scene.cluster, metadata.OFFSETS_TOPIC, group))


def kill_transaction_coordinator(scene: Scene) -> None:
    name = scene.chance.choice(scene.transactional_ids)
    _kill(scene, TRANSACTION_KILL, lambda: metadata.coordinator(scene.cluster, metadata.TRANSACTIONS_TOPIC, name))


def _kill(scene: Scene, kind: str, who: Callable[[], Node]) -> None:
    """kill -9; another node takes over, everything gets on with two; then it comes back."""
    scene.plan(kind)
    scene.progress()
    time.sleep(scene.chance.random() * 0.25)  # anywhere in a burst, not only just after a commit
    victim = who()
    victim.kill()
    scene.progress()
    scene.note(kind, fired=not victim.running and who() is not victim)
    victim.start()
    scene.cluster.wait_in_sync()


def rolling_restart(scene: Scene) -> None:
    """Every node once, in any order, each when the one before it is in sync again: an upgrade."""
    scene.plan(ROLLING)
    nodes = list(scene.cluster.nodes)
    scene.chance.shuffle(nodes)
    before = [node.pid for node in nodes]
    for node in nodes:
        node.restart()
        scene.cluster.wait_in_sync()
        scene.progress()
    scene.note(ROLLING, fired=all(node.pid != pid for node, pid in zip(nodes, before, strict=True)))


def pause(scene: Scene) -> None:
    """A leader stands still for a moment: a long garbage collection, a machine that is moved."""
    _pause(scene, PAUSE, SHORT_S)


def pause_past_lag(scene: Scene) -> None:
    """A leader stands still until the others have gone on without it, and wakes up believing that it still leads."""
    _pause(scene, LONG_PAUSE, LONG_S)


def _pause(scene: Scene, kind: str, between_s: tuple[float, float]) -> None:
    scene.plan(kind)
    scene.progress()
    topic = scene.chance.choice(scene.topics)
    victim = metadata.leader(scene.cluster, topic, 0)
    seconds = scene.chance.uniform(*between_s)
    begun = time.monotonic()
    victim.pause()
    stopped = stands_still(victim)
    if kind == LONG_PAUSE:
        scene.progress()
        stopped = stopped and metadata.out_of_sync(scene.cluster, victim, topic)
    time.sleep(max(0.0, begun + seconds - time.monotonic()))
    victim.resume()
    scene.note(kind, fired=stopped and victim.running)
    scene.cluster.wait_in_sync()


def stands_still(node: Node) -> bool:
    """Whether every thread of the process has stopped; the signal takes a moment to reach them. From proc(5)."""
    deadline = time.monotonic() + FELT_S
    while Path(f"/proc/{node.pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "T":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def lose_min_isr_by_stops(scene: Scene) -> None:
    """Two nodes are stopped in order: the third knows that it is alone and refuses what asks for two copies."""
    _lose_min_isr(scene, ISR_STOPPED, Node.stop)


def lose_min_isr_by_kills(scene: Scene) -> None:
    """Two nodes die: the third waits for copies that do not come."""
    _lose_min_isr(scene, ISR_KILLED, Node.kill)


def _lose_min_isr(scene: Scene, kind: str, end: Callable[[Node], None]) -> None:
    """While two of three nodes are away nothing is acknowledged; afterwards everything goes on."""
    scene.plan(kind)
    cluster = scene.cluster
    probe = Probe(cluster)
    scene.progress()
    survivor = scene.chance.choice(cluster.nodes)
    for node in cluster.nodes:
        if node is not survivor:
            end(node)
    refusals = [probe.write(survivor)]
    before = scene.committed()
    refusals.append(probe.write(survivor))
    nothing = scene.committed() == before
    cluster.start()
    cluster.wait_in_sync()
    scene.progress()
    assert probe.acknowledged <= probe.kept(), "an acknowledged record is gone"
    if kind == ISR_STOPPED:
        assert refusals[-1] == "NOT_ENOUGH_REPLICAS", refusals
    scene.note(kind, fired=nothing and "" not in refusals)


class Probe:
    """Plain writes with acks=all to a topic of their own, each to a partition that a given node leads."""

    def __init__(self, cluster: EmbeddedCluster) -> None:
        self.acknowledged: set[bytes] = set()
        self._cluster = cluster
        self._topic = f"probe-{time.monotonic_ns()}"
        self._count = 0
        client = metadata.admin(cluster)  # a request ends with its client
        client.create_topics([NewTopic(self._topic, PROBE_PARTITIONS)])[self._topic].result(FELT_S)
        for node in cluster.nodes:
            assert self.write(node) == "", "a write failed although all nodes are there"

    def write(self, node: Node) -> str:
        """Writes one record; "" if it was acknowledged, else the name of the error."""
        self._count += 1
        value = b"%d" % self._count
        errors: list[KafkaError | None] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            errors.append(error)

        producer = Producer(
            {
                "bootstrap.servers": node.bootstrap,
                "acks": "all",
                "enable.idempotence": False,
                "retries": 0,
                "request.timeout.ms": round(REFUSAL_S * 1_000),
                "message.timeout.ms": round(3 * REFUSAL_S * 1_000),
                "log_level": 0,
            }
        )
        producer.produce(self._topic, value, partition=self._led_by(node), on_delivery=delivered)
        producer.flush(FELT_S)
        assert len(errors) == 1, "a write has no end"
        if errors[0] is None:
            self.acknowledged.add(value)
            return ""
        name: str = errors[0].name()
        return name

    def _led_by(self, node: Node) -> int:
        """A partition that the node leads, in its own eyes."""
        deadline = time.monotonic() + FELT_S
        while time.monotonic() < deadline:
            client = metadata.admin(self._cluster)
            topic = client.list_topics(self._topic, timeout=FELT_S).topics[self._topic]
            led = [number for number, partition in topic.partitions.items() if partition.leader == node.id]
            if led:
                return int(led[0])
            time.sleep(metadata.AGAIN_S)
        raise AssertionError(f"node {node.id} leads no partition of {self._topic}")

    def kept(self) -> set[bytes]:
        """What the topic holds."""
        from tests.chaos.reader import read

        return {record.value or b"" for record in read(self._cluster.bootstrap, self._topic)}


Fault = Callable[[Scene], None]

FAULTS: Final[Mapping[str, Fault]] = MappingProxyType(
    {
        LEADER_KILL: kill_leader,
        GROUP_KILL: kill_group_coordinator,
        TRANSACTION_KILL: kill_transaction_coordinator,
        ROLLING: rolling_restart,
        PAUSE: pause,
        LONG_PAUSE: pause_past_lag,
        ISR_STOPPED: lose_min_isr_by_stops,
        ISR_KILLED: lose_min_isr_by_kills,
    }
)
