"""Where a worker's time goes: py-spy's samples of one process, summed by function.

py-spy is no dependency of choreo: ``pip install py-spy`` puts it where this module looks for it. It reads the process
from outside, so that the engine runs at (nearly) full speed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

ENGINE_THREAD: Final = "choreo-engine"
RATE_PER_S: Final = 500
_LINE: Final = re.compile(r":\d+\)$")


class Profile(NamedTuple):
    """Samples of one thread by function: those that were in it, and those that were in it or below."""

    samples: int
    self_samples: Counter[str]
    under_samples: Counter[str]


def py_spy() -> str | None:
    """The tool, beside this interpreter or on the path."""
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy")


class Recording:
    """py-spy attached to a process until ``stop``.

    Args:
        native: also C functions (librdkafka, fastavro, pydantic); slows the process down by a few per cent.
    """

    def __init__(self, tool: str, pid: int, file: Path, *, native: bool = False) -> None:
        self.file = file
        self._process = subprocess.Popen(
            [tool, "record", "-p", str(pid), "-o", str(file), "-f", "raw", "--threads", "--rate", str(RATE_PER_S)]
            + (["--native"] if native else ["--nonblocking"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self, timeout_s: float) -> None:
        """Ends when the process does; py-spy then writes its file."""
        try:
            self._process.wait(timeout_s)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait(timeout_s)


def read(file: Path, thread: str = ENGINE_THREAD) -> Profile:
    """Sums up a raw recording (``frame;frame;… count`` per line)."""
    samples, own, under = 0, Counter[str](), Counter[str]()
    for line in file.read_text("utf-8", errors="replace").splitlines():
        stack, _, count_text = line.rpartition(" ")
        frames = stack.split(";")
        if not any(thread in frame for frame in frames[:2]) or not count_text.isdigit():
            continue
        count = int(count_text)
        functions = [_LINE.sub(")", frame) for frame in frames if "thread (" not in frame]
        if not functions:
            continue
        samples += count
        own[functions[-1]] += count
        for name in set(functions):
            under[name] += count
    return Profile(samples, own, under)
