"""One cluster for all tests that only use it; a test that hurts nodes leaves them running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from choreo.runtime.broker import EmbeddedCluster
from tests.cluster.faults import SETTINGS


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(settings=SETTINGS) as cluster:
        yield cluster


@pytest.fixture
def kafka_cluster(shared_cluster: EmbeddedCluster) -> Iterator[EmbeddedCluster]:
    """Three nodes, all running and in sync before and after the test."""
    yield shared_cluster
    for node in shared_cluster.nodes:
        if node.running:
            node.resume()
    shared_cluster.start()
    shared_cluster.wait_in_sync()
