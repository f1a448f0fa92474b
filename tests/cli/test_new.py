"""`choreo new` makes a project that lints, type-checks, passes its tests, and needs nothing changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from choreo.cli._main import run


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CHOREO_")]:
        monkeypatch.delenv(name)
    assert run(["new", "coffee-shop", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["topology"] == "coffee_shop"
    assert {"topologies/coffee_shop.yaml", "agents/host.py", "schemas/account.py", ".gitignore"} <= set(answer["files"])
    return tmp_path / "coffee-shop"


def test_its_own_tests_pass(made: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=made, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "2 passed" in shown.stdout


def test_it_has_no_lint_and_its_classes_are_current(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    assert run(["lint"]) == 0
    assert "no problems" in capsys.readouterr().out
    assert run(["schemas", "generate", "--check"]) == 0


@pytest.mark.slow
def test_its_code_is_typed(made: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "agents", "schemas"], cwd=made, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr


def test_no_placeholder_is_left(made: Path) -> None:
    for file in made.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert "@name@" not in file.read_text("utf-8") and "@" not in file.name, file


@pytest.mark.parametrize(
    ("name", "code"), [("9lives", "CH0807"), ("a b", "CH0807"), ("class", "CH0807"), ("x" * 61, "CH0807")]
)
def test_a_name_that_cannot_be_one_is_refused(
    name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["new", name]) == 64
    assert capsys.readouterr().err.startswith(code)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_something_in_it_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/mine.txt").write_text("mine")
    assert run(["new", "shop"]) == 1
    assert "CH0804 shop: it exists already" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "shop").iterdir()] == ["mine.txt"]
