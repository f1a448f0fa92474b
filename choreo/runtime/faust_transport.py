"""Faust's Kafka transport, reading only what was committed.

Faust reads uncommitted records unless it is itself transactional. The agents before it are: it would see, count and
pass on what they took back. Only the isolation level differs from Faust's transport.
"""

from __future__ import annotations

from typing import Any

from faust.transport.drivers import aiokafka as driver


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust's stubs are not read
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust has no setting for it; aiokafka reads this attribute when the consumer starts.
        assert hasattr(consumer, "_isolation_level"), "aiokafka keeps its isolation level elsewhere"
        consumer._isolation_level = "read_committed"
        return consumer


class _Consumer(driver.Consumer):  # type: ignore[misc]
    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class CommittedTransport(driver.Transport):  # type: ignore[misc]
    """Transport for ``kind: faust``."""

    Consumer = _Consumer
