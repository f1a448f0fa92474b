"""``choreo.App``: a Faust app whose agent runs in choreo's step engine.

Faust keeps what it is good at: the worker command and its flags, life cycle and supervision, web server, timers, tasks,
pages, commands, settings. The engine (``engine_service.py``) replaces Faust's stream loop, whose measured guarantees
are not choreo's (LAB: lost and repeated events after one kill). So an app of ``kind: handlers`` boots in Faust's
*producer-only* mode, joins no group of Faust's, and starts the engine as one more service.

Creating an app reads nothing and connects to nothing; its settings come from the topology when Faust first asks for
them. Everything of choreo's that users touch is ``app.definition``, ``app.on`` and ``app.on_timer``; no name of Faust's
is shadowed (a test compares).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import faust
from faust.app.base import BootStrategy

from choreo.agent.definition import AgentDefinition, EventHandler, TimerHandler
from choreo.agent.record import Record
from choreo.errors import ChoreoError, TopologyError, UndeclaredError
from choreo.runtime.engine_service import EngineService, EngineThread, MakeEngine
from choreo.runtime.faust_settings import faust_settings
from choreo.runtime.listing import ListedAgent, ListedTable
from choreo.runtime.pages import add_pages
from choreo.runtime.site import Site
from choreo.runtime.worker import Worker

E = TypeVar("E", bound=Record)

# Where the search for a free web port begins (Faust's own default) and how far it goes: one port for each worker that
# a developer may start by hand on one machine.
WEB_PORT_FIRST: Final = 6066
WEB_PORTS_MAX: Final = 100


class _Boot(BootStrategy):  # type: ignore[misc]  # Faust's stubs are not read, see pyproject
    """Faust's boot without a producer of its own: a timer that sends starts one when it first needs it."""

    def producer_only(self) -> Iterable[Any]:
        services: Iterable[Any] = self._chain(self.sensors(), self.web_server())
        return services


