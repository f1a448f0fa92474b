"""The pages every choreo worker serves: ``/health``, ``/ready`` and ``/status``, all JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faust.web import View

from choreo.runtime.engine_service import EngineService, Health
from choreo.runtime.site import Site

HTTP_OK = 200
HTTP_UNAVAILABLE = 503


def add_pages(web: Any, site: Site, engine: Callable[[], EngineService | None], started: Callable[[], bool]) -> None:
    """Register the pages with Faust's web server.

    Args:
        web: Faust's web driver.
        site: whose pages.
        engine: the engine's service, None before it exists and for ``kind: faust``.
        started: whether Faust's own part is up; all there is to know for ``kind: faust``.
    """

    def health() -> Health:
        service = engine()
        return Health(True, "running" if started() else "starting") if service is None else service.health()

    def readiness() -> Health:
        service = engine()
        if service is not None:
            return service.readiness()
        ready = started() and site.agent.kind == "faust"
        return Health(ready, "ready" if ready else "starting")

    def respond(view: Any, answer: Health, **more: Any) -> Any:
        body = {"ok": answer.ok, "reason": answer.reason, "topology": site.topology.name, "agent": site.agent.name}
        return view.json({**body, **more}, status=HTTP_OK if answer.ok else HTTP_UNAVAILABLE)

    async def health_page(view: Any, request: Any) -> Any:
        """Answers 200 while the worker should go on living, else 503."""
        return respond(view, health())

    async def ready_page(view: Any, request: Any) -> Any:
        """Answers 200 once all assigned partitions are restored, else 503."""
        return respond(view, readiness())

    async def status_page(view: Any, request: Any) -> Any:
        """All that is known about the worker, always 200."""
        service = engine()
        shown = None if service is None or service.engine is None else dict(service.engine.status().as_json())
        answer = readiness()
        body = {
            "topology": site.topology.name,
            "agent": site.agent.name,
            "kind": site.agent.kind,
            "group": site.group,
            "instance": None if service is None else service.instance,
            "healthy": health().ok,
            "ready": answer.ok,
            "reason": answer.reason,
            "engine": shown,
        }
        return view.json(body)

    for path, page in (("/health", health_page), ("/ready", ready_page), ("/status", status_page)):
        kind = View.from_handler(page)
        kind.view_name = f"choreo{path.replace('/', '-')}"
        kind.view_path = path
        web.add_view(kind)
