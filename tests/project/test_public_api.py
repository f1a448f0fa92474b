"""The public names are exactly these, each is documented, and importing the package costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import choreo

ROOT = Path(__file__).parents[2]
PUBLIC = [
    "App",
    "ChoreoError",
    "Context",
    "Meta",
    "Producer",
    "Record",
    "Tool",
    "Window",
    "__version__",
    "tool",
]
HEAVY = ("faust", "mode", "confluent_kafka", "aiokafka", "anthropic", "pydantic", "fastavro", "rich", "asyncio")


def test_the_list_of_public_names_is_pinned() -> None:
    assert sorted(choreo.__all__) == sorted(PUBLIC)
    assert dir(choreo) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(choreo, name) is not None
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert f"## `{name}`" in page
    if name != "__version__":
        assert (getattr(choreo, name).__doc__ or "").strip(), f"{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Agent'"):
        _ = choreo.Agent  # type: ignore[attr-defined]


def test_importing_choreo_loads_nothing_heavy() -> None:
    code = f"import sys, choreo; print([name for name in {HEAVY!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"


def test_the_command_line_starts_without_kafka_avro_and_faust() -> None:
    code = (
        "import sys\nfrom choreo.cli._main import run\nassert run(['--help']) == 0\n"
        f"print([name for name in {HEAVY[:7]!r} if name in sys.modules], file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stderr.strip() == "[]"
