"""A bare worker has a name of its own that the next one gets after it, and notes that tell where it is."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from choreo.errors import HostError
from choreo.runtime import slots
from choreo.runtime.slots import WorkerNote, instance_slot, machine_name, noted, worker_notes

NOTE = WorkerNote("shop", "adder", "here-0", os.getpid(), "http://127.0.0.1:6066")


def test_the_lowest_free_slot_is_taken_and_given_back(tmp_path: Path) -> None:
    with instance_slot(tmp_path, "shop.adder") as first:
        with instance_slot(tmp_path, "shop.adder") as second, instance_slot(tmp_path, "shop.other") as other:
            assert [name.rpartition("-")[2] for name in (first, second, other)] == ["0", "1", "0"]
        with instance_slot(tmp_path, "shop.adder") as again:
            assert again == second


def test_names_differ_between_projects_on_one_machine(tmp_path: Path) -> None:
    assert machine_name(tmp_path / "a") != machine_name(tmp_path / "b")
    assert machine_name(tmp_path / "a") == machine_name(tmp_path / "a")


def test_too_many_workers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOTS_MAX", 1)
    with (
        instance_slot(tmp_path, "shop.adder"),
        pytest.raises(HostError, match="all 1 local slots"),
        instance_slot(tmp_path, "shop.adder"),
    ):
        pass


def test_notes_last_as_long_as_the_worker(tmp_path: Path) -> None:
    with noted(tmp_path, NOTE):
        assert worker_notes(tmp_path, "shop") == [NOTE]
        assert worker_notes(tmp_path, "other") == []
    assert worker_notes(tmp_path, "shop") == []


@pytest.mark.parametrize("left", ["dead", "torn", "strange"])
def test_what_a_killed_worker_left_is_cleared(left: str, tmp_path: Path) -> None:
    file = tmp_path / "workers/shop.adder.here-0.json"
    with noted(tmp_path, replace(NOTE, pid=2**22 + 1) if left == "dead" else NOTE):
        if left != "dead":
            file.write_text('{"topology": "sh' if left == "torn" else "{}")
        assert worker_notes(tmp_path, "shop") == []
        assert not file.exists()
