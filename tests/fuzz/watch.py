"""Runs cases of one target under watch: what broke, what was slow, what took memory.

Memory is bounded twice. The address space of the process may grow by what one case may take (where the system has
``RLIMIT_AS`` and ``/proc``), so that every case is held to it; every so often, and for every slow case, tracemalloc
counts, which gives the figure.
"""

from __future__ import annotations

import hashlib
import os
import resource
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.fuzz.target import MEMORY_BYTES_MAX, Check, Target

COUNTED_EACH: Final = 64
"""One case of so many is run again under tracemalloc, which makes it some times slower."""
KINDS_MAX: Final = 20
"""Different failures that one sitting keeps: more say nothing new."""
SHRINKS_MAX: Final = 2_000
REPEATS: Final = 3
_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = resource.getpagesize()


@dataclass
class Failure:
    """One way in which a promise was broken, with the smallest input seen for it."""

    kind: str
    message: str
    count: int
    data: bytes

    @property
    def file_name(self) -> str:
        return hashlib.sha256(self.data).hexdigest()[:12] + ".bin"


@dataclass
class Seen:
    """What a sitting saw of one target."""

    cases: int = 0
    seconds: float = 0.0  # CPU time: others may share the machine
    slowest_ms: float = 0.0
    slowest: bytes = b""
    peak_bytes: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["slowest"] = self.slowest.hex()
        value["failures"] = [
            {"kind": one.kind, "message": one.message, "count": one.count, "data": one.data.hex()}
            for one in self.failures.values()
        ]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Seen:
        failures = [
            Failure(one["kind"], one["message"], one["count"], bytes.fromhex(one["data"])) for one in value["failures"]
        ]
        return cls(
            **{
                **value,
                "slowest": bytes.fromhex(value["slowest"]),
                "failures": {one.kind: one for one in failures},
            }
        )


class Watch:
    """Judges the cases of one target.

    Args:
        target: what is fuzzed.
        seconds_max: CPU time of a case at most; None where instrumentation makes times meaningless.
        limit_memory: hold the whole process to what one case may take. Only for a process of its own.
        counted_each: one case of so many is run again for its memory.
    """

    def __init__(
        self, target: Target, *, seconds_max: float | None, limit_memory: bool, counted_each: int = COUNTED_EACH
    ) -> None:
        self.seen = Seen()
        self._began = time.process_time()
        self._check = target.check
        self._seconds_max = seconds_max
        self._counted_each = counted_each
        self._limit_memory = limit_memory and _STATM.exists()

    def case(self, data: bytes) -> None:
        """Runs one case and takes down what came of it."""
        seen = self.seen
        seen.cases += 1
        counted = seen.cases % self._counted_each == 1
        if counted and self._limit_memory:
            _renew_limit()
        began = time.thread_time()
        failed = self._fails(data)
        seconds = time.thread_time() - began
        if failed is None and self._seconds_max is not None and seconds > self._seconds_max:
            seconds = min(_seconds_of(self._check, data) for _ in range(REPEATS))
            if seconds > self._seconds_max:
                failed = ("slow", f"{seconds * 1e3:.0f} ms, at most {self._seconds_max * 1e3:.0f} are promised")
        if seconds * 1e3 > seen.slowest_ms:
            seen.slowest_ms, seen.slowest = round(seconds * 1e3, 2), data
            counted = True
        if counted and failed is None:
            failed = self._count_memory(data)
        if failed is not None:
            self._note(data, *failed)

    def report(self) -> dict[str, Any]:
        """What was seen so far, for a file."""
        self.seen.seconds = round(time.process_time() - self._began, 3)
        return self.seen.as_json()

    def _note(self, data: bytes, kind: str, message: str) -> None:
        failures = self.seen.failures
        known = failures.get(kind)
        if known is not None:
            known.count += 1
            if len(data) < len(known.data):
                known.data, known.message = data, message
        elif len(failures) < KINDS_MAX:
            failures[kind] = Failure(kind, message, 1, data)

    def _fails(self, data: bytes) -> tuple[str, str] | None:
        try:
            self._check(data)
        except Exception as error:
            return _kind_of(error), f"{type(error).__name__}: {error}"[:500]
        return None

    def _count_memory(self, data: bytes) -> tuple[str, str] | None:
        with _without_limit():
            tracemalloc.start()
            try:
                failed = self._fails(data)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        self.seen.peak_bytes = max(self.seen.peak_bytes, peak)
        if failed is None and peak > MEMORY_BYTES_MAX:
            return "memory", f"{peak / 2**20:.0f} MiB, at most {MEMORY_BYTES_MAX // 2**20} are promised"
        return failed

    def shrink(self) -> None:
        """Makes the input of every failure smaller, as long as it fails in the same way."""
        for failure in self.seen.failures.values():
            for attempt, data in enumerate(_smaller(failure)):
                if attempt >= SHRINKS_MAX or failure.kind in ("slow", "memory"):
                    break
                failed = self._fails(data)
                if failed is not None and failed[0] == failure.kind:
                    failure.data, failure.message = data, failed[1]


def _smaller(failure: Failure) -> Iterator[bytes]:
    """Inputs with a span left out; the failure's data gets smaller meanwhile."""
    size = max(1, len(failure.data) // 2)
    while True:
        place = 0
        before = len(failure.data)
        while place < len(failure.data):
            data = failure.data
            yield data[:place] + data[place + size :]
            if failure.data is data:
                place += size
        if size == 1 and len(failure.data) == before:
            return
        size = max(1, size // 2)


def _kind_of(error: Exception) -> str:
    """A failure's name: its type, and the place in choreo, or else in the check, that it came through last."""
    frames = traceback.extract_tb(error.__traceback__)
    within = [one for one in frames if f"{os.sep}choreo{os.sep}" in one.filename] or frames[1:] or frames
    place = within[-1]
    return f"{type(error).__name__} at {Path(place.filename).name}:{place.name}"


def _seconds_of(check: Check, data: bytes) -> float:
    began = time.thread_time()
    check(data)
    return time.thread_time() - began


def _renew_limit() -> None:
    """Address space: what is used now and what one case may take. What earlier cases left behind does not count."""
    used = int(_STATM.read_text("ascii").split()[0]) * _PAGE_BYTES
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES_MAX, hard))


@contextmanager
def _without_limit() -> Iterator[None]:
    """tracemalloc itself needs memory for what it counts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
