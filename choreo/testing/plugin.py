"""pytest fixtures for projects that use choreo; registered by installing choreo.

Nothing but pytest is imported until a test asks for a fixture: a project whose tests need no Kafka pays nothing.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from choreo.testing.broker import RunningBroker

NAME_LENGTH_MAX: Final = 60  # of the test's part; Kafka allows 249 characters for a topic, and suffixes follow
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[RunningBroker]:
    """A real Kafka for the whole test session.

    An embedded broker with temporary data, or the cluster that ``CHOREO_TEST_BROKERS`` names. It is shared: a test that
    stops or kills brokers starts an ``EmbeddedBroker`` of its own.
    """
    from choreo.testing.broker import broker_for_tests

    with broker_for_tests() as broker:
        yield broker


@pytest.fixture
def kafka_topic_prefix(request: pytest.FixtureRequest) -> str:
    """A prefix for topics, groups and transactional ids that no other test, process or earlier run uses.

    It starts with the test's name, so that a topic tells whose it is, and ends with a dash.
    """
    test = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:NAME_LENGTH_MAX].rstrip("-")
    return f"{test}-{os.getpid():x}{os.urandom(3).hex()}-{next(_numbers)}-"
