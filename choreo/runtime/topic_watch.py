"""Notices that an input topic was deleted, or deleted and made again.

librdkafka does not say so: it takes the unknown topic for metadata that are late, and asks again (2.16.1: no error
within 90 s; it came out by luck only, where an offset of the topic was committed).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from choreo.runtime.facts import describe_topics
from choreo.runtime.lookout import Lookout

LOOK_EVERY_MS: Final = 2_000
"""One small request of each worker."""
LOOKS: Final = 2
"""In a row that say the same: a broker that comes back may answer from what it knew before."""


class TopicWatch:
    """Looks at some topics' ids without making its caller wait. For one thread.

    Args:
        client: for asking; used by nobody else meanwhile.
        ids: topic name to the id that it has to keep.
    """

    def __init__(self, client: AdminClient, ids: Mapping[str, str]) -> None:
        self._client = client
        self._ids = dict(ids)
        self._lookout = Lookout("choreo-topics", LOOK_EVERY_MS, self._look)
        self._looks: list[frozenset[str]] = []

    def gone(self, now_ms: int) -> frozenset[str]:
        """Topics that are not there any more, once that is sure; named once."""
        look = self._lookout.seen(now_ms)
        if look is None:
            return frozenset()
        self._looks = [*self._looks, look] if look in self._looks[-1:] else [look]
        if len(self._looks) < LOOKS:
            return frozenset()
        self._looks = []
        for topic in look:
            del self._ids[topic]
        return look

    def stop(self) -> None:
        """Asks no more."""
        self._lookout.stop()

    def _look(self) -> frozenset[str]:
        if not self._ids:
            return frozenset()
        try:
            described = describe_topics(self._client, list(self._ids))
        except (KafkaException, TimeoutError):  # nobody answers: then there is nothing to be sure of
            return frozenset()
        return frozenset(name for name, one in described.items() if one is None or str(one.topic_id) != self._ids[name])
