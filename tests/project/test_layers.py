"""The import direction holds, and the pure layers stay pure; finer than what import names alone can say."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
PURE = ("kernel", "codec", "topology", "agent")
CLASSIFIER = "choreo/runtime/classify.py"
# Values are fine in the pure layers, sources of time, chance and names are not.
BANNED_NAMES = {"uuid": {"UUID"}, "datetime": {"datetime", "date", "time", "timedelta", "timezone", "UTC", "tzinfo"}}
BANNED_CALLS = {"now", "utcnow", "today", "uuid1", "uuid4", "open", "urandom", "read_text", "read_bytes"}


def modules(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    for package in packages:
        for file in sorted((ROOT / "choreo" / package).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), ast.parse(file.read_text("utf-8"))


def test_imports_go_one_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("logging.config.dictConfig", lambda config: None)  # it would disable every logger there is
    exit_code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    assert exit_code == 0, capsys.readouterr().out


def test_pure_layers_take_time_and_ids_from_outside() -> None:
    found = []
    for name, tree in modules(*PURE):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in BANNED_NAMES:
                found += [
                    f"{name}:{node.lineno} imports {node.module}.{alias.name}"
                    for alias in node.names
                    if alias.name not in BANNED_NAMES[node.module]
                ]
            elif isinstance(node, ast.Import):
                found += [
                    f"{name}:{node.lineno} imports {alias.name} whole; import the value types by name"
                    for alias in node.names
                    if alias.name in BANNED_NAMES
                ]
            elif isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in BANNED_CALLS:
                    found.append(f"{name}:{node.lineno} calls {called}()")
    assert found == []


def test_only_the_classifier_catches_everything() -> None:
    found = []
    for name, tree in modules(""):
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler) or name == CLASSIFIER:
                continue
            caught = (
                {"bare except"}
                if node.type is None
                else {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}
            )
            ends_with_raise = isinstance(node.body[-1], ast.Raise)
            if caught & {"bare except", "Exception"} or ("BaseException" in caught and not ends_with_raise):
                found.append(f"{name}:{node.lineno}")
    assert found == []


def test_nothing_inside_imports_the_package_itself() -> None:
    """``choreo/__init__.py`` is for users; inside it would make cycles and load what a command does not need."""
    found = []
    for name, tree in modules(""):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found += [f"{name}:{node.lineno}" for alias in node.names if alias.name == "choreo"]
            elif isinstance(node, ast.ImportFrom) and node.module == "choreo":
                found += [
                    f"{name}:{node.lineno}"
                    for alias in node.names
                    if not (ROOT / "choreo" / alias.name).is_dir() and not (ROOT / f"choreo/{alias.name}.py").is_file()
                ]
    assert found == []


def test_agents_use_public_names_only() -> None:
    """DESIGN §3: from choreo, agents import public names only."""
    found = []
    for file in sorted((ROOT / "agents").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            inside = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
            )
            found += [f"{file.name}:{node.lineno} imports {name}" for name in inside if name.startswith("choreo.")]
    assert found == []
