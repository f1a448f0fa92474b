"""Where a partition starts: every combination of what the group, the journal and the log say."""

from __future__ import annotations

import pytest

from choreo.errors import EngineError
from choreo.kernel.progress import Snapshot
from choreo.kernel.restore import Ends, starting_point
from choreo.kernel.values import Checkpoint


def checkpoint(low: int) -> Checkpoint:
    return Checkpoint("in", 0, low, (), 0, 0)


@pytest.mark.parametrize(
    ("committed", "low", "ends", "start", "expected"),
    [
        # a new agent
        (None, None, Ends(3, 9), "earliest", Snapshot(3, ())),
        (None, None, Ends(3, 9), "latest", Snapshot(9, ())),
        (None, None, Ends(0, 0), "latest", Snapshot(0, ())),
        # going on
        (Snapshot(5, ((7, 8),)), 5, Ends(0, 9), "earliest", Snapshot(5, ((7, 8),))),
        (Snapshot(5, ()), 4, Ends(0, 9), "latest", Snapshot(5, ())),
        (Snapshot(5, ()), None, Ends(0, 9), "latest", Snapshot(5, ())),
        (Snapshot(9, ()), 9, Ends(0, 9), "earliest", Snapshot(9, ())),
        (Snapshot(5, ((6, 9),)), 5, Ends(0, 9), "earliest", Snapshot(5, ((6, 9),))),
        # retention passed finished input only
        (Snapshot(5, ()), 5, Ends(5, 9), "earliest", Snapshot(5, ())),
        (Snapshot(5, ((5, 8),)), 5, Ends(8, 9), "earliest", Snapshot(8, ())),
        (Snapshot(5, ((5, 7), (8, 12), (14, 15))), 5, Ends(7, 20), "earliest", Snapshot(7, ((8, 12), (14, 15)))),
        (Snapshot(5, ((5, 7), (7, 12), (14, 15))), 5, Ends(7, 20), "earliest", Snapshot(12, ((14, 15),))),
    ],
)
def test_a_partition_starts(
    committed: Snapshot | None, low: int | None, ends: Ends, start: str, expected: Snapshot
) -> None:
    found = starting_point("in/0", committed, None if low is None else checkpoint(low), ends, start)  # type: ignore[arg-type]
    assert found == expected


@pytest.mark.parametrize(
    ("committed", "low", "ends", "code", "told"),
    [
        (None, 5, Ends(0, 9), "CH0307", "no committed offset"),
        (None, 0, Ends(0, 9), "CH0307", "no committed offset"),
        (Snapshot(4, ()), 5, Ends(0, 9), "CH0307", "committed offset is 4, but 5"),
        (Snapshot(10, ()), 10, Ends(0, 9), "CH0307", "up to offset 10, but the log ends at 9"),
        (Snapshot(5, ((7, 10),)), 5, Ends(0, 9), "CH0307", "up to offset 10, but the log ends at 9"),
        (Snapshot(5, ()), 5, Ends(6, 9), "CH0308", "offsets 5 to 5"),
        (Snapshot(5, ((6, 8),)), 5, Ends(8, 9), "CH0308", "offsets 5 to 5"),
        (Snapshot(5, ((6, 7), (8, 9))), 5, Ends(12, 20), "CH0308", "offsets 5 to 11"),
        (Snapshot(5, ((5, 7), (8, 20))), 5, Ends(12, 20), "CH0308", "offsets 7 to 7"),
    ],
)
def test_a_partition_stays_stopped(
    committed: Snapshot | None, low: int | None, ends: Ends, code: str, told: str
) -> None:
    with pytest.raises(EngineError) as caught:
        starting_point("in/0", committed, None if low is None else checkpoint(low), ends, "earliest")
    assert caught.value.code == code
    assert caught.value.where == "in/0"
    assert told in caught.value.message
    assert caught.value.hint
