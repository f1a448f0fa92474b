"""A restore asks so that a node which does not know yet that others lead cannot mislead it (choreo/DESIGN.md 30)."""

from __future__ import annotations

import pytest

from choreo.runtime.broker import EmbeddedCluster
from tests.cluster.paused_node import Work, ask_a_woken_node, leader_of

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]


@pytest.mark.parametrize("number", [0, 1], ids=["the group's coordinator", "the log's leader"])
def test_what_a_restore_asks_a_woken_node_is_true(kafka_cluster: EmbeddedCluster, number: int) -> None:
    work = Work(kafka_cluster, f"woken{number}")
    try:
        answers = ask_a_woken_node(work, leader_of(work, number), "mark")
    finally:
        work.member.close()
    assert answers.restore_is_right, answers