class App(faust.App):  # type: ignore[misc]  # as above
    """One agent of a topology, run by ``faust -A agents.NAME worker``.

    Args:
        topology: file from the project root; ``CHOREO_TOPOLOGY`` overrides it. May be left out in a project with one.
        agent: name under ``agents:`` of the topology.
        faust_settings: any setting of ``faust.App``; what is given here wins over what choreo derives.

    Guarantee:
        Steps of ``kind: handlers`` are exactly-once and in order per entity. ``kind: faust`` has Faust's guarantee.
    """

    BootStrategy = _Boot

    definition: AgentDefinition
    on_failure: Callable[[ChoreoError], None]

    def __init__(self, topology: str | None = None, /, *, agent: str, **faust_settings: Any) -> None:
        self.definition = AgentDefinition(agent)
        self._topology_file = topology
        self._given_settings = faust_settings
        self._engine_service: EngineService | None = None
        self._is_up = False
        self.on_failure = self._crash_with
        super().__init__(agent, **faust_settings)

    def on(self, event: type[E], /, *, topic: str | None = None) -> Callable[[EventHandler[E]], EventHandler[E]]:
        """Decorate the handler of an event: ``async def handler(event, ctx)``.

        Args:
            event: class of the event, generated from its schema.
            topic: where it arrives; needed only if several of the agent's topics carry this event.

        Raises:
            TopologyError: CH0103, there already is one, or the function is not such a handler.
        """
        return self.definition.on(event, topic=topic)

    def on_timer(self, name: str, /) -> Callable[[TimerHandler], TimerHandler]:
        """Decorate the handler of a timer: ``async def handler(ctx)``."""
        return self.definition.on_timer(name)

    @cached_property
    def _site(self) -> Site:
        """The declaration of this app. Reads files when first used."""
        return Site.load(self._topology_file, self.definition.name)

    def _load_settings(self, *, silent: bool = False) -> Any:
        """Faust's settings: derived from the topology, overridden by what the code gives and by Faust's environment."""
        try:
            site = self._site
        except ChoreoError as error:
            raise _shown_by_faust(error) from error
        given = self._given_settings
        derived = faust_settings(site, Worker)
        if "web_port" not in given and "WEB_PORT" not in os.environ:
            derived["web_port"] = _free_port(given.get("web_bind", derived["web_bind"]))
        self._default_options = (site.group, {**derived, **given})
        self.producer_only = site.agent.kind != "faust"
        return super()._load_settings(silent=silent)

    def worker_init(self) -> None:
        """Called by every ``faust`` command: check and show what belongs to choreo."""
        try:
            self._check_kind()
        except ChoreoError as error:
            raise _shown_by_faust(error) from error
        super().worker_init()
        if self.producer_only:
            self.agents[self.definition.name] = ListedAgent(self._site)
            for name in self._site.agent.tables:
                self.tables.data[name] = ListedTable(self._site, self._site.topology.tables[name])

    def _check_kind(self) -> None:
        """Refuse what would silently never run, and inputs that are not declared."""
        agent = self._site.agent
        plain = [name for name, entry in self.agents.items() if not isinstance(entry, ListedAgent)]
        if agent.kind != "faust" and plain:
            raise TopologyError(
                f"{', '.join(plain)}: @app.agent needs an agent of kind faust; {agent.name} is of kind {agent.kind}",
                code="CH0103",
                where=str(agent.position),
                hint="use @app.on(Event), or give the Faust agent an entry of its own with `kind: faust`",
            )
        if agent.kind == "faust" and self.definition.handlers:
            raise TopologyError(
                f"agent {agent.name} is of kind faust, so that its @app.on handlers would never run",
                code="CH0103",
                where=str(agent.position),
                hint="use @app.agent, or `kind: handlers`",
            )
        if agent.kind == "faust":
            for entry in self.agents.values():
                # local channels have no topics
                for topic in getattr(entry.channel, "topics", ()):
                    if topic not in agent.reads:
                        raise UndeclaredError(
                            f"agent {entry.name} reads {topic}, which the topology does not declare for it",
                            where=str(agent.position),
                            hint=f"add to the agent: `reads: [{', '.join([*agent.reads, topic])}]`",
                        )

    def _new_transport(self) -> Any:
        """Plain Faust agents read committed records only, see ``faust_transport.py``."""
        if self.producer_only:
            return super()._new_transport()
        from choreo.runtime.faust_transport import CommittedTransport

        return CommittedTransport(self.conf.broker_consumer, self)

    def on_webserver_init(self, web: Any) -> None:
        """Add choreo's pages to Faust's."""
        add_pages(web, self._site, lambda: self._engine_service, lambda: self._is_up)

    async def on_started_init_extra_services(self) -> None:
        """Start the engine after everything of Faust's, so that it stops first."""
        await super().on_started_init_extra_services()
        self._is_up = True  # Faust's tables, if it has any, are recovered by now
        if self.producer_only and self._engine_service is None:
            self._engine_service = EngineService(
                self._site,
                self._make_engine(),
                on_failure=lambda failure: self.on_failure(failure),
                url=lambda: str(self.conf.canonical_url) if self.conf.web_enabled else None,
                loop=self.loop,
                beacon=self.beacon,
            )
            await self.on_init_extra_service(self._engine_service)

    def _make_engine(self) -> MakeEngine:
        """How the engine is made; tests put another in its place."""

        def make(site: Site, instance: str, failed: Callable[[BaseException], None]) -> EngineThread:
            from choreo.runtime.assembly import assemble

            return assemble(site, self.definition, instance=instance, on_failure=failed)

        return make

    def _crash_with(self, failure: ChoreoError) -> None:
        """Without choreo's worker (a script that starts the app itself): Faust's crash carries the error out."""
        self._failing = asyncio.ensure_future(self.crash(failure))

    def _create_directories(self) -> None:
        """Faust makes one level of its data directory only."""
        Path(self.conf.datadir).mkdir(parents=True, exist_ok=True)
        super()._create_directories()


def _free_port(host: str) -> int:
    """The first port that nobody listens on; Faust's default if all are taken, so that its error says so."""
    for port in range(WEB_PORT_FIRST, WEB_PORT_FIRST + WEB_PORTS_MAX):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    return WEB_PORT_FIRST


class _ShownByClick(click.ClickException):
    """Makes click print an error as one line and exit with the error's code."""

    def show(self, file: Any = None) -> None:
        click.echo(str(self), err=True)


def _shown_by_faust(error: ChoreoError) -> ChoreoError:
    """The same error, in a form that the ``faust`` command prints as one line instead of a traceback."""

    kind = type(error)
    shown: ChoreoError = type(kind.__name__, (kind, _ShownByClick), {})(
        error.message,
        code=error.code,
        where=error.where,
        hint=error.hint,
        retry=error.retry,
        in_doubt=error.in_doubt,
        fault=error.fault,
    )
    return shown
