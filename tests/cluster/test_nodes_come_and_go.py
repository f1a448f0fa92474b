"""Exactly once on three brokers: whatever happens to one of them, and to two, nothing is lost and nothing comes twice.

One run of the counting project under all faults, one after another; what is checked is read by clients that share no
code with choreo. `make cluster` plays the same for as long as one likes, in any order.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from choreo.runtime.broker import EmbeddedCluster
from choreo.testing.checkers import Report
from tests.cluster.counting import Counting
from tests.cluster.faults import FAULTS

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]

SEED = 31


class Played(NamedTuple):
    report: Report
    seconds: dict[str, float]
    fired: dict[str, int]


@pytest.fixture(scope="module")
def played(shared_cluster: EmbeddedCluster, tmp_path_factory: pytest.TempPathFactory) -> Played:
    scene = Counting(shared_cluster, tmp_path_factory.mktemp("cluster"), seed=SEED, name="nodes")
    report, seconds = scene.play(list(FAULTS))
    print(seconds)  # noqa: T201 - which fault takes its time
    return Played(report, seconds, dict(scene.run.fired))


def test_nothing_is_lost_repeated_or_out_of_order(played: Played) -> None:
    played.report.require(f"seed {SEED}")


@pytest.mark.parametrize("kind", FAULTS)
def test_fault_was_felt_and_got_over(played: Played, kind: str) -> None:
    assert played.fired[kind] == 1
