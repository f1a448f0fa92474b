"""One chaos run: feed, let workers work, hurt them, heal, wait until all is done, hand everything to the checker."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from choreo.testing.checkers import Change, Faults, Input, Output, Report, check_run
from tests.chaos import reader
from tests.chaos.feeder import SHOW, Fed, Feed, Feeder
from tests.chaos.target import Target
from tests.chaos.workers import Worker

# A run that commits nothing for so long is stuck: well over session timeout, transaction timeout and a broker restart.
STALLED_S = 45.0
# In this time a worker imports, joins and restores; a kill within it hits any of these.
START_S = 2.5


class Run:
    """A run against one target. Use as a context manager: whatever happens, no process is left behind.

    Args:
        target: topics, schemas and command lines of what is tested.
        seed: decides input, victims and moments; it is in every failure's message.
        workers: how many workers there are at the beginning.
        feed: what to write; by default, some hundred events a second over 200 entities.
        stalled_s: a run that commits nothing for so long has failed.
    """

    def __init__(
        self, target: Target, *, seed: int, workers: int, feed: Feed | None = None, stalled_s: float = STALLED_S
    ) -> None:
        self.target = target
        self.seed = seed
        self.chance = random.Random(f"faults {seed}")
        self.planned: Counter[str] = Counter()
        self.fired: Counter[str] = Counter()
        self.workers = [target.worker(f"w{number}") for number in range(workers)]
        self._feed = feed or Feed(target.inputs)
        self._healed: dict[int, int] = {}
        self._stalled_s = stalled_s
        self._admin = reader.admin(target.bootstrap)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        print(f"seed {self.seed}, {self.target.describe()}")  # noqa: T201 - every seed is printed
        self.follower = reader.Follower(self.target.bootstrap, self.target.output)
        self._stack.callback(self._stop_follower)
        self.feeder = Feeder(self.target.bootstrap, self._feed, seed=self.seed, name=self.target.name)
        self._stack.callback(self._stop_feeder)
        for worker in self.workers:
            self.add(worker, start=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            error.add_note(f"seed {self.seed}, {self.target.describe()}, fired {dict(self.fired)}")
            for worker in self.workers:
                error.add_note(worker.tail())
        self._stack.close()

    def _stop_feeder(self) -> None:
        self.feeder.stop()

    def _stop_follower(self) -> None:
        self.follower.stop()

    def add(self, worker: Worker, *, start: bool = True) -> Worker:
        """One more worker, cleaned up with the run."""
        self._stack.callback(worker.discard)
        if worker not in self.workers:
            self.workers.append(worker)
        if start:
            worker.start()
        return worker

    def join(self, worker: Worker) -> Worker:
        """One more worker, waited for until it was given partitions."""
        self.add(worker)
        deadline = time.monotonic() + self._stalled_s
        while not worker.assigned():
            assert worker.alive, f"worker {worker.name} ended with {worker.exit_code}\n{worker.tail()}"
            assert time.monotonic() < deadline, f"worker {worker.name} got no partition\n{worker.tail()}"
            time.sleep(0.05)
        return worker

    # -- the course of a run ---------------------------------------------------------------------------------------

    def begin(self, *, warm: int = 50) -> None:
        """Starts workers and feeder, and waits until the first outputs have been committed."""
        for worker in self.workers:
            worker.start()
        self.feeder.start()
        self.progress(warm)

    def progress(self, count: int) -> None:
        """Waits for so many more committed outputs."""
        self.follower.wait_more(count, stalled_s=self._stalled_s)

    def plan(self, kind: str, times: int = 1) -> None:
        self.planned[kind] += times

    def note(self, kind: str, *, fired: bool) -> None:
        """Counts a fault, if it was seen to have happened."""
        self.fired[kind] += fired

    def progress_everywhere(self, each: int = 5) -> None:
        """Waits until every partition has so many more outputs, counted from the end of its log now.

        Called when a worker has just died, nothing that it wrote is counted: its partitions got on without it.
        """
        ends = reader.ends(self.target.bootstrap, self.target.output)
        self.follower.wait(
            lambda: all(self.follower.count_from(number, end) >= each for number, end in ends.items()),
            stalled_s=self._stalled_s,
            why=f"{each} more records in each of {len(ends)} partitions",
        )

    def kill(self, victims: Sequence[Worker], times: int) -> None:
        """Kills workers -9 at random moments of their work and starts each again.

        Between two kills every partition gets on, so that each hits a worker at work. One start in three is killed as
        well, at a random moment of joining and restoring.

        Args:
            victims: among these, one is chosen each time.
            times: how often, without the starts.
        """
        self.plan("kill -9", times)
        for _ in range(times):
            self.progress_everywhere(self.chance.randint(2, 12))
            time.sleep(self.chance.random() * 0.25)  # anywhere in a burst, not only just after a commit
            victim = self.chance.choice(list(victims))
            self.note("kill -9", fired=victim.kill())
            victim.start()
            if self.chance.random() < 1 / 3:
                time.sleep(self.chance.random() * START_S)
                self.plan("kill -9 at start")
                self.note("kill -9 at start", fired=victim.kill())
                victim.start()

    def healed(self) -> None:
        """The last fault is over: from here on every partition has to get on, and the feeder gives each something."""
        time.sleep(0.2)
        self._healed = self.follower.ends()

    def finish(self, *, unanswered: frozenset[str] = frozenset()) -> Fed:
        """Stops feeding after one more event per entity, and waits until everything has been answered.

        Args:
            unanswered: ids of inputs that get no output (poison).
        """
        fed = self.feeder.stop()
        self.feeder.touch_every_key()
        wanted = {record.id: record for record in fed.committed if record.id not in unanswered}

        def missing() -> list[Input]:
            # Distinct causes: a repeated answer must not end the wait for a missing one.
            answered = {record.header("ce_causationid") for record in self.follower.found}
            return [record for event_id, record in wanted.items() if event_id not in answered]

        try:
            self.follower.wait(
                lambda: not missing(), stalled_s=self._stalled_s, why=f"answers to all {len(wanted)} inputs"
            )
        except AssertionError as error:
            later = {
                record.header("ce_causationid") for record in reader.read(self.target.bootstrap, self.target.output)
            }
            error.add_note(f"missing: {missing()[:40]}")
            error.add_note(f"a new reader misses {len(wanted.keys() - later)}")
            error.add_note(f"committed: {reader.committed_offsets(self._admin, self.target.group)}")
            error.add_note(f"ends: {[reader.ends(self.target.bootstrap, topic) for topic in self.target.inputs]}")
            raise
        return fed

    def live_rows(self) -> dict[str, int]:
        """The counter's rows as the running workers hold them, through the handler's own eyes."""
        asked = self.feeder.ask_for_rows()
        answers: dict[str, int] = {}

        def answered() -> bool:
            for record in self.follower.found[-2 * len(asked) :]:
                if record.header("ce_causationid") in asked:
                    answers[record.text_key] = self.target.event.decode(record.value or b"")["total"]
            return len(answers) == len(asked)

        self.follower.wait(answered, stalled_s=self._stalled_s, why=f"{len(asked)} rows")
        return answers

    def end(self) -> Report:
        """Nothing more is hurt: waits for all answers, reads the rows that the workers hold, stops them and looks."""
        self.healed()
        self.finish()
        live = self.live_rows()
        self.stop_workers()
        return self.report(live=live)

    def stop_workers(self) -> None:
        """Ends all running workers the polite way; each has to exit with 0."""
        for worker in self.workers:
            if worker.alive:
                code = worker.stop()
                assert code == 0, f"worker {worker.name} ended with {code}\n{worker.tail()}"

    def report(
        self,
        *,
        live: dict[str, int] | None = None,
        dead_expected: Iterable[str] = (),
        faults: bool = True,
    ) -> Report:
        """What independent readers find, checked. Call after the workers have stopped."""
        bootstrap, target = self.target.bootstrap, self.target
        fed = self.feeder.fed
        inputs = reader.inputs(bootstrap, target.inputs)
        assert sorted(inputs) == sorted(fed.committed), "the feeder and the reader disagree about the committed input"
        assert fed.transactions_aborted > 0, "no input transaction was aborted: the run had no gaps to trip over"
        found = reader.read(bootstrap, target.output)
        return check_run(
            inputs,
            self.outputs(found),
            aborted=fed.aborted,
            changelog=self.changelog(),
            live=live,
            dead=self._dead(),
            dead_expected=dead_expected,
            concurrent=self.outputs(self._seen_by_follower(len(found))),
            committed=reader.committed_offsets(reader.admin(bootstrap), target.group),
            faults=Faults(dict(self.planned), dict(self.fired), self._healed) if faults else None,
        )

    def changelog(self) -> list[Change]:
        return reader.changes(reader.read(self.target.bootstrap, self.target.changelog), self.target.row)

    def outputs(self, found: Iterable[reader.Found]) -> list[Output]:
        """Outputs that count, of what a reader found."""
        counted = (record for record in found if SHOW not in record.header("ce_causationid"))
        return reader.outputs(counted, self.target.event)

    def _dead(self) -> list[str]:
        topic = self.target.dead_letters
        return [letter.event_id for letter in reader.dead_letters(self.target.bootstrap, topic)] if topic else []

    def _seen_by_follower(self, count: int) -> list[reader.Found]:
        self.follower.wait(lambda: len(self.follower) >= count, stalled_s=10, why="what the final reader has read")
        return self.follower.stop()
