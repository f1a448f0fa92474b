"""What a consumer group has committed. The one place that asks, because the usual request endangers the process.

An admin client's ``list_consumer_group_offsets`` ends the whole process when the coordinator is loading or has moved
(librdkafka 2.16.1, its issue 5040). A consumer that names the group and never joins it can ask too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from choreo.runtime.facts import unreachable
from choreo.runtime.kafka_config import REQUEST_TIMEOUT_S, reader

COORDINATOR_RETRY_S: Final = 0.05
COORDINATOR_MOVES: Final = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}


class GroupOffsets:
    """Asks for a group's offsets. Close it after use.

    Args:
        stable: offsets that a transaction under way may change get no answer until it ends.
        wait: sleeps so many seconds; True: give up.
    """

    def __init__(
        self,
        bootstrap: str,
        security: Mapping[str, str],
        group: str,
        *,
        stable: bool,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._bootstrap = bootstrap
        self._wait = _sleep if wait is None else wait
        self._client = Consumer({**reader(bootstrap, security, read_committed=stable), "group.id": group})

    def close(self) -> None:
        self._client.close()

    def ask(self, places: Sequence[TopicPartition], timeout_s: float) -> list[TopicPartition] | None:
        """Offsets and metadata; a negative offset: none. None: no answer in time, which is what unstable offsets get.

        Raises:
            HostError: CH0801, the cluster refuses to answer.
        """
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while True:
            try:
                found = self._committed([TopicPartition(tp.topic, tp.partition) for tp in places], timeout_s)
                break
            except KafkaException as error:
                code = error.args[0].code()
                if code == KafkaError._TIMED_OUT:
                    return None
                if code not in COORDINATOR_MOVES or time.monotonic() > deadline:
                    raise unreachable(error.args[0], self._bootstrap) from error
            if self._wait(COORDINATOR_RETRY_S):
                return None
        errors = [tp.error for tp in found if tp.error is not None]
        if any(error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT for error in errors):
            return None
        if errors:
            raise unreachable(errors[0], self._bootstrap)
        return found

    def _committed(self, places: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        return list(self._client.committed(places, timeout_s))


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
