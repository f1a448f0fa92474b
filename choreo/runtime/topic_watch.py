"""Notices that an input topic was deleted, or deleted and made again.

librdkafka does not say so: it takes the unknown topic for metadata that are late, and asks again (2.16.1: no error
within 90 s; it came out by luck only, where an offset of the topic was committed).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from choreo.runtime.facts import gone_topics
from choreo.runtime.lookout import Lookout

LOOK_EVERY_MS: Final = 2_000
"""One small request of each worker."""
LOOKS: Final = 2
"""In a row that say the same: a broker that comes back may answer from what it knew before."""


class TopicWatch:
    """Looks at some topics' ids without making its caller wait. For one thread.

    Args:
        client: for asking.
        ids: topic name to the id that it has to keep.
    """

    def __init__(self, client: AdminClient, ids: Mapping[str, str]) -> None:
        self._client = client
        self._ids = dict(ids)
        self._lookout = Lookout("choreo-topics", LOOK_EVERY_MS, LOOKS, self._look)

    def gone(self, now_ms: int) -> frozenset[str]:
        """Topics that are not there any more, once that is sure; named once."""
        gone = self._lookout.seen(now_ms) or frozenset()
        for topic in gone:
            del self._ids[topic]
        return gone

    def stop(self) -> None:
        """Asks no more."""
        self._lookout.stop()

    def _look(self) -> frozenset[str]:
        if not self._ids:
            return frozenset()
        try:
            return gone_topics(self._client, self._ids)
        except (KafkaException, TimeoutError):  # nobody answers: then there is nothing to be sure of
            return frozenset()
