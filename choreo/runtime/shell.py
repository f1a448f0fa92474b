"""The engine thread: sessions one after another until it is stopped, fenced, or cannot go on."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

from choreo.errors import ChoreoError, EngineError, FencedSignal
from choreo.kernel.engine import EngineStatistics, Refusals
from choreo.kernel.values import Call
from choreo.runtime.calls import Calls
from choreo.runtime.carry import Carried
from choreo.runtime.session import RefusedBurst, Session, SessionConfig, UnknownOutcome

RESTART_BACKOFF_S: Final = 0.2
RESTART_BACKOFF_S_MAX: Final = 10.0
"""Between two sessions, doubled and jittered, so that many workers do not come back in step."""
HEALTHY_S: Final = 30.0
"""A session that lived this long resets the backoff."""
SESSIONS_FAILED_MAX: Final = 20
"""Short sessions in a row before the worker exits and leaves the matter to its supervisor: about 3 minutes."""
STOP_GRACE_S: Final = 15.0
"""Beyond the drain time, for the last commit and the clients' end."""

_log = logging.getLogger("choreo.engine")


@dataclass(frozen=True, slots=True)
class ShellStatus:
    """A snapshot of the engine thread."""

    alive: bool
    ready: bool
    polled_s_ago: float
    engine: EngineStatistics | None
    restoring: Mapping[int, tuple[int, int]]
    stopped: Mapping[int, str]
    sessions: int

    def as_json(self) -> dict[str, Any]:
        statistics = self.engine
        return {
            "ready": self.ready,
            "polled_s_ago": round(self.polled_s_ago, 3),
            "sessions": self.sessions,
            "in_flight": 0 if statistics is None else statistics.waiting,
            "steps": 0 if statistics is None else statistics.steps,
            "committed": 0 if statistics is None else statistics.committed,
            "uncommitted": 0 if statistics is None else statistics.finished_uncommitted,
            "dead_letters": 0 if statistics is None else statistics.dead_letters,
            "parked": 0 if statistics is None else statistics.parked,
            "duplicates": 0 if statistics is None else statistics.duplicates,
            "retries": 0 if statistics is None else statistics.retries,
            "restoring": {
                str(number): {"rows": rows, "topics_left": left} for number, (rows, left) in self.restoring.items()
            },
            "stopped": {str(number): message for number, message in self.stopped.items()},
            "partitions": []
            if statistics is None
            else [
                {
                    "partition": one.number,
                    "ready": one.ready,
                    "buffered": one.buffered,
                    "lanes": one.lanes,
                    "timers": one.timers,
                    "parked": one.parked,
                    "positions": dict(one.positions),
                    "lows": dict(one.lows),
                }
                for one in statistics.partitions
            ],
        }


class EngineShell:
    """Runs one agent's engine in a thread of its own.

    Args:
        config: agent, cluster, identity.
        call: carries out a tool call on the event loop.
        on_failure: called from the engine thread when it ends by itself, with the reason.
    """

    def __init__(
        self,
        config: SessionConfig,
        *,
        call: Callable[[Call], Coroutine[Any, Any, Any]],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.failure: BaseException | None = None
        self._config = config
        self._call = call
        self._on_failure = on_failure
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refusals = Refusals()
        self._stopping = threading.Event()
        self._drain_until = 0.0
        self._polled_at = time.monotonic()
        self._sessions = 0
        self._told = (0, 0, 0)  # dead letters and parked events that the log knows of, in which session
        self._status = ShellStatus(False, False, 0.0, None, {}, {}, 0)
        self._thread = threading.Thread(target=self._run, name="choreo-engine", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop, /) -> None:
        self._loop = loop
        self._thread.start()

    async def stop(self, drain_s: float, /) -> None:
        """Finishes what can be finished in ``drain_s`` seconds, commits it, ends the thread."""
        self._drain_until = time.monotonic() + drain_s
        self._stopping.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, drain_s + STOP_GRACE_S)

    def status(self) -> ShellStatus:
        """A snapshot taken at the end of the thread's last turn; safe from any thread."""
        latest = self._status
        return ShellStatus(
            self._thread.is_alive(),
            latest.ready and self._thread.is_alive(),
            time.monotonic() - self._polled_at,
            latest.engine,
            latest.restoring,
            latest.stopped,
            self._sessions,
        )

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with Carried(self._failed):
            self._sessions_until_stopped()

    def _failed(self, failure: BaseException) -> None:
        self.failure = failure
        self._on_failure(failure)

    def _sessions_until_stopped(self) -> None:
        failed = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                self._one_session()
            except UnknownOutcome as outcome:
                healthy = time.monotonic() - started > HEALTHY_S or isinstance(outcome, RefusedBurst)
                failed = 1 if healthy else failed + 1
                if failed > SESSIONS_FAILED_MAX:
                    raise EngineError(
                        f"{failed} sessions in a row ended early, the last one: {outcome}",
                        code="CH0801",
                        fault="environment",
                        hint="look at the broker; the worker exits so that its supervisor can decide",
                    ) from outcome
                wait_s = min(RESTART_BACKOFF_S * 2 ** (failed - 1), RESTART_BACKOFF_S_MAX) * random.uniform(0.5, 1.5)
                _log.warning("starting over in %.1f s: %s", wait_s, outcome)
                self._stopping.wait(wait_s)
            except ChoreoError as error:
                # the first session's errors are the user's to see; later the cluster may just be away for a while
                if self._sessions <= 1 or error.code != "CH0801" or failed >= SESSIONS_FAILED_MAX:
                    raise
                failed += 1
                _log.warning("cluster away: %s", error)
                self._stopping.wait(min(RESTART_BACKOFF_S * 2 ** (failed - 1), RESTART_BACKOFF_S_MAX))

    def _one_session(self) -> None:
        assert self._loop is not None
        self._polled_at = time.monotonic()
        self._sessions += 1
        # calls of its own: a late answer of an earlier session's call must not reach a step of this one
        session = Session(self._config, Calls(self._loop, self._call), _now_ms, self._refusals)
        orderly = False
        try:
            next_status = 0.0
            while not self._stopping.is_set():
                session.turn()
                self._polled_at = now = time.monotonic()
                if now >= next_status:
                    next_status = now + 0.5
                    self._note_status(session)
            drained = False
            while not drained and time.monotonic() < self._drain_until:
                drained = session.drain_turn()
                self._polled_at = time.monotonic()
            self._note_status(session)
            orderly = True
        finally:
            session.close(orderly=orderly)

    def _note_status(self, session: Session) -> None:
        self._tell_of_refused(session.engine.statistics())
        self._status = ShellStatus(
            True,
            session.ready,
            0.0,
            session.engine.statistics(),
            session.restoring(),
            {number: str(error) for number, error in session.stopped.items()},
            self._sessions,
        )

    def _tell_of_refused(self, statistics: EngineStatistics) -> None:
        """A line in the log when steps ended as dead letters or parked: two a second at most."""
        told = self._told if self._told[2] == self._sessions else (0, 0, self._sessions)
        new = (statistics.dead_letters - told[0], statistics.parked - told[1])
        self._told = (statistics.dead_letters, statistics.parked, self._sessions)
        if any(new):
            _log.warning(
                "%d new dead letters, %d newly parked events (see `choreo dead-letters` and `choreo parked`)",
                *new,
            )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


__all__ = ["EngineShell", "FencedSignal", "SessionConfig", "ShellStatus"]
