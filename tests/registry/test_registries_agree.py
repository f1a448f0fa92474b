"""Every registry keeps the same contract: the file, and any Confluent-compatible server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from choreo.errors import SchemaError
from choreo.ports import Registry
from choreo.runtime.registry_choice import open_registry, value_subject
from choreo.runtime.registry_file import FileRegistry
from choreo.runtime.registry_http import HttpRegistry
from tests.codec.shapes import record
from tests.registry.server import registry_server

SUBJECT = value_subject("flights")
FIRST = record("Flight", ("tail", "string"))
SECOND = record("Flight", ("tail", "string"), ("delay", "int", 0))
Open = Callable[[], Registry]


@pytest.fixture(params=["file", "http"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same registry again and again, as workers and commands do."""
    if request.param == "file":
        yield lambda: open_registry("file", tmp_path)
        return
    clients: list[HttpRegistry] = []
    with registry_server() as server:

        def connect() -> Registry:
            client = open_registry(server.url, tmp_path)
            assert isinstance(client, HttpRegistry)
            clients.append(client)
            return client

        yield connect
        for client in clients:
            client.close()


def test_an_empty_registry_knows_nothing(opened: Open) -> None:
    registry = opened()
    assert registry.versions(SUBJECT) == []
    with pytest.raises(SchemaError) as caught:
        registry.id_for(SUBJECT, FIRST)
    assert caught.value.code == "CH0205"
    with pytest.raises(SchemaError) as caught:
        registry.schema_by_id(4_711)
    assert caught.value.code == "CH0205"


def test_an_id_means_the_same_schema_for_ever(opened: Open) -> None:
    registry = opened()
    first = registry.register(SUBJECT, FIRST)
    second = registry.register(SUBJECT, SECOND)
    assert first != second
    for one in (registry, opened()):
        assert one.schema_by_id(first) == FIRST
        assert one.schema_by_id(second) == SECOND
        assert one.id_for(SUBJECT, FIRST) == first
        assert one.id_for(SUBJECT, SECOND) == second
        assert one.versions(SUBJECT) == [(1, first, FIRST), (2, second, SECOND)]
        assert SUBJECT in one.subjects()


def test_registering_again_changes_nothing(opened: Open) -> None:
    registry = opened()
    first = registry.register(SUBJECT, FIRST)
    assert registry.register(SUBJECT, FIRST) == first
    assert opened().register(SUBJECT, FIRST) == first
    assert len(opened().versions(SUBJECT)) == 1


def test_one_schema_has_one_id_under_all_subjects(opened: Open) -> None:
    registry = opened()
    assert registry.register(SUBJECT, FIRST) == registry.register(value_subject("late-flights"), FIRST)


def test_a_schema_of_another_subject_is_not_this_ones(opened: Open) -> None:
    registry = opened()
    registry.register(value_subject("other"), FIRST)
    with pytest.raises(SchemaError, match="choreo apply") as caught:
        registry.id_for(SUBJECT, FIRST)
    assert caught.value.code == "CH0205"


def test_a_better_doc_is_not_a_new_version(opened: Open) -> None:
    registry = opened()
    number = registry.register(SUBJECT, FIRST)
    documented = type(FIRST).parse(FIRST.text.replace('"type":"string"', '"type":"string","doc":"of the aircraft"'))
    assert documented == FIRST
    assert opened().id_for(SUBJECT, documented) == number
    assert registry.register(SUBJECT, documented) == number


def test_a_worker_sees_what_was_registered_after_it_started(opened: Open) -> None:
    worker = opened()
    with pytest.raises(SchemaError):
        worker.id_for(SUBJECT, FIRST)
    number = opened().register(SUBJECT, FIRST)
    assert worker.schema_by_id(number) == FIRST
    assert worker.id_for(SUBJECT, FIRST) == number


def test_the_address_chooses_the_registry(tmp_path: Path) -> None:
    assert isinstance(open_registry("file", tmp_path), FileRegistry)
    other = open_registry("http://127.0.0.1:1/api", tmp_path)
    assert isinstance(other, HttpRegistry)
    other.close()
