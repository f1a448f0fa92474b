"""`choreo schemas generate`: deterministic, clean, complete; and the classes read and write Avro."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from choreo.codec.generate import generate, module_name
from choreo.codec.schema import Schema, SchemaSet
from choreo.codec.wire import Decoder, encode
from choreo.errors import HostError, SchemaError
from choreo.kernel.windows import Window
from choreo.runtime.builtin_schemas import library_texts
from choreo.runtime.schema_modules import difference, make_same

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
AT = datetime(2013, 1, 1, 5, 17, tzinfo=UTC)


def texts() -> dict[str, str]:
    return {file.name: file.read_text("utf-8") for file in sorted(GOLDEN.glob("*.avsc"))}


def schemas() -> SchemaSet:
    return SchemaSet.load(texts(), library_texts())


@pytest.fixture(scope="module")
def golden() -> Iterator[ModuleType]:
    sys.path.insert(0, str(GOLDEN.parent))
    try:
        yield importlib.import_module("golden")
    finally:
        sys.path.remove(str(GOLDEN.parent))


def test_the_checked_in_classes_are_what_the_schemas_say() -> None:
    found = difference(GOLDEN, texts(), schemas())
    assert not found, f"run `python -m tests.codec.test_generated_classes`: {sorted(found.changed)}, {found.stale}"


def test_the_projects_own_classes_are_up_to_date() -> None:
    directory = ROOT / "schemas"
    own = {file.name: file.read_text("utf-8") for file in sorted(directory.glob("*.avsc"))}
    assert not difference(directory, own, SchemaSet.load(own, library_texts()))


def test_the_output_does_not_depend_on_the_order_of_the_files() -> None:
    backwards = dict(reversed(list(texts().items())))
    assert generate(SchemaSet.load(backwards, library_texts()), backwards) == generate(schemas(), texts())


def test_the_output_is_clean(tmp_path: Path) -> None:
    for name, text in generate(schemas(), texts()).items():
        (tmp_path / name).write_text(text)
    ruff = [sys.executable, "-m", "ruff"]
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    for command in (["check", *config], ["format", "--check", *config]):
        done = subprocess.run([*ruff, *command, str(tmp_path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_names_of_modules() -> None:
    assert module_name("FlightDeparted.avsc") == "flight_departed"
    assert module_name("ETAScored.avsc") == "eta_scored"
    assert module_name("com.example.Leg2Go.avsc") == "leg2_go"


def test_everything_is_exported(golden: ModuleType) -> None:
    assert golden.__all__ == ["Carrier", "Cost", "Everything", "Leg", "Mode", "Stop"]
    assert golden.Everything.__doc__ == "One field of every kind."


def everything(golden: ModuleType, **more: Any) -> Any:
    return golden.Everything(key="k", at=AT, **more)


def test_defaults_are_typed_python_values(golden: ModuleType) -> None:
    one = everything(golden)
    assert one.since == datetime(2013, 1, 1, tzinfo=UTC)
    assert one.day == date(2013, 1, 2)
    assert one.price == Decimal("1.25")
    assert one.id == UUID("c0ffee00-0000-4000-8000-000000000001")
    assert one.raw == b"\x00\xff"
    assert one.mode == "air"
    assert one.stop == golden.Stop(name="EWR", wait=3)
    assert one.stops == [golden.Stop(name="JFK", wait=0)]
    assert one.scores == {"a": 1.5}
    assert one.note is None
    assert isinstance(one.delays, Window)
    assert one.delays.count(at=AT) == 0
    assert one.delays.config.size_ms == 300_000


def test_defaults_are_not_shared(golden: ModuleType) -> None:
    one, other = everything(golden), everything(golden)
    one.stops.append(golden.Stop(name="LGA"))
    one.stop.wait = 9
    one.scores["b"] = 2.0
    one.delays.add(5, at=AT)
    assert other == everything(golden)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": 5}, "Input should be a valid string"),
        ({"unknown": 5}, "Extra inputs are not permitted"),
        ({"at": datetime(2013, 1, 1)}, "Input should have timezone info"),  # noqa: DTZ001
        ({"at": "2013-01-01"}, "Input should be a valid datetime"),
        ({"count": 2**31}, "Input should be less than or equal to 2147483647"),
        ({"total": -(2**63) - 1}, "greater than or equal to -9223372036854775808"),
        ({"mode": "boat"}, "Input should be 'air', 'road' or 'rail'"),
        ({"counts": [2**31]}, "less than or equal to 2147483647"),
        ({"maybe": 2**31}, "less than or equal to 2147483647"),
        ({"delays": 5}, "Input should be an instance of Window"),
    ],
)
def test_construction_validates(golden: ModuleType, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        golden.Everything(**{"key": "k", "at": AT, **change})


def through(record: Any) -> Any:
    schema = type(record)._schema()
    return type(record)._from_avro(Decoder(schema, lambda _: schema).decode(encode(1000, schema, record._to_avro())))


def test_records_go_through_the_wire_as_objects(golden: ModuleType) -> None:
    one = everything(golden, note="n", maybe=4)
    one.delays.add(12.5, at=AT)
    one.leg = golden.Leg(mode="rail", carrier=golden.Carrier(name="BA", legs=[golden.Leg(mode="air")]))
    one.choice = golden.Cost(usd=Decimal("2.50"))
    one.by_name = {"x": golden.Stop(name="x")}
    read = through(one)
    assert read == one
    assert type(read.leg.carrier.legs[0]) is golden.Leg
    assert type(read.choice) is golden.Cost
    assert read.delays.total(at=AT + timedelta(seconds=1)) == 12.5
    assert through(read) == one
    assert read.model_copy(deep=True) == one


def test_what_was_assigned_is_checked_when_it_is_encoded(golden: ModuleType) -> None:
    for name, wrong in (("count", 2**40), ("stops", None), ("stop", None), ("leg", 5), ("delays", 3), ("mode", "x")):
        one = everything(golden)
        setattr(one, name, wrong)
        with pytest.raises(SchemaError, match=rf"g\.Everything\.{name} holds") as caught:
            through(one)
        assert caught.value.code == "CH0204"


def test_a_flat_record_is_encoded_without_a_copy(golden: ModuleType) -> None:
    stop = golden.Stop(name="EWR")
    assert stop._to_avro() is stop.__dict__


def test_a_class_that_does_not_match_its_schema_is_refused(golden: ModuleType) -> None:
    class Changed(golden.Stop):  # type: ignore[name-defined, misc]
        extra: int = 0

    with pytest.raises(SchemaError, match="have different fields: extra"):
        Changed(name="x")._to_avro()


def test_each_class_carries_its_whole_schema(golden: ModuleType) -> None:
    for name in golden.__all__:
        cls = getattr(golden, name)
        if hasattr(cls, "__avro_schema__"):
            assert Schema.parse(cls.__avro_schema__) == schemas().part(cls.__avro_name__)


def field(name: str, avro: object = "int") -> str:
    return json.dumps({"type": "record", "name": "t.R", "fields": [{"name": name, "type": avro}]})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"R.avsc": field("class")}, "'class' cannot be a field of a Python class"),
        ({"R.avsc": field("_hidden")}, "'_hidden' cannot be a field"),
        ({"R.avsc": field("model_dump")}, "'model_dump' cannot be a field"),
        ({"R.avsc": field("Decimal")}, "'Decimal' cannot be a field"),
        ({"R.avsc": '{"type":"record","name":"t.None","fields":[]}'}, "cannot be the name of a Python class"),
        ({"class.avsc": field("a")}, "cannot become a module named 'class'"),
        ({"AbC.avsc": field("a"), "ab_c.avsc": field("a").replace("t.R", "t.S")}, "become the module ab_c"),
        ({"A.avsc": field("a"), "B.avsc": field("a").replace("t.R", "u.R")}, "two types would become R"),
        (
            {
                "A.avsc": '{"type":"record","name":"t.A","fields":[{"name":"b","type":["null","t.B"]}]}',
                "B.avsc": '{"type":"record","name":"t.B","fields":[{"name":"a","type":["null","t.A"]}]}',
            },
            "records of different files contain each other: A.avsc → B.avsc → A.avsc",
        ),
        (
            {"R.avsc": field("f", [{"type": "map", "values": "int"}, json.loads(field("a").replace("t.R", "t.S"))])},
            "a union of a map and a record cannot be told apart",
        ),
    ],
)
def test_what_has_no_python_class_is_refused(files: dict[str, str], message: str) -> None:
    with pytest.raises(SchemaError, match=message) as caught:
        generate(SchemaSet.load(files), files)
    assert caught.value.code == "CH0208"
    assert caught.value.where is not None


def test_stale_modules_are_removed_and_written_ones_are_not_touched(tmp_path: Path) -> None:
    two = {"A.avsc": field("a").replace("t.R", "t.A"), "B.avsc": field("b").replace("t.R", "t.B")}
    make_same(tmp_path, difference(tmp_path, two, SchemaSet.load(two)))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["__init__.py", "a.py", "b.py"]
    (tmp_path / "by_hand.py").write_text("X = 1\n")
    one = {"A.avsc": two["A.avsc"]}
    found = difference(tmp_path, one, SchemaSet.load(one))
    assert (sorted(found.changed), found.stale, found.same) == (["__init__.py"], ["b.py"], 1)
    make_same(tmp_path, found)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["__init__.py", "a.py", "by_hand.py"]
    (tmp_path / "a.py").write_text("X = 1\n")
    with pytest.raises(HostError, match="was not generated, so it is not overwritten"):
        difference(tmp_path, one, SchemaSet.load(one))


if __name__ == "__main__":
    make_same(GOLDEN, difference(GOLDEN, texts(), schemas()))
