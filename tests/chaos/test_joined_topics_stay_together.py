"""Two topics of one agent: each entity's events meet in one worker, whatever comes and goes.

Kills, zombies, broker restarts and full disks are the bank's (test_bank.py); here are rebalances of an agent that reads
two topics. What is checked is read by clients that share no code with choreo.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from choreo.testing.broker import RunningBroker
from tests.chaos.project_copy import counting
from tests.chaos.run import Run

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]


def test_a_join_keeps_an_entitys_events_together_through_rebalances(
    kafka_broker: RunningBroker, tmp_path: Path
) -> None:
    """Rule: the group subscribes to the first topic only, equal partition numbers of the others go with it. The
    sticky assignor alone would give the two topics' partitions of an entity to different workers, and the counter of
    the pair would go wrong. One worker, then three, then one again; one is killed meanwhile."""
    target = counting(kafka_broker.bootstrap, tmp_path, "join", agent="joiner")
    with Run(target, seed=9, workers=1) as run:
        run.begin()
        first = run.workers[0]
        for number in (1, 2):
            run.plan("worker added")
            run.note("worker added", fired=run.join(target.worker(f"w{number}")).assigned())
            run.progress_everywhere(5)
        run.kill(run.workers, 2)
        for worker in run.workers[1:]:
            run.plan("worker removed")
            run.note("worker removed", fired=worker.stop() == 0)
            run.progress_everywhere(5)
        run.healed()
        run.finish()
        assert first.alive
        run.stop_workers()
        run.report().require()
