"""A partition that is lost while it is restored: its files are closed before another restore may open them."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from choreo.kernel.restore import Restored
from choreo.runtime.restore import Restorer, RestoreResult
from tests.engine.restoring import idle_restorer

RESTORED = Restored({}, -1, 0, {}, [], [], {})


class OpenStore:
    def __init__(self) -> None:
        self.closed = False

    def get(self, entity: str, /) -> bytes | None:
        return None

    def apply(self, writes: Iterable[tuple[str, bytes | None]], next_offset: int | None, at_ms: int) -> None: ...

    def position(self) -> int | None:
        return None

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def restorer(tmp_path: Path) -> Iterator[Restorer]:
    """Its thread gets no request; the tests hand over in its place."""
    made = idle_restorer(tmp_path)
    idle = made._requests
    yield made
    idle.put(None)
    made.stop()


def _wait(restorer: Restorer, ticket: int, *numbers: int) -> None:
    restorer._requests = queue.SimpleQueue()  # the thread keeps waiting on the one it has
    restorer.request(ticket, numbers)


def test_result_that_waits_is_closed_when_its_partition_is_lost(restorer: Restorer) -> None:
    lost, kept = OpenStore(), OpenStore()
    _wait(restorer, 1, 0, 1)
    restorer._hand_over(RestoreResult(0, 1, RESTORED, {"counts": lost}, None))
    restorer._hand_over(RestoreResult(1, 1, RESTORED, {"counts": kept}, None))
    restorer.forget([0])
    assert lost.closed
    result = restorer.results.get_nowait()
    assert isinstance(result, RestoreResult)
    assert (result.number, kept.closed) == (1, False)


def test_result_of_a_partition_lost_before_is_closed_at_once(restorer: Restorer) -> None:
    lost, current = OpenStore(), OpenStore()
    _wait(restorer, 1, 0)
    restorer.forget([0])
    _wait(restorer, 2, 0)  # assigned again
    restorer._hand_over(RestoreResult(0, 1, RESTORED, {"counts": lost}, None))
    restorer._hand_over(RestoreResult(0, 2, RESTORED, {"counts": current}, None))
    assert (lost.closed, current.closed) == (True, False)
    assert restorer.results.qsize() == 1
