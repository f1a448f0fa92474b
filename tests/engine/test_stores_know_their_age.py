"""A store on disk counts its age from when it last had everything: tombstones it missed since may be gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from choreo.runtime.stores.rocksdb import RocksStore

HOUR_MS = 3_600_000
KEPT_MS = 24 * HOUR_MS


def opened(path: Path, hour: int) -> RocksStore:
    return RocksStore(path, topic_id="t", log_end=100, tombstones_kept_ms=KEPT_MS, now_ms=hour * HOUR_MS)


@pytest.mark.parametrize(("at_hour", "kept"), [(None, False), (11, True)], ids=["part of a restore", "all of it"])
def test_reading_a_part_does_not_make_a_store_young(tmp_path: Path, at_hour: int | None, kept: bool) -> None:
    store = opened(tmp_path / "s", 0)
    store.apply([("k", b"deleted at hour 1")], 3, 0)
    store.close()
    store = opened(tmp_path / "s", 11)
    store.apply([("l", b"1")], 5, None if at_hour is None else at_hour * HOUR_MS)
    store.close()
    store = opened(tmp_path / "s", 22)
    assert (store.position(), store.get("k") is not None) == ((5, True) if kept else (None, False))
    store.close()
