"""Other engines doing the same job, each in an environment of its own below ``build/peers``.

What they need is pinned with hashes in ``NAME.txt`` and installed by pip from whatever index it is configured for. An
engine that cannot be installed is reported as skipped with pip's reason.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import BUILD
from benchmarks.scoring import PARTITIONS, Contestant

HERE: Final = Path(__file__).parent
NAMES: Final = ("quix", "faust")
INSTALL_S: Final = 300.0
COMMIT_S: Final = 0.5
"""Of Quix Streams, whose default is 5 s: shorter than a round, longer than what its throughput gains by."""
_INSTALLED: Final = "installed"


class AbsentPeerError(Exception):
    """An engine cannot be installed here; the message says why."""


def interpreter(name: str) -> Path:
    """Python of the engine's environment, which is made when it is missing or its pins have changed.

    Raises:
        AbsentPeerError: pip said no.
    """
    requirements = HERE / f"{name}.txt"
    folder = BUILD / "peers" / name
    python = folder / "bin" / "python"
    mark = folder / _INSTALLED
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if mark.exists() and mark.read_text("ascii") == wanted:
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run(sys.executable, "-m", "venv", "--clear", str(folder))
    _run(
        *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"),
        *("--only-binary", ":all:", "-r", str(requirements)),
    )
    mark.write_text(wanted, "ascii")
    return python


def version(name: str) -> str:
    """Pinned version of the engine."""
    package = {"quix": "quixstreams", "faust": "faust-streaming"}[name]
    for line in (HERE / f"{name}.txt").read_text("utf-8").splitlines():
        if line.startswith(f"{package}=="):
            return line.removeprefix(f"{package}==").split()[0]
    raise LookupError(f"{package} is not pinned in {name}.txt")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise AbsentPeerError(f"{' '.join(command[1:4])} took more than {INSTALL_S:.0f} s") from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.strip()]
        raise AbsentPeerError(errors[-1] if errors else f"{command[2]} ended with {done.returncode}")


def contestant(name: str, bootstrap: str, folder: Path, *, source: str, output: str) -> Contestant:
    """A worker of another engine. Topics ``source`` and ``output`` exist; its own it makes itself.

    Raises:
        AbsentPeerError: it cannot be installed here.
    """
    python = str(interpreter(name))
    state = folder / f"{name}-state"
    state.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "bootstrap": bootstrap,
        "group": f"{name}-peer",
        "source": source,
        "output": output,
        "partitions": PARTITIONS,
        "state_dir": str(state),
        "commit_s": COMMIT_S,
    }
    if name == "quix":
        command = (python, str(HERE / "quix_worker.py"), json.dumps(settings))
        return Contestant(name, command, folder, output=output, changelog="")
    command = (python, str(HERE / "faust_worker.py"), "worker", "--without-web", "-l", "info")
    environment = {"BENCH_SETTINGS": json.dumps(settings)}
    return Contestant(name, command, folder, output=output, changelog="", environment=environment)
