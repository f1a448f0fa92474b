"""Makes sure that a restore reads what is, not what was.

Theory of operation. A node of Kafka that was paused or is starved goes on answering what it knew, until it learns that
others lead by now: it was seen to name old offsets of a group, at read_committed too, and old ends of logs (4.3.1,
three nodes). A restore that believes it repeats what was decided since. Reads cannot tell; but no such node can take a
write, which needs the replicas in sync, and those refuse it. So a restore writes first, and then reads until it sees
what it wrote: a mark among the group's offsets, at a place where nobody reads (a partition of the agent's journal), and
a record in every state topic, in a transaction that is aborted, so that nobody but the log ever sees it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from choreo.errors import ChoreoError, EngineError
from choreo.kernel.values import OutRecord
from choreo.runtime.facts import unreachable
from choreo.runtime.kafka_config import REQUEST_TIMEOUT_S, Settings
from choreo.runtime.transaction import kafka_error, produce

AGAIN_S: Final = 0.1
"""Between two attempts, while a broker is behind, the group rebalances or its coordinator moves."""
KEY: Final = b"\0barrier"
"""State topics are compacted and want keys. No entity has this one, and no reader sees the record."""
_DENIED: Final = {
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}

Commit = Callable[[list[TopicPartition]], object]
"""Has offsets committed as the member of the group that this worker is, soon, and waits for no answer."""


class Mark:
    """Metadata that no earlier restore has written, and where it is written.

    Args:
        places: partitions that nobody reads in the group.
        text: what is written.
    """

    def __init__(self, places: Sequence[TopicPartition], text: str) -> None:
        self.places = list(places)
        self._text = text

    def leave(self, commit: Commit) -> None:
        """Commits the mark. Whether it got there shows when it is read back."""
        commit([TopicPartition(place.topic, place.partition, 0, self._text) for place in self.places])

    def stands_in(self, answer: Iterable[TopicPartition]) -> bool:
        """Whether a coordinator answered that knows the mark."""
        return all(place.metadata == self._text for place in answer)


def written_ends(
    settings: Settings,
    bootstrap: str,
    places: Sequence[tuple[str, int]],
    make: Callable[[Settings], Producer] = Producer,
) -> dict[tuple[str, int], int]:
    """What follows a record that was just acknowledged, for each (topic, partition).

    Args:
        settings: of a transactional producer of its own.
        bootstrap: for the error.
        places: where to write.
        make: makes the producer.

    Raises:
        HostError: CH0801, not everything was acknowledged.
        EngineError: CH0805, an ACL is missing.
    """
    ends: dict[tuple[str, int], int] = {}
    refused: list[KafkaError] = []

    def note(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            refused.append(error)
            return
        place, offset = (message.topic(), message.partition()), message.offset()
        assert place[0] is not None and place[1] is not None and offset is not None
        ends[place[0], place[1]] = offset + 1

    producer = make(settings)
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    try:
        producer.init_transactions(REQUEST_TIMEOUT_S)
        producer.begin_transaction()
        produce(producer, [OutRecord(topic, number, KEY, None, ()) for topic, number in places], note)
        left = producer.flush(max(0.0, deadline - time.monotonic()))
        producer.abort_transaction(REQUEST_TIMEOUT_S)
    except (KafkaException, SystemError) as error:
        raise _failed(kafka_error(error), bootstrap) from error
    if refused:
        raise _failed(refused[0], bootstrap)
    if left or len(ends) != len(set(places)):
        raise unreachable("records were not acknowledged in time", bootstrap)
    return ends


def _failed(error: KafkaError, bootstrap: str) -> ChoreoError:
    if error.code() in _DENIED:
        hint = "allow the agent's transactional ids, `…:restore` among them, and writing to its state topics"
        return EngineError(error.str(), code="CH0805", fault="environment", hint=hint)
    return unreachable(error, bootstrap)
