"""Rules that are decided without a broker: each test fails without the rule it names.

The same rules are met on a real broker by the chaos runs; here the schedule is exact.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from confluent_kafka import Producer

from choreo.errors import EngineError
from choreo.kernel.burst import OFFSETS_MAX, RECOMMIT_MS
from choreo.kernel.partitioner import murmur2_partition
from choreo.kernel.progress import METADATA_CHARS_MAX, Progress, Snapshot, decode_metadata, encode_metadata
from choreo.kernel.restore import Ends, starting_point
from choreo.kernel.values import Checkpoint
from choreo.runtime.kafka_config import admin, group_consumer, reader, transactional_producer
from choreo.testing.broker import RunningBroker
from tests.chaos.target import create_topics

OWNER = "counting.counter.w0"
# offset.metadata.max.bytes of a broker that nobody configured; the value itself is refused, one less passes (measured).
BROKER_METADATA_BYTES = 4_096


def test_offsets_that_are_never_delivered_count_as_finished() -> None:
    """Rule: low is the lowest offset delivered and unfinished. "The next offset not yet done" froze at 10 of 400, and
    the metadata grew until the commit was refused: commit markers and aborted records are never delivered."""
    progress = Progress(0)
    delivered = [offset for offset in range(400) if offset % 11 != 10]  # every eleventh is a marker
    for offset in delivered:
        progress.deliver(offset)
    for offset in delivered:
        progress.finish(offset)
    progress.reach_end(400)
    assert progress.snapshot() == Snapshot(400, ())
    assert len(encode_metadata(progress.snapshot(), OWNER)) < 60


def test_a_slow_event_before_markers_does_not_make_the_metadata_grow() -> None:
    """One unfinished event, then thousands of finished ones with markers between them: one run, not thousands."""
    progress = Progress(0)
    for offset in range(20_000):
        if offset % 7 != 6:
            progress.deliver(offset)
            if offset:
                progress.finish(offset)
    snapshot = progress.snapshot()
    assert snapshot.low == 0
    assert len(snapshot.done) == 1
    assert len(encode_metadata(snapshot, OWNER)) < 60


@pytest.mark.parametrize("seed", range(5))
def test_metadata_of_thousands_of_lanes_fits_the_broker(seed: int) -> None:
    """Rule: the shorter of run lengths and a bitset. Runs alone overflow 4,096 bytes with 1,250 events in flight."""
    chance = random.Random(seed)
    progress = Progress(1_000_000)
    for offset in range(1_000_000, 1_002_500):
        progress.deliver(offset)
    for offset in chance.sample(range(1_000_001, 1_002_500), 1_250):
        progress.finish(offset)
    snapshot = progress.snapshot()
    text = encode_metadata(snapshot, OWNER)
    assert len(text) <= METADATA_CHARS_MAX < BROKER_METADATA_BYTES
    assert len(text) < 600
    assert decode_metadata(snapshot.low, text) == (snapshot, OWNER)


def test_one_commit_stays_below_what_the_broker_takes() -> None:
    """Rule: cap and split. 300 partitions of 4,000 bytes in one commit fail; 512 kB is the bound of the design."""
    assert OFFSETS_MAX * METADATA_CHARS_MAX < 512 * 1024


def test_offsets_are_committed_again_before_they_expire() -> None:
    """Rule: daily. Offsets of topics that a live group is not subscribed to expire, after 7 days by default."""
    assert RECOMMIT_MS <= 24 * 3_600_000


def test_a_group_that_lost_its_offsets_does_not_start_over() -> None:
    """Rule: offsets missing or behind the journal's checkpoint stop the partition; a new agent uses ``start``."""
    checkpoint = Checkpoint("in", 0, 50, (), -1, 0)
    ends = Ends(0, 100)
    assert starting_point("in/0", None, None, ends, "earliest") == Snapshot(0, ())
    assert starting_point("in/0", None, None, ends, "latest") == Snapshot(100, ())
    with pytest.raises(EngineError, match="no committed offset") as missing:
        starting_point("in/0", None, checkpoint, ends, "earliest")
    assert missing.value.code == "CH0307"
    with pytest.raises(EngineError, match="committed before") as behind:
        starting_point("in/0", Snapshot(49, ()), checkpoint, ends, "earliest")
    assert behind.value.code == "CH0307"
    with pytest.raises(EngineError, match="deleted before they were read") as deleted:
        starting_point("in/0", Snapshot(50, ()), checkpoint, Ends(60, 100), "earliest")
    assert deleted.value.code == "CH0308"


def test_clients_never_fall_back_to_a_librdkafka_default_that_hurt() -> None:
    """Rules: classic group protocol (KIP-848 refuses a restarted static member until its session ends), murmur2_random
    (librdkafka's own partitioner agrees with Java's for a quarter of the keys), reset error, batches below the smallest
    limit, no rebootstrap (a transaction under way never returns when all brokers are away)."""
    group = group_consumer("h:1", {}, group="g", instance="i", session_timeout_ms=6_000)
    assert group["group.protocol"] == "classic"
    assert group["auto.offset.reset"] == "error"
    assert group["isolation.level"] == "read_committed"
    assert group["group.instance.id"] == "i"
    assert group["enable.auto.commit"] is False
    producer = transactional_producer("h:1", {}, transactional_id="t", batch_bytes=19_000, message_bytes_max=1_000_000)
    assert producer["partitioner"] == "murmur2_random"
    assert producer["batch.size"] <= 19_000
    for settings in (group, producer, reader("h:1", {}), admin("h:1", {})):
        assert settings["metadata.recovery.strategy"] == "none"


@pytest.mark.kafka
def test_keys_lie_where_a_murmur2_producer_puts_them(kafka_broker: RunningBroker, kafka_topic_prefix: str) -> None:
    """Rule: the engine's partition check and the producers agree for every key (1,000 of 1,000)."""
    topic = f"{kafka_topic_prefix}keys"
    create_topics(kafka_broker.bootstrap, {topic: {}}, partitions=7)
    producer = Producer({"bootstrap.servers": kafka_broker.bootstrap, "partitioner": "murmur2_random", "log_level": 0})
    chance = random.Random(3)
    keys = [bytes(chance.randrange(256) for _ in range(chance.randrange(1, 40))) for _ in range(1_000)]
    landed: dict[bytes, int] = {}
    for key in keys:
        producer.produce(
            topic, key=key, on_delivery=lambda _, message, key=key: landed.__setitem__(key, message.partition())
        )
    assert producer.flush(30) == 0
    assert landed == {key: murmur2_partition(key, 7) for key in keys}


def test_reads_of_log_ends_are_uncommitted() -> None:
    """Rule: ``get_watermark_offsets`` of a read_committed consumer is the last stable offset; nothing may use it."""
    package = Path(__file__).parents[2] / "choreo"
    users = [file for file in package.rglob("*.py") if "get_watermark_offsets(" in file.read_text("utf-8")]
    assert users == []
