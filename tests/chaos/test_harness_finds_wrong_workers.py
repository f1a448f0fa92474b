"""The harness before the engine: a right worker passes under kills, four common wrong ones are found out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from choreo.testing.broker import RunningBroker
from choreo.testing.checkers import Report
from tests.chaos.run import Run
from tests.chaos.target import standin

pytestmark = pytest.mark.kafka

# A wrong worker that loses events leaves the run waiting for answers that never come.
STALLED_S = 4.0
SEED = 11


def hurt(broker: RunningBroker, folder: Path, mode: str, *, kills: int) -> Report:
    """A run of a stand-in with some kills, judged whether or not it came to its end."""
    with Run(standin(broker.bootstrap, folder, mode), seed=SEED, workers=1, stalled_s=STALLED_S) as run:
        run.begin()
        run.kill(run.workers, kills)
        run.healed()
        with suppress(AssertionError):
            run.finish()
        run.stop_workers()
        return run.report()


def test_a_right_worker_passes(kafka_broker: RunningBroker, tmp_path: Path) -> None:
    hurt(kafka_broker, tmp_path, "right", kills=2).require()


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        ("at-least-once", {"repeated", "wrong row"}),
        ("offsets-first", {"lost", "wrong row"}),
        ("outside", {"repeated", "wrong count"}),
        ("forgetful", {"wrong count", "row went back", "wrong row"}),
    ],
)
def test_a_wrong_worker_is_found_out(kafka_broker: RunningBroker, tmp_path: Path, mode: str, kinds: set[str]) -> None:
    report = hurt(kafka_broker, tmp_path, mode, kills=2)
    found = {problem.kind for problem in report.problems}
    assert kinds <= found, str(report)
    assert report.found("fault not fired") == 0, str(report)
