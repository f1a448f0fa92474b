"""A registry that is away, refuses or answers nonsense is a clear error, after a bounded number of attempts."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import httpx
import pytest

from choreo.codec.schema import Schema
from choreo.errors import SchemaError
from choreo.runtime.registry_http import HttpRegistry
from tests.codec.shapes import record
from tests.registry.server import Answers, registry_server

SUBJECT = "flights-value"
FIRST = record("Flight", ("tail", "string"))
BROKEN = record("Flight", ("tail", "int"))


@pytest.fixture
def server() -> Iterator[Answers]:
    with registry_server() as running:
        yield running


def connect(url: str, waits: list[float] | None = None) -> HttpRegistry:
    return HttpRegistry(url, sleep=(waits if waits is not None else []).append)


def test_an_unreachable_registry_may_be_tried_again() -> None:
    waits: list[float] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    registry = HttpRegistry("http://127.0.0.1:9", sleep=waits.append, transport=httpx.MockTransport(refuse))
    with pytest.raises(SchemaError, match=r"cannot be reached \(4 attempts\): ConnectError") as caught:
        registry.schema_by_id(7)
    registry.close()
    assert (caught.value.code, caught.value.retry, caught.value.fault) == ("CH0207", "backoff", "environment")
    assert caught.value.exit_code == 69
    assert waits == [0.2, 0.4, 0.8]


def test_a_passing_failure_is_not_noticed(server: Answers) -> None:
    waits: list[float] = []
    registry = connect(server.url, waits)
    server.failures = [503, 429, 500]
    assert registry.subjects() == []
    assert waits == [0.2, 0.4, 0.8]
    registry.close()


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "CH0207", "not allowed \\(401\\)"),
        (403, "CH0207", "not allowed \\(403\\)"),
        (409, "CH0203", "incompatible: try later"),
        (422, "CH0202", "invalid schema: try later"),
        (418, "CH0207", "status 418"),
        (301, "CH0207", "status 301"),
    ],
)
def test_refusals_have_codes(server: Answers, status: int, code: str, message: str) -> None:
    server.failures = [status]
    registry = connect(server.url)
    with pytest.raises(SchemaError, match=message) as caught:
        registry.subjects()
    assert (caught.value.code, caught.value.retry, caught.value.where) == (code, "never", server.url)
    registry.close()


def test_an_incompatible_schema_is_refused_by_the_registry(server: Answers) -> None:
    registry = connect(server.url)
    registry.register(SUBJECT, FIRST)
    with pytest.raises(SchemaError, match=r"incompatible: .*t\.Flight\.tail") as caught:
        registry.register(SUBJECT, BROKEN)
    assert caught.value.code == "CH0203"
    registry.close()


def test_credentials_are_sent_and_never_shown(server: Answers) -> None:
    server.user = "Basic " + base64.b64encode(b"ops:s3cret").decode()
    registry = connect(server.url.replace("http://", "http://ops:s3cret@"))
    assert registry.subjects() == []
    assert "s3cret" not in registry.url
    registry.close()
    wrong = connect(server.url.replace("http://", "http://ops:other@"))
    with pytest.raises(SchemaError) as caught:
        wrong.subjects()
    assert "other" not in str(caught.value)
    wrong.close()


@pytest.mark.parametrize("garbage", [b"<html>", b"[]", b'"x"', b'{"schema": 5}', b"{}", b"\xff"])
def test_nonsense_is_not_an_answer(server: Answers, garbage: bytes) -> None:
    server.garbage = garbage
    registry = connect(server.url)
    with pytest.raises(SchemaError, match="not that of a schema registry") as caught:
        registry.schema_by_id(1)
    assert caught.value.code == "CH0207"
    registry.close()


def test_a_schema_by_id_is_fetched_once(server: Answers) -> None:
    registry = connect(server.url)
    number = registry.register(SUBJECT, FIRST)
    fresh = connect(server.url)
    server.requests.clear()
    for _ in range(3):
        assert fresh.schema_by_id(number) == FIRST
    assert len(server.requests) == 1
    registry.close()
    fresh.close()


def test_references_are_followed(server: Answers) -> None:
    leg = {
        "type": "record",
        "name": "t.Leg",
        "fields": [{"name": "a", "type": "t.Place"}, {"name": "b", "type": "t.Place"}],
    }
    place = {"type": "record", "name": "t.Place", "fields": [{"name": "iata", "type": "string"}]}
    server.texts = {1: json.dumps(place), 2: json.dumps(leg)}
    server.subjects = {"place": [1], "leg": [2]}
    server.references = {2: [{"name": "t.Place", "subject": "place", "version": 1}]}
    registry = connect(server.url)
    alone = Schema.parse(json.dumps(leg), others={"Place.avsc": json.dumps(place)})
    assert registry.schema_by_id(2) == alone
    assert registry.versions("leg") == [(1, 2, alone)]
    registry.close()


def test_a_schema_that_is_not_avro_is_refused(server: Answers) -> None:
    server.garbage = json.dumps({"schemaType": "PROTOBUF", "schema": "syntax"}).encode()
    registry = connect(server.url)
    with pytest.raises(SchemaError, match="schema 3 is PROTOBUF, choreo reads Avro"):
        registry.schema_by_id(3)
    registry.close()
