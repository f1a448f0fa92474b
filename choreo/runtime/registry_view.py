"""A read-only, Confluent-compatible view of a registry over HTTP, for clients of other languages and tools.

It serves what deserialisers and consoles ask for: schemas by id, subjects, versions, lookup of a schema. It registers
nothing: ids come from review (the lock file), not from whoever connects.

Source: Confluent Schema Registry API reference; error codes 40401 (subject), 40402 (version), 40403 (schema).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from choreo.codec.schema import Schema
from choreo.errors import ChoreoError, HostError, SchemaError
from choreo.ports import Registry

_CONTENT: Final = "application/vnd.schemaregistry.v1+json"
# A schema is a few kB; a request that posts more than this is not one.
_REQUEST_BYTES_MAX: Final = 1024 * 1024


def view(registry: Registry) -> web.Application:
    """The view as an aiohttp application."""
    pages = _Pages(registry)
    app = web.Application(client_max_size=_REQUEST_BYTES_MAX, middlewares=[_errors])
    app.add_routes(
        [
            web.get("/", pages.root),
            web.get("/schemas/types", pages.types),
            web.get("/schemas/ids/{id:[0-9]+}", pages.schema),
            web.get("/schemas/ids/{id:[0-9]+}/schema", pages.schema_text),
            web.get("/schemas/ids/{id:[0-9]+}/versions", pages.schema_versions),
            web.get("/subjects", pages.subjects),
            web.get("/subjects/{subject}/versions", pages.versions),
            web.get("/subjects/{subject}/versions/{version}", pages.version),
            web.post("/subjects/{subject}", pages.lookup),
        ]
    )
    return app


async def serve(app: web.Application, host: str, port: int, announce: Callable[[int], None]) -> None:
    """Serves an application until SIGINT or SIGTERM.

    Args:
        app: what to serve.
        host: address to listen on.
        port: port to listen on, 0 for any free one.
        announce: called with the port once it answers.

    Raises:
        HostError: CH0802, the port is taken.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            raise HostError(
                f"port {port} cannot be used: {error.strerror}",
                code="CH0802",
                hint="choose another one with --port, or 0 for any",
                fault="user",
            ) from None
        announce(int(runner.addresses[0][1]))
        await ended.wait()
    finally:
        await runner.cleanup()


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed:
        return _error(405, 40501, "this view is read-only; ids are given by `choreo apply`")
    except web.HTTPNotFound:
        return _error(404, 404, f"nothing at {request.path}")
    except ChoreoError as error:
        return _error(500, 50001, str(error))


def _error(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"error_code": code, "message": message}, status=status, content_type=_CONTENT)


def _answer(body: object) -> web.Response:
    return web.json_response(body, content_type=_CONTENT)


class _Pages:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def root(self, request: web.Request) -> web.Response:
        return _answer({})

    async def types(self, request: web.Request) -> web.Response:
        return _answer(["AVRO"])

    async def schema(self, request: web.Request) -> web.Response:
        schema = self._by_id(int(request.match_info["id"]))
        return _answer({"schema": schema.text}) if schema is not None else _error(404, 40403, "Schema not found")

    async def schema_text(self, request: web.Request) -> web.Response:
        schema = self._by_id(int(request.match_info["id"]))
        if schema is None:
            return _error(404, 40403, "Schema not found")
        return web.Response(text=schema.text, content_type=_CONTENT)

    async def schema_versions(self, request: web.Request) -> web.Response:
        wanted = int(request.match_info["id"])
        found = [
            {"subject": subject, "version": version}
            for subject in self._registry.subjects()
            for version, schema_id, _ in self._registry.versions(subject)
            if schema_id == wanted
        ]
        return _answer(found) if found else _error(404, 40403, "Schema not found")

    async def subjects(self, request: web.Request) -> web.Response:
        return _answer(self._registry.subjects())

    async def versions(self, request: web.Request) -> web.Response:
        subject = request.match_info["subject"]
        versions = self._registry.versions(subject)
        if not versions:
            return _error(404, 40401, f"Subject '{subject}' not found.")
        return _answer([version for version, _, _ in versions])

    async def version(self, request: web.Request) -> web.Response:
        subject, wanted = request.match_info["subject"], request.match_info["version"]
        versions = self._registry.versions(subject)
        if not versions:
            return _error(404, 40401, f"Subject '{subject}' not found.")
        newest = versions[-1][0]
        for version, schema_id, schema in versions:
            if wanted == str(version) or (wanted in ("latest", "-1") and version == newest):
                return _answer(_entry(subject, version, schema_id, schema))
        return _error(404, 40402, f"Version {wanted} not found.")

    async def lookup(self, request: web.Request) -> web.Response:
        subject = request.match_info["subject"]
        try:
            body = await request.json()
            posted = Schema.parse(body["schema"], "posted schema")
        except (ValueError, LookupError, TypeError, SchemaError) as error:
            return _error(422, 42201, f"Invalid schema: {error}")
        versions = self._registry.versions(subject)
        if not versions:
            return _error(404, 40401, f"Subject '{subject}' not found.")
        for version, schema_id, schema in reversed(versions):
            if schema == posted:
                return _answer(_entry(subject, version, schema_id, schema))
        return _error(404, 40403, "Schema not found")

    def _by_id(self, schema_id: int) -> Schema | None:
        try:
            return self._registry.schema_by_id(schema_id)
        except SchemaError as error:
            if error.code == "CH0205":
                return None
            raise


def _entry(subject: str, version: int, schema_id: int, schema: Schema) -> dict[str, object]:
    return {"subject": subject, "version": version, "id": schema_id, "schemaType": "AVRO", "schema": schema.text}
