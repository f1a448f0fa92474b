"""First and next offsets of partitions, asked for until every leader has answered.

A topic that was made a moment ago, or whose leader just moved, is answered with a retriable error; and an admin client
keeps the stale leader it asked for minutes. So each attempt has a client of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from choreo.runtime.facts import unreachable
from choreo.runtime.kafka_config import REQUEST_TIMEOUT_S
from choreo.runtime.preflight import admin_client

AGAIN_S: Final = 0.1
PATIENCE_S: Final = 3 * REQUEST_TIMEOUT_S
"""A leader election after a broker's loss takes up to its session timeout (9 s by default)."""
_NO_LEADER_YET: Final = {
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.KAFKA_STORAGE_ERROR,
}


def log_ends(
    bootstrap: str,
    security: Mapping[str, str],
    partitions: Iterable[tuple[str, int]],
    which: OffsetSpec,
    *,
    patience_s: float = PATIENCE_S,
) -> dict[tuple[str, int], int]:
    """Offsets of the logs at READ_UNCOMMITTED: what open transactions wrote counts.

    ``get_watermark_offsets`` of a read_committed consumer is something else: the last stable offset.

    Args:
        partitions: (topic, partition) pairs.
        which: ``OffsetSpec.earliest()`` or ``OffsetSpec.latest()``.
        patience_s: how long leaders may be missing.

    Raises:
        HostError: CH0801, no answer within the patience.
    """
    wanted = list(partitions)
    deadline = time.monotonic() + patience_s
    while wanted:
        client = admin_client(bootstrap, security)
        try:
            futures = client.list_offsets(
                {TopicPartition(topic, number): which for topic, number in wanted},
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
                request_timeout=REQUEST_TIMEOUT_S,
            )
            found = {
                (place.topic, place.partition): future.result(REQUEST_TIMEOUT_S).offset
                for place, future in futures.items()
            }
            # where the connection broke before the answer, librdkafka names no error but an invalid offset (measured)
            if min(found.values()) >= 0:
                return found
            if time.monotonic() > deadline:
                raise unreachable("no answer in time", bootstrap)
        except TimeoutError as error:
            raise unreachable("no answer in time", bootstrap) from error
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                raise unreachable(error.args[0].str(), bootstrap) from error
        time.sleep(AGAIN_S)
    return {}
