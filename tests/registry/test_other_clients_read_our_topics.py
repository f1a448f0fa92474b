"""`choreo schemas serve`: Confluent's own client finds schemas there and decodes what choreo wrote, without Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from choreo.codec.wire import encode
from choreo.runtime.builtin_schemas import builtin_id
from choreo.runtime.registry_file import FileRegistry
from choreo.runtime.registry_view import view
from tests.codec.shapes import FLIGHT, FLIGHT_VALUE, record

with warnings.catch_warnings(record=True):  # a library that Confluent's client imports warns about itself
    from confluent_kafka.schema_registry import Schema as TheirSchema
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext

SUBJECT = "flights-value"
CONTEXT = SerializationContext("flights", MessageField.VALUE)
NEWER = record("Flight", *((field, "string") for field in ("tail", "carrier")))


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    found = FileRegistry(tmp_path / "registry.lock.json")
    found.register(SUBJECT, FLIGHT)
    found.register(SUBJECT, NEWER)
    return found


@pytest.fixture
def url(registry: FileRegistry) -> Iterator[str]:
    started, ended = threading.Event(), asyncio.Event()
    found: list[str] = []
    loop = asyncio.new_event_loop()

    async def run() -> None:
        runner = web.AppRunner(view(registry), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        started.set()
        await ended.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(10)
    yield found[0]
    loop.call_soon_threadsafe(ended.set)
    thread.join()
    loop.close()


def get(url: str, data: object = None) -> tuple[int, object]:
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.fixture
def client(url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": url}) as found:
        yield found


def test_confluents_deserializer_reads_our_bytes(client: SchemaRegistryClient, registry: FileRegistry) -> None:
    read = AvroDeserializer(client)
    assert read(encode(registry.id_for(SUBJECT, FLIGHT), FLIGHT, FLIGHT_VALUE), CONTEXT) == FLIGHT_VALUE
    newer = {"tail": "N1", "carrier": "UA"}
    assert read(encode(registry.id_for(SUBJECT, NEWER), NEWER, newer), CONTEXT) == newer


def test_confluents_deserializer_reads_our_own_records(client: SchemaRegistryClient) -> None:
    number, schema = builtin_id("Checkpoint")
    value = {"topic": "flights", "partition": 0, "low": 7, "done": [9], "event_time_ms": -1, "seen_at_ms": 0}
    value["topic_id"] = "abc"
    assert AvroDeserializer(client)(encode(number, schema, value), CONTEXT) == value


def test_confluents_client_finds_versions(client: SchemaRegistryClient) -> None:
    assert SUBJECT in client.get_subjects()
    assert client.get_versions(SUBJECT) == [1, 2]
    assert client.get_latest_version(SUBJECT).schema_id == 1001
    assert client.lookup_schema(SUBJECT, TheirSchema(FLIGHT.text, "AVRO")).version == 1


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/schemas/ids/4711", 404, 40403),
        ("/schemas/ids/4711/versions", 404, 40403),
        ("/subjects/none/versions", 404, 40401),
        ("/subjects/none/versions/latest", 404, 40401),
        ("/subjects/flights-value/versions/9", 404, 40402),
        ("/subjects/flights-value/versions/abc", 404, 40402),
        ("/nothing", 404, 404),
    ],
)
def test_what_is_not_there_has_confluents_codes(url: str, path: str, status: int, code: int) -> None:
    answered, body = get(url + path)
    assert isinstance(body, dict)
    assert (answered, body["error_code"]) == (status, code)


@pytest.mark.parametrize(
    ("path", "data", "status", "code"),
    [
        ("/subjects/flights-value/versions", {"schema": '"string"'}, 405, 40501),
        ("/subjects/flights-value", {"schema": "{"}, 422, 42201),
        ("/subjects/flights-value", {"schema": 5}, 422, 42201),
        ("/subjects/flights-value", [], 422, 42201),
        ("/subjects/none", {"schema": FLIGHT.text}, 404, 40401),
        ("/subjects/flights-value", {"schema": record("Other").text}, 404, 40403),
    ],
)
def test_nothing_is_registered_here(url: str, path: str, data: object, status: int, code: int) -> None:
    answered, body = get(url + path, data)
    assert isinstance(body, dict)
    assert (answered, body["error_code"]) == (status, code)


def test_the_small_pages_answer(url: str) -> None:
    assert get(url + "/") == (200, {})
    assert get(url + "/schemas/types") == (200, ["AVRO"])
    assert get(url + "/schemas/ids/1000/versions") == (200, [{"subject": SUBJECT, "version": 1}])
    assert get(url + "/schemas/ids/1000/schema") == (200, json.loads(FLIGHT.text))


def test_the_command_serves_until_it_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "topologies").mkdir()
    (tmp_path / "schemas").mkdir()
    FileRegistry(tmp_path / "schemas" / "registry.lock.json").register(SUBJECT, FLIGHT)
    command = [sys.executable, "-c", "from choreo.cli._main import main; main()"]
    command += ["schemas", "serve", "--json", "--port", "0"]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment) as served:
        try:
            assert served.stdout is not None
            url = json.loads(served.stdout.readline())["url"]
            assert get(url + "/schemas/ids/1000") == (200, {"schema": FLIGHT.text})
            port = url.rpartition(":")[2]
            taken = subprocess.run(
                [*command[:-1], port], cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
            )
            assert taken.returncode == 1
            assert taken.stderr.startswith("CH0802 ")
        finally:
            served.send_signal(signal.SIGTERM)
            assert served.wait(10) == 0
