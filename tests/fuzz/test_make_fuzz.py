"""``make fuzz`` counts what it ran, keeps what it found, replays it, and ends with an error if there is something."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.fuzz import sitting
from tests.fuzz.__main__ import main
from tests.fuzz.catalogue import selected
from tests.fuzz.plants import PLANTS
from tests.fuzz.target import BrokenPromiseError, Target, promised
from tests.fuzz.watch import Watch


def result(build: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((build / "fuzz.json").read_text("utf-8"))
    return found


def test_cases_add_up_over_sittings(tmp_path: Path) -> None:
    arguments = ["--target", "settings", "--runs", "120", "--engine", "chance", "--build", str(tmp_path)]
    assert main([*arguments, "--resume"]) == 0
    first = result(tmp_path)
    assert main([*arguments, "--resume"]) == 0
    second = result(tmp_path)
    assert (first["cases"], second["cases"]) == (120, 240)
    assert second["cases_by_area"] == {"settings": 240}
    assert second["rows"][0]["sittings"] == 2
    assert [one["cases"] for one in second["earlier_sittings"]] == [120]
    assert {"command", "commit", "date", "machine", "versions", "parameters"} <= second.keys()


def test_a_failure_is_kept_shrunk_and_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    PLANTS["a key with zeros is the same entity"].put(monkeypatch)
    assert main(["--target", "keys", "--runs", "400", "--engine", "chance", "--build", str(tmp_path)]) == 1
    found = result(tmp_path)
    assert found["failures"] == 1
    failure = found["rows"][0]["failures"][0]
    file = tmp_path / "fuzz" / "failures" / "keys" / failure["file"]
    assert len(file.read_bytes()) <= 4
    assert f"make fuzz TARGET=keys CASE={file}" in "".join(capsys.readouterr().out.split("\n"))
    with pytest.raises(BrokenPromiseError):
        main(["--target", "keys", "--case", str(file)])
    monkeypatch.undo()
    assert main(["--target", "keys", "--case", str(file)]) == 0
    assert main(["--target", "keys", "--runs", "50", "--engine", "chance", "--build", str(tmp_path), "--resume"]) == 0
    assert (result(tmp_path)["failures"], result(tmp_path)["cases"]) == (0, 1_800)  # keys has four times the cases


def test_a_child_that_dies_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitting, "with_chance", lambda work: os._exit(7))
    assert main(["--target", "rows", "--runs", "10", "--engine", "chance", "--build", str(tmp_path)]) == 1
    assert "died with 7" in result(tmp_path)["rows"][0]["failures"][0]["kind"]


def test_a_name_that_is_no_target_is_refused() -> None:
    assert main(["--target", "nothing"]) == 64
    assert {one.area for one in selected("avro keys")} == {"avro", "keys"}
    assert [one.name for one in selected("metadata/*")] == ["metadata/read", "metadata/written"]


def watched(check: Any, *cases: bytes, seconds_max: float | None = None) -> Watch:
    target = Target("x", check, (b"",), lambda seed, chance: seed)
    watch = Watch(target, seconds_max=seconds_max, limit_memory=False, counted_each=1)
    for data in cases:
        watch.case(data)
    return watch


def test_what_takes_too_much_is_a_failure() -> None:
    def check(data: bytes) -> None:
        promised(len(bytes(len(data) * 2**23)) >= 0)

    assert "memory" not in watched(check, b"x").seen.failures
    assert "memory" in watched(check, b"x" * 9).seen.failures
    assert "slow" in watched(check, b"x", seconds_max=-1.0).seen.failures
    assert not watched(check, b"x", seconds_max=600.0).seen.failures


def test_inputs_of_failures_become_small_and_kinds_stay_apart() -> None:
    def check(data: bytes) -> None:
        promised(b"\xff" not in data, "ff")
        if data.count(b"\x00") > 2:
            raise KeyError("three zeros")

    chance = Random(7)
    watch = watched(check, *(chance.randbytes(300) for _ in range(60)), b"\x00" * 50)
    watch.shrink()
    found = {kind.partition(" ")[0]: one.data for kind, one in watch.seen.failures.items()}
    assert found == {"BrokenPromiseError": b"\xff", "KeyError": b"\x00" * 3}
