"""A small Confluent-compatible registry on loopback that can register and fail: what the HTTP adapter is tried on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from choreo.codec.compat import check_versions
from choreo.codec.schema import Schema
from choreo.errors import SchemaError


@dataclass
class Answers:
    """What the server holds, and how it shall misbehave."""

    texts: dict[int, str] = field(default_factory=dict)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    references: dict[int, list[dict[str, object]]] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)  # status codes of the next answers
    garbage: bytes | None = None
    user: str | None = None  # expected Authorization header
    requests: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def registry_server() -> Iterator[Answers]:
    """Runs the server; yields its contents."""
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            answers.requests.append(format % args)

        def do_GET(self) -> None:
            self._serve("GET", None)

        def do_POST(self) -> None:
            self._serve("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _serve(self, method: str, body: Any) -> None:
            if answers.failures:
                self._answer(answers.failures.pop(0), {"message": "try later"})
            elif answers.user is not None and self.headers.get("Authorization") != answers.user:
                self._answer(401, {"error_code": 401, "message": "Unauthorized"})
            elif answers.garbage is not None:
                self._answer(200, answers.garbage)
            else:
                self._answer(*_route(answers, method, [unquote(one) for one in self.path.split("/")[1:]], body))

        def _answer(self, status: int, body: Any) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    answers.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield answers
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _entry(answers: Answers, subject: str, version: int) -> dict[str, object]:
    number = answers.subjects[subject][version - 1]
    found: dict[str, object] = {"subject": subject, "version": version, "id": number, "schema": answers.texts[number]}
    if number in answers.references:
        found["references"] = answers.references[number]
    return found


def _route(answers: Answers, method: str, path: list[str], body: Any) -> tuple[int, Any]:
    match method, path:
        case "GET", ["subjects"]:
            return 200, sorted(answers.subjects)
        case "GET", ["schemas", "ids", number]:
            if int(number) not in answers.texts:
                return 404, {"error_code": 40403, "message": "Schema not found"}
            found: dict[str, object] = {"schema": answers.texts[int(number)]}
            if int(number) in answers.references:
                found["references"] = answers.references[int(number)]
            return 200, found
        case "POST", ["subjects", subject, "versions"]:
            return _register(answers, subject, body["schema"])
        case _, ["subjects", subject, *_] if subject not in answers.subjects:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        case "GET", ["subjects", subject, "versions"]:
            return 200, list(range(1, len(answers.subjects[subject]) + 1))
        case "GET", ["subjects", subject, "versions", version]:
            return 200, _entry(answers, subject, int(version))
        case "POST", ["subjects", subject]:
            for version, number in enumerate(answers.subjects[subject], start=1):
                if answers.texts[number] == body["schema"]:
                    return 200, _entry(answers, subject, version)
            return 404, {"error_code": 40403, "message": "Schema not found"}
    return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}


def _register(answers: Answers, subject: str, text: str) -> tuple[int, Any]:
    try:
        schema = Schema.parse(text)
    except SchemaError as error:
        return 422, {"error_code": 42201, "message": f"Invalid schema: {error.message}"}
    versions = answers.subjects.setdefault(subject, [])
    problems = check_versions(schema, [Schema.parse(answers.texts[one]) for one in versions])
    if problems:
        return 409, {"error_code": 409, "message": f"Schema being registered is incompatible: {problems[0]}"}
    same = [number for number, known in answers.texts.items() if known == text]
    number = same[0] if same else max(answers.texts, default=0) + 1
    answers.texts[number] = text
    if number not in versions:
        versions.append(number)
    return 200, {"id": number}
