"""The embedded broker is a real Kafka: it answers, keeps data over kill -9, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from choreo.errors import HostError
from choreo.runtime.broker import EmbeddedBroker
from choreo.runtime.broker.config import DEFAULTS
from choreo.runtime.broker.tools import ConsoleRecord, console_consumer
from choreo.testing.broker import RunningBroker
from tests.broker.test_guardian import alive, wait_until

pytestmark = pytest.mark.kafka

TIMEOUT_S = 30  # of single requests; they take milliseconds


def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})


def create(bootstrap: str, topic: str, partitions: int = 1) -> None:
    client = admin(bootstrap)
    for future in client.create_topics([NewTopic(topic, partitions, 1)]).values():
        future.result(TIMEOUT_S)


def write(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "log_level": 0})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(TIMEOUT_S) == 0


def read(bootstrap: str, topic: str) -> list[bytes]:
    """Every committed value of partition 0."""
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": "unused",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "log_level": 0,
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes] = []
    try:
        while True:
            message = consumer.poll(TIMEOUT_S)
            assert message is not None, f"no answer within {TIMEOUT_S} s"
            if message.error():
                return values  # end of the partition
            values.append(message.value())
    finally:
        consumer.close()


@pytest.fixture(scope="module")
def own_broker() -> Iterator[EmbeddedBroker]:
    """A broker that a test may kill; running at the start of each test that restarts it."""
    with EmbeddedBroker() as broker:
        yield broker


def test_broker_boots_and_answers(kafka_broker: RunningBroker) -> None:
    metadata = admin(kafka_broker.bootstrap).list_topics(timeout=TIMEOUT_S)
    assert len(metadata.brokers) >= 1


def test_two_brokers_run_beside_each_other(
    kafka_broker: RunningBroker, own_broker: EmbeddedBroker, kafka_topic_prefix: str
) -> None:
    topic = f"{kafka_topic_prefix}one"
    create(own_broker.bootstrap, topic)
    assert own_broker.bootstrap != kafka_broker.bootstrap
    assert topic not in admin(kafka_broker.bootstrap).list_topics(timeout=TIMEOUT_S).topics


def test_settings_are_in_effect(own_broker: EmbeddedBroker) -> None:
    resource = ConfigResource(ResourceType.BROKER, "1")
    client = admin(own_broker.bootstrap)  # requests under way die with their client
    found = client.describe_configs([resource])[resource].result(TIMEOUT_S)
    assert {name: found[name].value for name in DEFAULTS} == dict(DEFAULTS)
    # Left alone on purpose: Kafka's own values, and what each topic says for itself.
    assert found["transaction.max.timeout.ms"].value == "900000"
    assert found["log.message.timestamp.type"].value == "CreateTime"


def test_unknown_topics_are_not_created(own_broker: EmbeddedBroker, kafka_topic_prefix: str) -> None:
    client = admin(own_broker.bootstrap)
    client.list_topics(f"{kafka_topic_prefix}mistyped", timeout=TIMEOUT_S)
    assert f"{kafka_topic_prefix}mistyped" not in client.list_topics(timeout=TIMEOUT_S).topics


def test_killed_broker_comes_back_with_its_data(own_broker: EmbeddedBroker, kafka_topic_prefix: str) -> None:
    topic = f"{kafka_topic_prefix}kept"
    create(own_broker.bootstrap, topic)
    written: list[bytes] = []
    address, cluster_id = own_broker.bootstrap, own_broker.cluster_id
    for round_number in range(2):
        batch = [b"%d-%d" % (round_number, number) for number in range(100)]
        write(address, topic, batch)
        written += batch
        pid = own_broker.pid
        own_broker.kill()
        assert not alive(pid)
        assert not own_broker.running
        own_broker.restart()
        assert own_broker.pid != pid
    assert (own_broker.bootstrap, own_broker.cluster_id) == (address, cluster_id)
    assert read(address, topic) == written


def test_stopped_broker_comes_back_with_its_data_on_another_port(tmp_path: Path) -> None:
    path = tmp_path / "with a space" / "kafka"
    with EmbeddedBroker(data_dir=path) as first:
        create(first.bootstrap, "kept")
        write(first.bootstrap, "kept", [b"1", b"2"])
        cluster_id = first.cluster_id
        with pytest.raises(HostError, match=rf"in use by the broker {first.bootstrap} \(pid {first.pid}\)") as caught:
            EmbeddedBroker(data_dir=path).start()
        assert caught.value.code == "CH0804"
    with EmbeddedBroker(data_dir=path) as second:
        assert second.bootstrap != first.bootstrap
        assert second.cluster_id == cluster_id
        assert read(second.bootstrap, "kept") == [b"1", b"2"]


def test_second_broker_on_the_same_port_is_refused(own_broker: EmbeddedBroker) -> None:
    with pytest.raises(
        HostError, match=rf"port {own_broker.port} is in use by java \(pid {own_broker.pid}\)"
    ) as caught:
        EmbeddedBroker(own_broker.port).start()
    assert caught.value.code == "CH0802"


def test_temporary_broker_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with EmbeddedBroker() as broker:
        pid, directory = broker.pid, broker.data_dir
        create(broker.bootstrap, "compressed")
        assert directory.parent == tmp_path
        assert disk_bytes(directory) < 5_000_000
    assert not alive(pid)
    assert list(tmp_path.iterdir()) == []


def disk_bytes(directory: Path) -> int:
    """Space that is really taken; Kafka's index files are sparse."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*"))


