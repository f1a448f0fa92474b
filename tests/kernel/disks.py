"""Disks of a simulated world: what RocksDB keeps when its process dies. The code of ``RocksStore`` itself runs on them.

A disk outlives processes, not because somebody copies it but because nobody else has it: whoever starts a worker again
may find its old disk, or another one, with rows that are long out of date.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

from tests.kernel.points import Side


class Disk:
    """Files of one machine: path of a store to its content."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stores: dict[str, dict[bytes, bytes]] = {}
        self.locked: dict[str, MemoryRocks] = {}


class DiskPath(PurePosixPath):
    """A path that makes no directories."""

    def mkdir(self, **_: Any) -> None:
        return None


class MemoryBatch:
    """``rocksdict.WriteBatch``."""

    def __init__(self, **_: Any) -> None:
        self.writes: list[tuple[bytes, bytes | None]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self.writes.append((key, value))

    def delete(self, key: bytes) -> None:
        self.writes.append((key, None))


class MemoryRocks:
    """``rocksdict.Rdict``: one open store. Opening it twice is refused, as RocksDB's LOCK file does."""

    def __init__(self, process: Any, path: str) -> None:
        self._process = process
        self._path = path
        self._disk: Disk = process.disk
        holder = self._disk.locked.get(path)
        if holder is not None and not holder._process.dead:
            raise OSError(f"{path}: lock held by {holder._process.instance}")
        self._disk.locked[path] = self
        self._open = True
        self._content = self._disk.stores.setdefault(path, {})

    def _check(self) -> None:
        if not self._open:
            raise OSError(f"{self._path} is closed")

    def get(self, key: bytes) -> bytes | None:
        self._check()
        return self._content.get(key)

    def keys(self) -> Iterator[bytes]:
        self._check()
        return iter(self._content)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        self._check()
        return iter(sorted(self._content.items()))

    def write(self, batch: MemoryBatch) -> None:
        self._check()
        self._at("before")
        for key, value in batch.writes:
            if value is None:
                self._content.pop(key, None)
            else:
                self._content[key] = value
        self._at("after")

    def _at(self, side: Side) -> None:
        if self._process.runs_the_engine:  # what a restore reads is a fault point by itself
            self._process.at("store apply", side)

    def close(self) -> None:
        self._open = False
        if self._disk.locked.get(self._path) is self:
            del self._disk.locked[self._path]


class Anything:
    """An object of settings nobody looks at."""

    def __init__(self, *_: Any, **__: Any) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def stand_ins(current: Any) -> dict[str, Any]:
    """What takes the place of names in ``choreo.runtime.stores.rocksdb``."""

    def wipe(path: DiskPath) -> None:
        current().disk.stores.pop(str(path), None)

    return {
        "Rdict": lambda path, options, access_type: MemoryRocks(current(), path),
        "WriteBatch": MemoryBatch,
        "Options": Anything,
        "BlockBasedOptions": Anything,
        "Cache": Anything,
        "AccessType": Anything(),
        "shutil": SimpleNamespace(rmtree=wipe),
    }
