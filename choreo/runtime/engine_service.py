"""The step engine as a Faust service: starts its thread with the worker, watches it, drains it on SIGTERM.

Faust supervises, the engine works: this service only carries a failure of the engine's thread into Faust's shutdown,
so that the process ends with a clear message instead of living on without its engine.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

import faust
from confluent_kafka import KafkaException

from choreo.errors import ChoreoError, EngineError, FencedSignal
from choreo.runtime.collector import tune_collector
from choreo.runtime.preflight import admin_client, check_topics, cluster_topics
from choreo.runtime.site import Site
from choreo.runtime.slots import WorkerNote, instance_slot, noted

# The engine polls at least every second; half a minute without a poll means that its thread hangs, and a supervisor
# that watches /health should restart the worker. Well below max.poll.interval, so that we notice before Kafka does.
SILENCE_S_MAX: Final = 30.0


class EngineStatus(Protocol):
    """What the host asks of a snapshot of the engine; the whole of it is shown on ``/status``."""

    @property
    def alive(self) -> bool:
        """The engine's thread runs."""
        ...

    @property
    def ready(self) -> bool:
        """The worker joined its group and every assigned partition is restored."""
        ...

    @property
    def polled_s_ago(self) -> float:
        """Seconds since the thread last polled Kafka."""
        ...

    def as_json(self) -> Mapping[str, Any]:
        """Everything, for ``/status``: partitions with restore progress, counts, calls in flight."""
        ...


class EngineThread(Protocol):
    """The Kafka shell of the engine, as its host sees it."""

    failure: BaseException | None

    def start(self, loop: asyncio.AbstractEventLoop, /) -> None:
        """Start the thread; calls of tools run on ``loop``."""
        ...

    async def stop(self, drain_s: float, /) -> None:
        """Finish and commit what can be in that time, leave the group, end the thread."""
        ...

    def status(self) -> EngineStatus:
        """A frozen snapshot; may be called from any thread."""
        ...


# What librdkafka calls being replaced: as a static member of the group, or as the owner of the transactional id.
FENCED: Final = frozenset({"_FENCED", "FENCED_INSTANCE_ID", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"})

MakeEngine = Callable[[Site, str, Callable[[BaseException], None]], EngineThread]
"""(site, instance name, called from the engine's thread when it fails) → engine, not yet started."""


@dataclass(frozen=True, slots=True)
class Health:
    """Answer of a health page."""

    ok: bool
    reason: str


class EngineService(faust.Service):  # type: ignore[misc]  # Faust's stubs are not read, see pyproject
    """Runs one agent's engine as long as the Faust app runs."""

    def __init__(
        self,
        site: Site,
        make_engine: MakeEngine,
        *,
        on_failure: Callable[[ChoreoError], None],
        url: Callable[[], str | None],
        **faust_options: Any,
    ) -> None:
        self.site = site
        self.engine: EngineThread | None = None
        self.instance: str | None = None
        self._make_engine = make_engine
        self._on_failure = on_failure
        self._url = url
        self._held = ExitStack()  # the slot's lock and the note for `choreo status`
        super().__init__(**faust_options)

    async def on_start(self) -> None:
        """Check the cluster, take an instance name, start the engine's thread. A refusal stops the worker."""
        loop = asyncio.get_running_loop()
        try:
            self.engine = await asyncio.to_thread(self._prepare, loop)
            self.engine.start(loop)
            tune_collector()
        except ChoreoError as error:
            self._on_failure(error)

    def _prepare(self, loop: asyncio.AbstractEventLoop) -> EngineThread:
        """The engine, ready to start. Blocks on Kafka, therefore called in a thread."""
        site = self.site
        bootstrap = site.project.bootstrap(site.topology)
        existing = cluster_topics(admin_client(bootstrap, site.topology.cluster.security), bootstrap)
        check_topics(site.topology, site.agent, existing)
        state = site.project.state_dir
        instance = site.project.settings.instance or self._held.enter_context(instance_slot(state, site.group))
        self._held.enter_context(
            noted(state, WorkerNote(site.topology.name, site.agent.name, instance, os.getpid(), self._url()))
        )
        self.instance = instance

        def failed(failure: BaseException) -> None:
            loop.call_soon_threadsafe(self._failed, failure)

        return self._make_engine(site, instance, failed)

    def _failed(self, failure: BaseException) -> None:
        """The engine's thread ended with a failure; runs on the event loop."""
        if _is_fenced(failure):
            failure = EngineError(
                f"another worker took over from {self.instance!r}",
                code="CH0306",
                where=self.site.group,
                hint="start it again; where workers replace each other in turn, give each its own CHOREO_INSTANCE",
                fault="environment",
            )
        if isinstance(failure, ChoreoError):
            self._on_failure(failure)
        else:
            # A defect: Faust ends the process and Kafka redelivers. Its own line says nothing of where it happened,
            # because the traceback is another thread's.
            self.log.error("the engine failed", exc_info=failure)
            self.add_future(self.crash(failure))

    async def on_stop(self) -> None:
        """Drain the engine and give the instance name back."""
        try:
            if self.engine is not None:
                await self.engine.stop(self.site.project.settings.drain_ms / 1000)
        finally:
            self._held.close()

    def health(self) -> Health:
        """Liveness: should this process be restarted?"""
        engine = self.engine
        if engine is None:
            return Health(True, "starting")
        if engine.failure is not None:
            return Health(False, f"the engine failed: {engine.failure}")
        status = engine.status()
        if not status.alive:
            return Health(False, "the engine's thread has ended")
        if status.polled_s_ago > SILENCE_S_MAX:
            return Health(False, f"no poll for {status.polled_s_ago:.0f} s")
        return Health(True, "running")

    def readiness(self) -> Health:
        """Readiness: has this worker joined, and are its partitions restored?"""
        if self.engine is None:
            return Health(False, "starting")
        health = self.health()
        if not health.ok:
            return health
        if not self.engine.status().ready:
            return Health(False, "restoring, or waiting for partitions")
        return Health(True, "ready")


def _is_fenced(failure: BaseException) -> bool:
    """Whether a newer worker took over.

    librdkafka reports it on two ways, and when both meet inside one of its calls Python wraps them in a
    ``SystemError``; so the whole chain of causes is looked at.
    """
    seen: BaseException | None = failure
    while seen is not None:
        if isinstance(seen, FencedSignal):
            return True
        if isinstance(seen, KafkaException) and seen.args[0].name() in FENCED:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
