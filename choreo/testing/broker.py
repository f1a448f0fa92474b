"""Kafka for tests: the embedded broker, or a cluster that the environment names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

BROKERS_VARIABLE: Final = "CHOREO_TEST_BROKERS"


class RunningBroker(Protocol):
    """What a test needs to know of a Kafka cluster."""

    @property
    def bootstrap(self) -> str:
        """Address for clients, ``host:port`` (several: with commas)."""
        ...


@dataclass(frozen=True)
class NamedCluster:
    """A cluster that somebody else runs."""

    bootstrap: str


@contextmanager
def broker_for_tests(environment: Mapping[str, str] | None = None) -> Iterator[RunningBroker]:
    """A Kafka to run tests against, for as long as the block lasts.

    Args:
        environment: ``os.environ`` by default. ``CHOREO_TEST_BROKERS`` names a cluster to use; without it an embedded
            broker with temporary data is started, and stopped at the end.

    Yields:
        Something with ``bootstrap``; an :class:`EmbeddedBroker`, unless a cluster was named.
    """
    named = (os.environ if environment is None else environment).get(BROKERS_VARIABLE, "").strip()
    if named:
        yield NamedCluster(named)
        return
    from choreo.runtime.broker import EmbeddedBroker

    with EmbeddedBroker() as broker:
        yield broker
