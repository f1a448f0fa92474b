"""The command line: help, exit codes, one line per error, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import choreo.cli
from choreo.cli import _main
from choreo.cli._main import CommandsByModule, run
from choreo.cli._output import json_text, print_table
from choreo.errors import CATALOGUE, ChoreoError, HostError, TopologyError


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """A command whose behaviour the test chooses."""
    behaviour: dict[str, object] = {}

    @click.command("probe")
    @click.option("--json", "as_json", is_flag=True)
    def command(as_json: bool) -> object:
        act = behaviour["act"]
        assert callable(act)
        return act()

    monkeypatch.setattr(CommandsByModule, "get_command", lambda self, ctx, name: command if name == "probe" else None)
    yield behaviour


def raising(error: BaseException) -> object:
    def act() -> None:
        raise error

    return act


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("choreo 0.")
    assert run([]) == 0
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "Exit codes" in shown


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["--no-such-option"], ["--json", "lint"], ["broker", "--port", "x"]]
)
def test_wrong_usage_exits_64_with_a_hint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 64
    shown = capsys.readouterr()
    assert shown.err.startswith("CH0807 ")
    assert "--help`" in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (TopologyError("no", where="x.yaml:3:5", hint="do this"), 1),
        (HostError("nobody there", code="CH0801"), 69),
        (HostError("bad call", code="CH0807"), 64),
        (FileNotFoundError(2, "No such file or directory", "x.csv"), 1),
        (PermissionError(13, "Permission denied", "x.csv"), 1),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: Exception, exit_code: int, probe: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    probe["act"] = raising(error)
    assert run(["probe"]) == exit_code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err[:2] == "CH"
    assert shown.err[:6] in CATALOGUE


def test_an_error_with_json_is_one_object(probe: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    probe["act"] = raising(TopologyError("no", code="CH0101", where="x.yaml:3:5", hint="do this"))
    assert run(["probe", "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {
        "error": {"code": "CH0101", "message": "no", "where": "x.yaml:3:5", "hint": "do this"}
    }
    assert shown.err == "CH0101 x.yaml:3:5: no (do this)\n"


def test_ctrl_c_exits_130(probe: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    probe["act"] = raising(KeyboardInterrupt())
    assert run(["probe"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("result", "exit_code"), [(None, 0), (0, 0), (2, 2), (True, 0), ("text", 0)])
def test_a_command_chooses_its_exit_code(result: object, exit_code: int, probe: dict[str, object]) -> None:
    probe["act"] = lambda: result
    assert run(["probe"]) == exit_code


def test_a_defect_is_not_hidden(probe: dict[str, object]) -> None:
    """Only errors with a code are for the user; anything else is ours and keeps its traceback."""
    probe["act"] = raising(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        run(["probe"])


def command_names() -> list[str]:
    folder = Path(next(iter(choreo.cli.__path__)))
    return sorted(file.stem.replace("_", "-") for file in folder.glob("*.py") if not file.stem.startswith("_"))


@pytest.mark.parametrize("name", command_names())
def test_every_command_is_a_command_with_a_summary_and_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main.summary_of(name), f"the module of `choreo {name}` has no docstring"
    assert run([name, "--help"]) == 0
    assert f"choreo {name}" in capsys.readouterr().out
    context = click.Context(_main.root)
    command = _main.root.get_command(context, name)
    assert command is not None
    leaves = (
        [command]
        if not isinstance(command, click.Group)
        else [
            found for sub in command.list_commands(context) if (found := command.get_command(context, sub)) is not None
        ]
    )
    for leaf in leaves:
        options = {text for parameter in leaf.params for text in parameter.opts}
        assert "--json" in options, f"`choreo {name}` ({leaf.name}) takes no --json"


def test_json_covers_what_commands_print() -> None:
    from dataclasses import dataclass
    from datetime import UTC, datetime
    from decimal import Decimal
    from enum import Enum
    from typing import NamedTuple
    from uuid import UUID

    class Colour(Enum):
        RED = "red"

    class Pair(NamedTuple):
        a: int
        b: bytes

    @dataclass
    class Row:
        at: datetime
        price: Decimal

    value = {
        "row": Row(datetime(2013, 1, 1, tzinfo=UTC), Decimal("1.50")),
        "pair": Pair(1, b"x"),
        "colour": Colour.RED,
        "id": UUID(int=0),
        "nan": float("nan"),
        "set": {"b", "a"},
        "text": "é\n",
    }
    assert json.loads(json_text(value)) == {
        "row": {"at": "2013-01-01T00:00:00+00:00", "price": "1.50"},
        "pair": {"a": 1, "b": "eA=="},
        "colour": "red",
        "id": "00000000-0000-0000-0000-000000000000",
        "nan": "nan",
        "set": ["a", "b"],
        "text": "é\n",
    }
    with pytest.raises(TypeError):
        json_text(object())


def test_tables_are_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "lag"], [["a", 1], ["longer", None]])
    print_table(["name"], [], empty="no agents")
    assert capsys.readouterr().out == "NAME    LAG\na       1\nlonger  -\nno agents\n"


def test_the_catalogue_has_a_code_per_line_and_no_stranger() -> None:
    areas = {code[2:4] for code in CATALOGUE}
    assert areas <= {"01", "02", "03", "04", "05", "06", "07", "08"}
    with pytest.raises(AssertionError):
        ChoreoError("x", code="CH9999")
