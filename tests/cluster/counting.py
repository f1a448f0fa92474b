"""The counting project on a cluster, as a scene for faults."""

from __future__ import annotations

import time
from pathlib import Path

from choreo.runtime.broker import EmbeddedCluster
from choreo.testing.checkers import Report
from tests.chaos.project_copy import counting
from tests.chaos.run import Run
from tests.cluster import faults, metadata

STALLED_S = 150.0
"""Nothing committed for so long: well over session, transaction timeout and a node's start on a busy machine."""
WORKERS = 2
EACH = 3
"""Records in each partition that count as progress."""


class Counting:
    """Two workers that count under faults.

    Args:
        cluster: where.
        folder: for the project's copy and the logs.
        seed: decides input, victims and moments.
        name: of topics and group, lower-case letters and digits.
        store: ``memory`` or ``rocksdb``.
    """

    def __init__(self, cluster: EmbeddedCluster, folder: Path, *, seed: int, name: str, store: str = "memory") -> None:
        self.cluster = cluster
        target = counting(cluster.bootstrap, folder, name, store=store)
        self.run = Run(target, seed=seed, workers=WORKERS, stalled_s=STALLED_S)
        self.chance = self.run.chance
        self.fenced = 0  # workers that exited because an heir took over from them
        self.topics = tuple(target.inputs)
        self.groups: tuple[str, ...] = (target.group,)
        self.transactional_ids = tuple(f"{target.group}.{worker.name}" for worker in self.run.workers)

    def plan(self, kind: str, /) -> None:
        self.run.plan(kind)

    def note(self, kind: str, /, *, fired: bool) -> None:
        self.run.note(kind, fired=fired)

    def progress(self) -> None:
        follower = self.run.follower
        ends = metadata.log_ends(self.cluster, self.run.target.output)

        def got_on() -> bool:
            self._supervise()
            return all(follower.count_from(number, end) >= EACH for number, end in ends.items())

        follower.wait(got_on, stalled_s=STALLED_S, why=f"{EACH} more records in each of {len(ends)} partitions")

    def _supervise(self) -> None:
        """Starts a worker again whose heir had to end the transaction that it left open: it has to exit and say so.

        Raises:
            AssertionError: a worker ended for another reason.
        """
        for worker in self.run.workers:
            if not worker.alive:
                assert worker.exit_code == 1, f"worker {worker.name} ended with {worker.exit_code}\n{worker.tail()}"
                assert any("CH0306" in line for line in worker.lines()), worker.tail()
                self.fenced += 1
                worker.start()

    def committed(self) -> int:
        return len(self.run.follower)

    def play(self, kinds: list[str]) -> tuple[Report, dict[str, float]]:
        """Lets faults happen one after another, heals, and looks at every record.

        Returns:
            The report, and how many seconds each kind took in all.
        """
        seconds: dict[str, float] = {}
        with self.run as run:
            run.begin()
            for kind in kinds:
                begun = time.monotonic()
                print(f"{kind} …", flush=True)  # noqa: T201 - where a failing run stopped
                faults.FAULTS[kind](self)
                seconds[kind] = round(seconds.get(kind, 0.0) + time.monotonic() - begun, 1)
            self.progress()
            return run.end(), seconds
