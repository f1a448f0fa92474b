"""Readings that figures are made of: latencies, rows, profiles, the peers' pins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import peers, profile
from benchmarks.hop import _evaluate
from benchmarks.hop_feed import Segment, Sent
from benchmarks.throughput import require_same_rows

START_NS = 5_000_000_000


def seen_file(folder: Path, lines: list[tuple[int, int, int]]) -> Path:
    file = folder / "seen.txt"
    file.write_text("".join(f"{topic} {number} {at_ns}\n" for topic, number, at_ns in lines), "ascii")
    return file


def test_latency_counts_from_the_moment_an_event_was_meant_to_be_sent(tmp_path: Path) -> None:
    """Four events at 2/s: the first two are warm-up; outputs are there 30 and 50 ms after their planned moments."""
    sent = Sent(Segment("in", rate_per_s=2, seconds=2), first_number=11, start_ns=START_NS, late_ms_max=3.0)
    second = 1_000_000_000
    lines = [
        *((0, 11, START_NS + second // 4), (0, 12, START_NS + second)),
        *((0, 13, START_NS + second + 30_000_000), (0, 14, START_NS + second * 3 // 2 + 50_000_000)),
        (0, -1, START_NS),  # sent before everybody was ready
    ]
    hops = _evaluate(["raw"], ["in"], [sent], seen_file(tmp_path, lines))
    (found,) = hops.rounds["raw", 2]
    assert (found.p50_ms, found.p99_ms, found.max_ms, found.events) == (30, 50, 50, 2)
    assert hops.feeder_late_ms_max == 3.0


def test_a_hop_that_lost_or_repeated_an_output_has_no_figure(tmp_path: Path) -> None:
    sent = Sent(Segment("in", rate_per_s=2, seconds=1), first_number=1, start_ns=START_NS, late_ms_max=0.0)
    with pytest.raises(RuntimeError, match="1 outputs did not come, first 2"):
        _evaluate(["raw"], ["in"], [sent], seen_file(tmp_path, [(0, 1, START_NS)]))
    with pytest.raises(RuntimeError, match="payment 1 came twice"):
        _evaluate(["raw"], ["in"], [sent], seen_file(tmp_path, [(0, 1, START_NS), (0, 1, START_NS)]))


def test_throughput_of_a_worker_that_miscounted_is_void() -> None:
    right = {"a": {"payments": 2, "total_cents": 10}}
    require_same_rows({"raw": right, "ours": {"a": dict(right["a"])}}, {"a": 2})
    with pytest.raises(RuntimeError, match="ours counted 1 payments, 2 were written"):
        require_same_rows({"raw": right, "ours": {"a": {"payments": 1, "total_cents": 10}}}, {"a": 2})
    with pytest.raises(RuntimeError, match="different rows"):
        require_same_rows({"raw": right, "ours": {"a": {"payments": 2, "total_cents": 11}}}, {"a": 2})
    with pytest.raises(RuntimeError, match="ours counted 0 payments"):
        require_same_rows({"raw": right, "ours": {}}, {"a": 2})


def test_a_profile_sums_samples_of_the_engine_thread_by_function(tmp_path: Path) -> None:
    file = tmp_path / "profile.txt"
    file.write_text(
        "thread (0x1): choreo-engine;run (shell.py:10);decode (wire.py:5) 3\n"
        "thread (0x1): choreo-engine;run (shell.py:11);decode (wire.py:6) 2\n"
        "thread (0x1): choreo-engine;run (shell.py:12) 4\n"
        "thread (0x2): MainThread;select (selectors.py:1) 9\n"
    )
    found = profile.read(file)
    assert found.samples == 9
    assert found.self_samples == {"decode (wire.py)": 5, "run (shell.py)": 4}
    assert found.under_samples == {"run (shell.py)": 9, "decode (wire.py)": 5}


@pytest.mark.parametrize("name", peers.NAMES)
def test_peers_are_pinned_with_hashes_and_name_no_registry(name: str) -> None:
    text = (peers.HERE / f"{name}.txt").read_text("utf-8")
    assert "://" not in text
    pins = re.findall(r"^[a-z0-9]\S*==\S+", text, re.MULTILINE)
    blocks = [block for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE) if block.strip()]
    assert len(pins) == len(blocks)
    assert all("--hash=sha256:" in block for block in blocks)
    assert re.fullmatch(r"\d+\.\d+\.\d+", peers.version(name))
