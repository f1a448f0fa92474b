"""A Confluent-compatible registry over HTTP.

Lookups are cached for good: what an id means never changes. Every request has its timeouts and its attempts spelled
out; a registry that stays away is an error that may be tried again (CH0207), never a verdict about a message.

Source: Confluent Schema Registry API reference (subjects, schemas, compatibility).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from choreo.codec.schema import Schema
from choreo.errors import SchemaError

# A registry answers in milliseconds; a worker's step may wait for it, so it gives up long before its session does.
_TIMEOUT: Final = httpx.Timeout(connect=2.0, read=5.0, write=5.0, pool=5.0)
_ATTEMPTS: Final = 4
_BACKOFF_S: Final = 0.2  # doubles: 0.2, 0.4, 0.8
_REFERENCES_MAX: Final = 256  # schemas that one schema may refer to, directly or not
_CONTENT: Final = "application/vnd.schemaregistry.v1+json"
_TRY_AGAIN: Final = frozenset({429, 500, 502, 503, 504})


class HttpRegistry:
    """Registry port over a Confluent-compatible REST API.

    Args:
        url: base URL; a user and password in it are used as basic authentication and never shown.
        sleep: waits between attempts.
        transport: for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        parts = urlsplit(url)
        self.url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        auth = (parts.username, parts.password or "") if parts.username else None
        self._sleep = sleep
        self._client = httpx.Client(
            auth=auth,
            timeout=_TIMEOUT,
            headers={"Accept": f"{_CONTENT}, application/json", "Content-Type": _CONTENT},
            follow_redirects=False,
            transport=transport,
        )
        self._by_id: dict[int, Schema] = {}
        self._ids: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def id_for(self, subject: str, schema: Schema) -> int:
        """The id under which a subject's records carry this schema.

        Raises:
            SchemaError: CH0205, this schema is not registered for the subject; CH0207, registry away.
        """
        key = (subject, schema.fingerprint)
        if key in self._ids:
            return self._ids[key]
        status, body = self._request("POST", f"/subjects/{_quoted(subject)}", _posted(schema))
        if status == 404:
            # Registries compare texts; a sentence in a doc makes another text, though nothing else differs.
            for _, schema_id, known in reversed(self.versions(subject)):
                if known == schema:
                    return self._note(key, schema_id, known)
            raise SchemaError(
                f"the schema {schema.full_name} is not registered for {subject}",
                code="CH0205",
                where=self.url,
                hint="run `choreo apply`",
            )
        return self._note(key, _number(self._checked(status, body, f"look up {subject}"), "id"), schema)

    def schema_by_id(self, schema_id: int) -> Schema:
        """The schema that an id on the wire means.

        Raises:
            SchemaError: CH0205, unknown id; CH0202, not a record schema; CH0207, registry away.
        """
        known = self._by_id.get(schema_id)
        if known is not None:
            return known
        status, body = self._request("GET", f"/schemas/ids/{schema_id}")
        if status == 404:
            raise SchemaError(f"the registry has no schema with the id {schema_id}", code="CH0205", where=self.url)
        schema = self._schema(self._checked(status, body, f"read schema {schema_id}"), f"schema {schema_id}")
        self._by_id[schema_id] = schema
        return schema

    def register(self, subject: str, schema: Schema) -> int:
        """Makes the schema the subject's newest version, unless it is; returns its id.

        Raises:
            SchemaError: CH0203, the registry refuses it as incompatible; CH0202, as invalid; CH0207, registry away.
        """
        newest = self.versions(subject)[-1:]
        if newest and newest[0][2] == schema:
            return self._note((subject, schema.fingerprint), newest[0][1], schema)
        status, body = self._request("POST", f"/subjects/{_quoted(subject)}/versions", _posted(schema))
        number = _number(self._checked(status, body, f"register {schema.full_name} for {subject}"), "id")
        return self._note((subject, schema.fingerprint), number, schema)

    def versions(self, subject: str) -> list[tuple[int, int, Schema]]:
        """(version, id, schema) of a subject, oldest first; empty if nothing is registered."""
        path = f"/subjects/{_quoted(subject)}/versions"
        status, body = self._request("GET", path)
        if status == 404:
            return []
        numbers = self._checked(status, body, f"list the versions of {subject}")
        if not isinstance(numbers, list) or not all(isinstance(one, int) for one in numbers):
            raise self._odd(f"a list of version numbers for {subject}")
        found = []
        for version in sorted(numbers):
            status, body = self._request("GET", f"{path}/{version}")
            if status == 404:
                continue  # deleted since it was listed
            entry = self._checked(status, body, f"read version {version} of {subject}")
            schema_id = _number(entry, "id")
            if schema_id not in self._by_id:
                self._by_id[schema_id] = self._schema(entry, f"{subject} version {version}")
            found.append((version, schema_id, self._by_id[schema_id]))
        return found

    def subjects(self) -> list[str]:
        """Every subject of the registry."""
        status, body = self._request("GET", "/subjects")
        names = self._checked(status, body, "list the subjects")
        if not isinstance(names, list):
            raise self._odd(f"a list of subjects, saw {type(names).__name__}")
        return sorted(str(name) for name in names)

    def _note(self, key: tuple[str, str], schema_id: int, schema: Schema) -> int:
        self._ids[key] = schema_id
        self._by_id.setdefault(schema_id, schema)
        return schema_id

    def _schema(self, entry: Any, what: str) -> Schema:
        if not isinstance(entry, dict) or not isinstance(entry.get("schema"), str):
            raise self._odd(f"an object with a schema for {what}")
        kind = entry.get("schemaType", "AVRO")
        if kind != "AVRO":
            raise SchemaError(f"{what} is {kind}, choreo reads Avro", code="CH0205", where=self.url)
        texts: dict[str, str] = {}
        self._collect(entry.get("references") or [], texts, what)
        return Schema.parse(entry["schema"], f"{self.url} {what}", texts)

    def _collect(self, references: Any, texts: dict[str, str], what: str) -> None:
        """Texts of the schemas that a schema refers to, those they refer to included."""
        if not isinstance(references, list):
            raise self._odd(f"a list of references for {what}")
        for one in references:
            subject, version = (one.get("subject"), one.get("version")) if isinstance(one, dict) else (None, None)
            if not isinstance(subject, str) or not isinstance(version, int):
                raise self._odd(f"references of {what} with subject and version")
            key = f"{subject} version {version}"
            if key in texts:
                continue
            if len(texts) >= _REFERENCES_MAX:
                raise SchemaError(f"a schema refers to more than {_REFERENCES_MAX} others", where=self.url)
            status, body = self._request("GET", f"/subjects/{_quoted(subject)}/versions/{version}")
            entry = self._checked(status, body, f"read {key}")
            if not isinstance(entry, dict) or not isinstance(entry.get("schema"), str):
                raise self._odd(f"an object with a schema for {key}")
            texts[key] = entry["schema"]
            self._collect(entry.get("references") or [], texts, key)

    def _request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> tuple[int, Any]:
        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._sleep(_BACKOFF_S * 2 ** (attempt - 1))
            try:
                answer = self._client.request(method, self.url + path, json=body)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if answer.status_code not in _TRY_AGAIN:
                return answer.status_code, _json(answer)
            reason = f"it answered {answer.status_code}"
        raise SchemaError(
            f"the schema registry cannot be reached ({_ATTEMPTS} attempts): {reason}",
            code="CH0207",
            where=self.url,
            hint="check CHOREO_SCHEMA_REGISTRY or `cluster.schema_registry`",
            retry="backoff",
            fault="environment",
        )

    def _checked(self, status: int, body: Any, what: str) -> Any:
        """The body of a good answer; any other answer as an error that says what to do."""
        if status < 300:
            return body
        said = str(body.get("message", "")) if isinstance(body, dict) else ""
        detail = f": {said[:500]}" if said else ""
        if status in (401, 403):
            raise SchemaError(
                f"the schema registry refuses to {what}: not allowed ({status}){detail}",
                code="CH0207",
                where=self.url,
                hint="put user and password into the URL: https://user:password@host",
                fault="environment",
            )
        if status == 409:
            raise SchemaError(f"the registry refuses to {what}: incompatible{detail}", code="CH0203", where=self.url)
        if status == 422:
            raise SchemaError(f"the registry refuses to {what}: invalid schema{detail}", code="CH0202", where=self.url)
        raise SchemaError(f"the registry refuses to {what}: status {status}{detail}", code="CH0207", where=self.url)

    def _odd(self, expected: str) -> SchemaError:
        return SchemaError(
            f"the answer is not that of a schema registry; expected {expected}",
            code="CH0207",
            where=self.url,
            hint="is the URL that of its Confluent-compatible API?",
            fault="environment",
        )


def _quoted(subject: str) -> str:
    return quote(subject, safe="", errors="replace")  # JSON can hold halves of characters


def _posted(schema: Schema) -> dict[str, object]:
    return {"schema": schema.text}  # Avro is the default; older registries refuse to be told


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None


def _number(entry: Any, key: str) -> int:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise SchemaError(f"the registry's answer has no {key!r}", code="CH0207", fault="environment")
    return value
