"""Promise 1 on real Kafka: processes are killed, stopped and isolated, and every input is still answered once.

The input is written by a transactional producer, with aborts. The workers are ``faust -A agents.counter worker``. What
is checked is read by clients that share no code with choreo. Seeds decide victims and moments; each is printed.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from choreo.runtime.broker import EmbeddedBroker
from choreo.testing.broker import RunningBroker
from tests.chaos import reader
from tests.chaos.project_copy import counting
from tests.chaos.run import Run
from tests.chaos.wire import builtin

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]

# The session timeout of the workers (`project_copy.SESSION`) and some more: the group has given the partitions away.
FROZEN_S = 8.0


@pytest.mark.parametrize(
    ("store", "workers", "kills"),
    [("memory", 1, 3), ("rocksdb", 1, 3), ("memory", 2, 4), ("rocksdb", 2, 4)],
)
def test_killed_workers_lose_and_repeat_nothing(
    kafka_broker: RunningBroker, tmp_path: Path, store: str, workers: int, kills: int
) -> None:
    """Rules: one transaction for rows, outputs and offsets; finished offsets in the metadata; safe order of restore;
    never-delivered offsets count as finished (the input is full of markers)."""
    target = counting(kafka_broker.bootstrap, tmp_path, f"kill{store}{workers}", store=store)
    with Run(target, seed=100 + 10 * workers + len(store), workers=workers) as run:
        run.begin()
        run.kill(run.workers, kills)
        run.healed()
        run.finish()
        live = run.live_rows()
        run.stop_workers()
        run.report(live=live).require()
        decisions_are_numbered(run)


def decisions_are_numbered(run: Run) -> None:
    """One decision for each input and entity, numbered without gap or repetition."""
    wire = builtin("choreo.Decision")
    sequences: dict[str, list[int]] = defaultdict(list)
    events: Counter[str] = Counter()
    for record in reader.read(run.target.bootstrap, f"counting-{run.target.name}.decisions"):
        decision = wire.decode(record.value or b"")
        sequences[decision["entity"]].append(decision["sequence"])
        events[decision["event_id"]] += 1
    assert set(events.values()) == {1}, f"decided more than once: {[e for e, n in events.items() if n > 1][:5]}"
    assert {record.id for record in run.feeder.fed.committed} <= events.keys()
    for entity, numbers in sequences.items():
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), f"{entity}: {sorted(numbers)[:20]}"


def test_a_worker_that_was_stopped_past_its_session_commits_nothing(
    kafka_broker: RunningBroker, tmp_path: Path
) -> None:
    """Rules: group metadata is captured with the ownership check; lost partitions drop their steps; every burst sends
    offsets. A zombie that fetched new metadata before it committed its old burst would repeat that burst."""
    target = counting(kafka_broker.bootstrap, tmp_path, "zombie")
    with Run(target, seed=7, workers=2) as run:
        run.begin()
        for victim in run.workers:
            run.freeze(victim, FROZEN_S)
        run.healed()
        run.finish()
        live = run.live_rows()
        run.stop_workers()
        run.report(live=live).require()


def test_a_broker_that_dies_or_restarts_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    """Rule: an error with an unknown result drops all memory and restores. The broker is away for about as long as the
    session, so that both sides of that race are met."""
    with EmbeddedBroker() as broker:
        target = counting(broker.bootstrap, tmp_path, "broker")
        with Run(target, seed=8, workers=2) as run:
            run.begin()
            for kind in ("broker kill -9", "broker restart"):
                run.plan(kind)
                run.progress_everywhere(3)
                before = broker.pid
                if kind == "broker restart":
                    broker.restart()
                else:
                    broker.kill()
                    time.sleep(1)
                    broker.start()
                run.note(kind, fired=broker.pid != before)
                run.progress_everywhere(3)
            run.healed()
            run.finish()
            live = run.live_rows()
            run.stop_workers()
            run.report(live=live).require()


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
