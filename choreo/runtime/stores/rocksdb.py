"""Rows on disk in RocksDB, for tables larger than memory and for restarts that restore only what is missing.

The changelog offset, the topic's id and the time are written in the rows' own WriteBatch, so rows and position cannot
disagree after a crash. The files are a cache of the changelog, never the truth: they are wiped when they belong to
another topic, are ahead of the log, or are so old that tombstones they never saw may be gone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TypedDict

from rocksdict import AccessType, BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from choreo.errors import HostError
from choreo.kernel.values import Failure
from choreo.runtime.classify import guard

_META: Final = b"\x00position"
_ROW: Final = b"r"
WRITE_BUFFER_BYTES: Final = 8 * 1024 * 1024
"""Per store: a worker holds one for each table and partition."""
BLOCK_CACHE_BYTES: Final = 16 * 1024 * 1024
"""Per store, for the same reason."""


class _Position(TypedDict):
    topic_id: str
    offset: int
    at_ms: int


class RocksStore:
    """Committed rows of one table and partition.

    Args:
        path: directory of this store alone.
        topic_id: id of the changelog topic, from the cluster.
        log_end: end of the changelog partition; a position beyond it means that the log was replaced.
        tombstones_kept_ms: ``delete.retention.ms`` of the changelog.
        now_ms: wall time.
    """

    def __init__(self, path: Path, *, topic_id: str, log_end: int, tombstones_kept_ms: int, now_ms: int) -> None:
        self._path = path
        self._topic_id = topic_id
        self._db = self._open()
        position = self._read_position()
        if position is not None:
            too_old = now_ms - position["at_ms"] > tombstones_kept_ms // 2
            if position["topic_id"] != topic_id or position["offset"] > log_end or too_old:
                self._wipe()
                position = None
        self._position: int | None = None if position is None else position["offset"]
        self._complete_at_ms = now_ms if position is None else position["at_ms"]
        if position is None and next(iter(self._db.keys()), None) is not None:
            self._wipe()  # rows without a position: cannot be trusted

    def _open(self) -> Rdict:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_max_write_buffer_number(2)
        options.set_keep_log_file_num(2)
        options.set_max_open_files(64)
        blocks = BlockBasedOptions()
        blocks.set_block_cache(Cache(BLOCK_CACHE_BYTES))
        blocks.set_bloom_filter(10, False)
        options.set_block_based_table_factory(blocks)
        # rocksdict raises plain `Exception`; `guard` is the one place that catches it
        opened = guard(lambda: Rdict(str(self._path), options, access_type=AccessType.read_write()))
        if isinstance(opened, Failure):
            raise HostError(
                f"the RocksDB store cannot be opened: {opened.message}",
                code="CH0804",
                where=str(self._path),
                hint="another worker may use the same CHOREO_STATE_DIR and instance; or delete the directory, "
                "it is rebuilt from the changelog",
            )
        return opened

    def _read_position(self) -> _Position | None:
        raw = self._db.get(_META)
        if raw is None:
            return None
        position: _Position = json.loads(raw)
        return position

    def _wipe(self) -> None:
        self._db.close()
        shutil.rmtree(self._path)
        self._db = self._open()
        self._position = None

    def get(self, entity: str, /) -> bytes | None:
        value = self._db.get(_ROW + entity.encode())
        return None if value is None else bytes(value)

    def apply(self, writes: Iterable[tuple[str, bytes | None]], next_offset: int | None, at_ms: int | None) -> None:
        """Takes committed rows (None deletes) and the changelog offset behind the last of them, atomically.

        Args:
            writes: entities and packed rows.
            next_offset: of the changelog.
            at_ms: when this was all there was; None: more may follow. A store is as old as the last time it had
                everything, because of the tombstones it may have missed since.
        """
        batch = WriteBatch(raw_mode=True)
        for entity, packed in writes:
            if packed is None:
                batch.delete(_ROW + entity.encode())
            else:
                batch.put(_ROW + entity.encode(), packed)
        if next_offset is not None:
            self._position = max(next_offset, self._position or 0)
        if self._position is not None:
            if at_ms is not None:
                self._complete_at_ms = at_ms
            position = _Position(topic_id=self._topic_id, offset=self._position, at_ms=self._complete_at_ms)
            batch.put(_META, json.dumps(position).encode())
        self._db.write(batch)

    def position(self) -> int | None:
        return self._position

    def items(self) -> Iterator[tuple[str, bytes]]:
        for key, value in self._db.items():
            if key[:1] == _ROW:
                yield bytes(key[1:]).decode(), bytes(value)

    def __len__(self) -> int:
        return sum(1 for _ in self.items())

    def close(self) -> None:
        self._db.close()
