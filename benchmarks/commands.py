"""``choreo``'s commands in a benchmark's project, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

COMMAND_S: Final = 300.0
"""Making 4,001 topics takes a minute."""
CHOREO: Final = (sys.executable, "-c", "from choreo.cli._main import main; main()")


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Runs a command that must succeed.

    Raises:
        RuntimeError: it did not.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    if done.returncode:
        said = f"{done.stdout[-500:]}{done.stderr[-500:]}"
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}\n{said}")


def prepare(folder: Path, file: str, environment: Mapping[str, str]) -> dict[str, int]:
    """Generates a project's classes and makes its topics.

    Returns:
        Newest schema id by subject.
    """
    run((*CHOREO, "schemas", "generate"), folder, environment)
    run((*CHOREO, "apply", file), folder, environment)
    lock = json.loads((folder / "schemas" / "registry.lock.json").read_text("utf-8"))
    return {subject: versions[-1]["id"] for subject, versions in lock["subjects"].items()}
