"""The lock file is reviewable, stable and not to be edited by hand; choreo's own ids are fixed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from choreo.codec.types import records_of
from choreo.errors import HostError, SchemaError
from choreo.kernel import values
from choreo.runtime.builtin_schemas import RECORD_NAMES, builtin_id, builtin_lock, builtin_schemas, library_texts
from choreo.runtime.registry_file import FileRegistry
from choreo.runtime.registry_lock import FIRST_USER_ID, Lock
from tests.codec.shapes import record

A = record("A", ("a", "string"))
A2 = record("A", ("a", "string"), ("b", "int", 0))
B = record("B", ("b", "int"))


def test_user_ids_start_at_1000_and_are_never_reused(tmp_path: Path) -> None:
    registry = FileRegistry(tmp_path / "registry.lock.json")
    assert [registry.register(subject, schema) for subject, schema in (("a", A), ("b", B), ("a", A2))] == [
        FIRST_USER_ID,
        FIRST_USER_ID + 1,
        FIRST_USER_ID + 2,
    ]


def test_the_text_is_stable_and_a_registration_only_adds_lines(tmp_path: Path) -> None:
    file = tmp_path / "registry.lock.json"
    registry = FileRegistry(file)
    registry.register("b", B)
    before = file.read_text()
    assert Lock.parse(before, "x").dump() == before
    registry.register("a", A)
    after = file.read_text()
    kept = [line.strip().rstrip(",") for line in before.splitlines()]
    assert all(line in [one.strip().rstrip(",") for one in after.splitlines()] for line in kept)
    assert list(json.loads(after)["subjects"]) == ["a", "b"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["registry.lock.json"]


def test_going_back_to_an_older_schema_is_a_version_with_the_old_id() -> None:
    lock, first = Lock().registered("a", A)
    lock, second = lock.registered("a", A2)
    lock, third = lock.registered("a", A)
    assert (first, second, third) == (1000, 1001, 1000)
    assert [one.schema_id for one in lock.versions("a")] == [1000, 1001, 1000]
    found = lock.find("a", A)
    assert found is not None
    assert found.version == 3


def edited(change: str) -> str:
    body = json.loads(Lock().registered("a", A)[0].dump())
    match change:
        case "schema":
            body["schemas"]["1000"]["schema"]["fields"][0]["type"] = "int"
        case "id":
            body["subjects"]["a"][0]["id"] = 1007
        case "version":
            body["subjects"]["a"][0]["version"] = 2
        case "format":
            body["format"] = 2
        case "shape":
            body["subjects"]["a"] = 5
    return json.dumps(body)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<<<<<<< HEAD", "cannot be used: JSONDecodeError"),
        ("{}", "cannot be used: KeyError: 'format'"),
        (edited("format"), "its format is 2, this choreo reads 1"),
        (edited("id"), "a names the id 1007, which has no schema"),
        (edited("version"), "the versions of a are not 1, 2, 3"),
        (edited("shape"), "cannot be used: TypeError"),
        (edited("schema"), "the schema of id 1000 was changed after it was registered"),
    ],
)
def test_a_damaged_lock_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "registry.lock.json"
    file.write_text(text)
    with pytest.raises(SchemaError, match=message) as caught:
        FileRegistry(file).schema_by_id(1000)
    assert caught.value.code == "CH0205"
    assert caught.value.where == str(file)
    assert caught.value.hint is not None


def test_a_missing_directory_and_an_unreadable_file_are_explained(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="directory of the schema lock file is missing"):
        FileRegistry(tmp_path / "none" / "registry.lock.json").register("a", A)
    (tmp_path / "registry.lock.json").mkdir()
    with pytest.raises(HostError, match="cannot be read"):
        FileRegistry(tmp_path / "registry.lock.json")


def test_choreos_own_records_have_fixed_ids(tmp_path: Path) -> None:
    registry = FileRegistry(tmp_path / "registry.lock.json")
    for number, name in enumerate(RECORD_NAMES, start=1):
        schema = builtin_schemas().by_name(name)
        assert builtin_id(name) == (number, schema)
        assert registry.schema_by_id(number) == schema
        assert registry.id_for(f"x.y.{name}-value", schema) == number
        assert registry.register(f"x.y.{name}-value", schema) == number
    assert not (tmp_path / "registry.lock.json").exists()


def test_the_shipped_lock_file_is_what_choreo_writes() -> None:
    lock = builtin_lock()
    assert max(lock.texts) < FIRST_USER_ID
    assert Lock.parse(lock.dump(), "x").dump() == lock.dump()
    assert set(lock.subjects) == {f"choreo.{name}" for name in RECORD_NAMES}


def test_records_have_the_fields_of_the_values_they_carry() -> None:
    schemas = builtin_schemas()

    def names(record_name: str) -> tuple[str, ...]:
        return tuple(field.name for field in schemas.part(f"choreo.{record_name}").root.fields)

    assert names("Checkpoint") == values.Checkpoint._fields
    assert names("Entity") == values.EntityState._fields
    assert names("Timer") == values.TimerRow._fields
    assert names("Parked") == values.ParkedRow._fields
    assert names("Settlement") == values.Settlement._fields
    assert names("Original") == values.Delivery._fields
    assert names("Envelope") == values.Envelope._fields


def test_every_field_of_the_public_format_is_documented() -> None:
    for schema in builtin_schemas():
        for part in records_of(schema.root):
            assert part.doc, part.name
            assert [field.name for field in part.fields if not field.doc] == [], part.name


def test_users_may_only_refer_to_the_window() -> None:
    assert list(library_texts()) == ["choreo/records/Window.avsc"]


def test_schemas_that_are_known_are_not_parsed_again_and_changed_ones_are_noticed(tmp_path: Path) -> None:
    file = tmp_path / "registry.lock.json"
    number = FileRegistry(file).register("a-value", A)
    assert FileRegistry(file, [A]).schema_by_id(number) is A
    assert FileRegistry(file).schema_by_id(number) is not A
    file.write_text(file.read_text().replace('"string"', '"bytes"', 1))
    with pytest.raises(SchemaError, match="was changed after it was registered"):
        FileRegistry(file, [A]).schema_by_id(number)
