"""Where a figure was measured: the machine, the versions, its load, and what processes cost."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from choreo.runtime.broker.jars import KAFKA_VERSION

REPOSITORY: Final = Path(__file__).parents[1]
BUILD: Final = REPOSITORY / "build"
"""Results and profiles; not checked in."""
PACKAGES: Final = ("confluent-kafka", "fastavro", "pydantic", "pydantic-core", "rocksdict", "faust-streaming")
_TICKS_S: Final = os.sysconf("SC_CLK_TCK")


def header(parameters: dict[str, Any]) -> dict[str, Any]:
    """What every result file says about how it came about."""
    return {
        "command": " ".join(["python", "-m", _module(), *sys.argv[1:]]),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": platform.system(),
            "architecture": platform.machine(),
        },
        "versions": {
            "python": platform.python_version(),
            "kafka": KAFKA_VERSION,
            **{name: installed(name) for name in PACKAGES},
        },
        "parameters": parameters,
    }


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = "benchmarks" if spec is None else str(spec.name)
    return name.removesuffix(".__main__")


def installed(package: str) -> str:
    """Version of a package, or "absent"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def commit() -> str:
    """Of the tree that runs; ``+`` if files other than documents differ from it, "unknown" outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs", ":!*.md")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def load() -> float:
    """Load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def cpu_s(pid: int) -> float:
    """User and system time of a process so far. 0.0 where /proc is absent."""
    return _ticks(Path(f"/proc/{pid}/stat")) / _TICKS_S


def busiest_thread_cpu_s(pid: int) -> float:
    """The same of the thread of the process that used most."""
    return max((_ticks(file) for file in Path(f"/proc/{pid}/task").glob("*/stat")), default=0) / _TICKS_S


def _ticks(file: Path) -> int:
    try:
        fields = file.read_text("ascii", errors="replace").rpartition(") ")[2].split()
    except OSError:
        return 0  # no /proc here, or it ended meanwhile
    return int(fields[11]) + int(fields[12])
