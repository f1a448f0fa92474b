"""The cluster's life: three copies by default, nodes one at a time, nothing left behind. Real Kafka."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from choreo.errors import HostError
from choreo.runtime.broker import EmbeddedBroker, EmbeddedCluster
from choreo.runtime.broker.directory import LOCK, MARK
from tests.broker.test_broker_command import choreo, finish
from tests.broker.test_guardian import alive, wait_until
from tests.cluster import metadata
from tests.cluster.faults import stands_still

TIMEOUT_S = 60


@pytest.mark.kafka
def test_topics_have_three_copies_and_ask_for_two(kafka_cluster: EmbeddedCluster) -> None:
    client = metadata.admin(kafka_cluster)
    client.create_topics([NewTopic("copies", 2)])["copies"].result(TIMEOUT_S)
    kafka_cluster.wait_in_sync()
    partitions = client.list_topics("copies", timeout=TIMEOUT_S).topics["copies"].partitions.values()
    assert [sorted(partition.isrs) for partition in partitions] == [[1, 2, 3]] * 2
    resource = ConfigResource(ResourceType.TOPIC, "copies")
    assert client.describe_configs([resource])[resource].result(TIMEOUT_S)["min.insync.replicas"].value == "2"


@pytest.mark.kafka
def test_one_node_is_hurt_and_the_others_stay(kafka_cluster: EmbeddedCluster) -> None:
    victim, *others = kafka_cluster.nodes
    pids = [node.pid for node in others]
    port, before = victim.port, victim.pid
    victim.pause()
    assert stands_still(victim)
    victim.kill()
    assert not victim.running
    assert victim.exit_code == 128 + signal.SIGKILL
    with pytest.raises(HostError, match="not in sync"):
        kafka_cluster.wait_in_sync(timeout_s=0)
    victim.start()
    kafka_cluster.wait_in_sync()
    assert victim.pid != before
    assert victim.port == port
    assert [node.pid for node in others] == pids


@pytest.mark.kafka
def test_command_starts_a_node_again_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with choreo("broker", "--nodes", "3", "--port", "0", "--ephemeral", "--json", cwd=tmp_path) as process:
        assert process.stdout is not None and process.stderr is not None
        said = json.loads(process.stdout.readline())
        assert set(said) == {"bootstrap", "nodes", "kafka", "cluster_id", "data"}
        assert said["bootstrap"] == ",".join(f"127.0.0.1:{node['port']}" for node in said["nodes"])
        os.kill(said["nodes"][1]["pid"], signal.SIGKILL)
        heard = [process.stderr.readline().strip(), process.stderr.readline().strip()]
        process.kill()
    assert heard[0] == "node 2 ended with exit code 137; starting it again"
    assert heard[1].startswith(f"node 2 answers on 127.0.0.1:{said['nodes'][1]['port']}")
    for node in (said["nodes"][0], said["nodes"][2]):
        wait_until(lambda pid=node["pid"]: not alive(pid), "the nodes are gone")  # type: ignore[misc]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("nodes", [0, 1, 2, 10])
def test_sizes_that_make_no_sense_are_refused(nodes: int) -> None:
    with pytest.raises(HostError) as caught:
        EmbeddedCluster(nodes)
    assert caught.value.code == "CH0807"


@pytest.mark.parametrize(("before", "now"), [(3, 1), (1, 3), (3, 5)])
def test_directory_of_another_size_is_refused(tmp_path: Path, before: int, now: int) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / MARK).write_text(json.dumps({"kafka": "4.3.1", "cluster_id": "x", "nodes": before}), "ascii")
    kafka = EmbeddedBroker(data_dir=tmp_path) if now == 1 else EmbeddedCluster(now, data_dir=tmp_path)
    with pytest.raises(HostError, match="the data directory holds") as caught:
        kafka.start()
    assert caught.value.code == "CH0804"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--nodes", "2"), "CH0807 "), (("--nodes", "3", "--port", "65534"), "CH0807 3 nodes need ports 65534 to 65536")],
)
def test_bad_arguments_are_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    with choreo("broker", *arguments, cwd=tmp_path) as process:
        code, output, errors = finish(process)
    assert (code, output) == (64, "")
    assert errors.startswith(message)


def test_coordinators_are_found_as_kafka_finds_them() -> None:
    assert metadata.coordinator_partition("test", 50) == 48  # "test".hashCode() is 3556498
    assert metadata.coordinator_partition("counting-nodes.counter", 8) in range(8)


def test_cluster_that_never_ran_says_so() -> None:
    cluster = EmbeddedCluster()
    for ask in (lambda: cluster.bootstrap, lambda: cluster.nodes, lambda: cluster.cluster_id):
        with pytest.raises(HostError):
            ask()
    assert not cluster.running
    cluster.stop()
