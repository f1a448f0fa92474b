"""The arithmetic behind every figure."""

from __future__ import annotations

import pytest

from benchmarks.backlog import Look, evaluate
from benchmarks.figures import median, percentile, spread


def test_median_of_odd_and_even_numbers() -> None:
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 3, 2]) == 2.5
    with pytest.raises(ValueError, match="no values"):
        median([])


def test_percentile_is_the_nearest_rank() -> None:
    hundred = list(range(100, 0, -1))
    assert percentile(hundred, 0.5) == 50
    assert percentile(hundred, 0.99) == 99
    assert percentile(hundred, 1) == 100
    assert percentile(hundred, 0) == 1
    assert percentile([7.0], 0.99) == 7.0
    # Wikipedia's worked example of the nearest-rank method
    assert [percentile([15, 20, 35, 40, 50], share) for share in (0.05, 0.3, 0.4, 0.5, 1)] == [15, 20, 20, 35, 50]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_percentile_refuses_what_is_no_share(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile([1.0], share)


def test_spread_is_relative_to_the_median() -> None:
    assert spread([10, 10, 10]) == 0
    assert spread([8, 10, 13]) == 0.5


def test_throughput_counts_from_the_first_commit_after_the_warm_up() -> None:
    """1,000 events made 1,100 records (outputs and commit markers); the first 200 events are warm-up."""
    looks = [
        Look(at_s=11.0, records=110, worker_cpu_s=5.0, broker_cpu_s=1.0, thread_cpu_s=4.0),
        Look(at_s=12.0, records=220, worker_cpu_s=6.0, broker_cpu_s=2.0, thread_cpu_s=4.5),
        Look(at_s=13.0, records=660, worker_cpu_s=6.2, broker_cpu_s=2.1, thread_cpu_s=4.6),
        Look(at_s=14.0, records=1_100, worker_cpu_s=6.4, broker_cpu_s=2.2, thread_cpu_s=4.9),
    ]
    drained = evaluate(looks, backlog=1_000, started_s=10.0)
    assert drained.events == pytest.approx(800)
    assert drained.seconds == 2.0
    assert drained.per_s == pytest.approx(400)
    assert drained.worker_cpu_us == pytest.approx(500)
    assert drained.broker_cpu_us == pytest.approx(250)
    assert drained.thread_cpu_us == pytest.approx(500)
    assert drained.first_commit_s == 1.0