def test_setting_that_kafka_refuses_is_an_error_with_its_reason() -> None:
    broker = EmbeddedBroker(settings={"num.io.threads": "none"})
    with pytest.raises(HostError, match=r"num\.io\.threads") as caught:
        broker.start()
    assert caught.value.code == "CH0803"
    assert "\n" not in str(caught.value)
    assert not broker.running


STARTER = """
import sys
from pathlib import Path
from choreo.runtime.broker import EmbeddedBroker
broker = EmbeddedBroker(data_dir=Path(sys.argv[1]) if len(sys.argv) > 1 else None).start()
print(broker.pid, broker.data_dir, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("lasting", [False, True])
def test_broker_does_not_outlive_a_killed_starter(tmp_path: Path, lasting: bool) -> None:
    command = [sys.executable, "-c", STARTER, *([str(tmp_path / "kafka")] if lasting else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid, directory = starter.stdout.readline().split()
        assert alive(int(pid))
        starter.kill()
    wait_until(lambda: not alive(int(pid)), "the broker is gone")
    if lasting:
        # Stopped cleanly, and given back: the next one starts at once.
        assert (Path(directory) / "log" / ".kafka_cleanshutdown").exists()
        EmbeddedBroker(data_dir=Path(directory)).start().stop()
    else:
        wait_until(lambda: not Path(directory).exists(), "the temporary directory is gone")


def test_console_consumer_sees_committed_records_only(kafka_broker: RunningBroker, kafka_topic_prefix: str) -> None:
    """Kafka's own client agrees with ours about what a transaction left behind, byte for byte."""
    topic = f"{kafka_topic_prefix}in"
    create(kafka_broker.bootstrap, topic, partitions=2)
    producer = Producer(
        {
            "bootstrap.servers": kafka_broker.bootstrap,
            "transactional.id": f"{kafka_topic_prefix}writer",
            "transaction.timeout.ms": 60_000,
            "log_level": 0,
        }
    )
    producer.init_transactions(TIMEOUT_S)
    avro_like = b"\x00\x00\x00\x03\xe8\\x00\t\n,:\xff"
    for number in range(6):
        producer.begin_transaction()
        partition = number % 2
        headers = [("ce_id", b"\x1e,%d" % number), ("empty", None)] if number else None
        producer.produce(topic, avro_like + b"%d" % number, b"k\xe9%d" % number, partition, headers=headers)
        if number == 4:
            producer.produce(topic, None, b"tombstone", partition)
        producer.flush(TIMEOUT_S)
        if number in (1, 2):
            producer.abort_transaction(TIMEOUT_S)
        else:
            producer.commit_transaction(TIMEOUT_S)
    broker = kafka_broker if isinstance(kafka_broker, EmbeddedBroker) else EmbeddedBroker()

    committed = console_consumer(broker.java, kafka_broker.bootstrap, topic, records_max=5)
    everything = console_consumer(
        broker.java, kafka_broker.bootstrap, topic, records_max=7, isolation="read_uncommitted"
    )

    def seen(records: list[ConsoleRecord]) -> dict[tuple[int, bytes | None], bytes | None]:
        return {(record.partition, record.key): record.value for record in records}

    expected = {(number % 2, b"k\xe9%d" % number): avro_like + b"%d" % number for number in (0, 3, 4, 5)}
    assert seen(committed) == {**expected, (0, b"tombstone"): None}
    assert len(everything) == 7
    by_key = {record.key: record for record in committed}
    assert by_key[b"k\xe90"].headers == ()
    assert by_key[b"k\xe93"].headers == (("ce_id", b"\x1e,3"), ("empty", None))
    # Offsets: 0, its marker, the aborted 2 and its marker, then 4.
    assert [(record.partition, record.offset) for record in committed if record.partition == 0] == [
        (0, 0),
        (0, 4),
        (0, 5),
    ]


def test_console_consumer_stops_when_idle(own_broker: EmbeddedBroker, kafka_topic_prefix: str) -> None:
    topic = f"{kafka_topic_prefix}in"
    create(own_broker.bootstrap, topic)
    write(own_broker.bootstrap, topic, [b"1"])
    assert [record.value for record in console_consumer(own_broker.java, own_broker.bootstrap, topic, idle_s=2)] == [
        b"1"
    ]


def test_stopped_broker_process_continues(own_broker: EmbeddedBroker, kafka_topic_prefix: str) -> None:
    """SIGSTOP and SIGCONT, as chaos tests use them."""
    os.kill(own_broker.pid, signal.SIGSTOP)
    os.kill(own_broker.pid, signal.SIGCONT)
    create(own_broker.bootstrap, f"{kafka_topic_prefix}after")
