"""What the runner promises about measures: their form, their targets, and that only what was measured can be met."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import _collect, chosen, kept, run, table, write
from benchmarks.measure import Bench, Context, Measure, Target, at_least, at_most
from benchmarks.registry import MODULES, load

# Measure to (what is bounded, lower bound, upper bound), copied from the table of targets.
TARGETS: dict[str, tuple[str, float | None, float | None]] = {
    "throughput_off_memory": ("ratio", 0.6, None),
    "throughput_brief_memory": ("ratio", 0.45, None),
    "throughput_off_rocksdb": ("ratio", 0.4, None),
    "throughput_brief_rocksdb": ("ratio", 0.4, None),
    "throughput_against_quix": ("ratio", 2, None),
    "throughput_against_faust": ("ratio", 15, None),
    "hop_200_p50": ("ratio", None, 1.5),
    "hop_200_p99": ("ratio", None, 2),
    "hop_1000_p50": ("ratio", None, 1.5),
    "hop_1000_p99": ("ratio", None, 2),
    "waiting": ("ratio", 0.95, None),
    "slow_key": ("ratio", None, 1.2),
    "restart_memory": ("value", None, 3),
    "restart_rocksdb": ("value", None, 2),
    "restore_memory": ("value", 200_000, None),
    "memory_rocksdb": ("value", None, 400),
    "memory_worker_rocksdb": ("value", None, 400),
    "plan": ("value", None, 1),
    "kill_choreo": ("value", None, 0),
}
WITHOUT_TARGET = {"kill_faust"}
KEYS = {
    *("name", "what", "value", "unit", "raw", "ratio", "target", "met"),
    *("spread", "rounds", "raw_rounds", "note", "details"),
}


def bench_of(target: Target | None) -> Bench:
    return Bench(measures={"one": ("what it is", target)}, run=lambda _: (), deadline_s=1)


def test_targets_are_those_that_were_promised() -> None:
    declared = {name: target for module in MODULES for name, (_, target) in load(module).measures.items()}
    for name, bounds in TARGETS.items():
        target = declared[name]
        assert target is not None
        assert (target.of, target.at_least, target.at_most) == bounds, name
    assert all(declared[name] is None for name in WITHOUT_TARGET)


def test_each_name_is_measured_once() -> None:
    names = [name for module in MODULES for name in load(module).measures]
    assert sorted(names) == sorted(set(names))


def test_a_measure_has_the_median_of_its_rounds_and_their_ratio() -> None:
    measure = bench_of(at_least(0.6, "ratio", "≥ 0.6 × raw")).measure("one", [5, 6, 7], unit="/s", raw=[9, 10, 12])
    assert (measure.value, measure.raw, measure.ratio) == (6, 10, 0.6)
    assert measure.met is True
    assert measure.spread == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("target", "value", "ratio", "met"),
    [
        (at_least(2, "ratio", "≥ 2"), 9.0, 2.0, True),
        (at_least(2, "ratio", "≥ 2"), 9.0, 1.999, False),
        (at_most(3, "value", "≤ 3"), 3.0, None, True),
        (at_most(3, "value", "≤ 3"), 3.001, None, False),
        (at_most(3, "ratio", "≤ 3"), 1.0, None, False),  # nothing to compare with
        (at_most(3, "value", "≤ 3"), float("nan"), None, False),
        (Target("0.9 to 1.1", "ratio", at_least=0.9, at_most=1.1), 1.0, 1.2, False),
    ],
)
def test_the_bound_itself_meets_the_target(target: Target, value: float, ratio: float | None, met: bool) -> None:
    assert Measure("one", "what", value=value, ratio=ratio, target=target).met is met


def test_a_target_bounds_something() -> None:
    with pytest.raises(ValueError, match="bounds nothing"):
        Target("faster", "ratio")


def test_what_was_skipped_or_failed_is_never_met() -> None:
    bench = bench_of(at_most(10, "value", "≤ 10"))
    assert bench.skip("one", "no such package").met is False
    assert bench.fail("one", "it broke").met is False
    assert Measure("one", "what", value=1.0, target=at_most(10, "value", "≤ 10"), skipped="half of it").met is False
    assert bench_of(None).measure("one", [1.0], unit="s").met is None


def test_a_measure_in_the_file_has_every_field() -> None:
    bench = bench_of(at_least(0.6, "ratio", "≥ 0.6 × raw"))
    made = json.loads(json.dumps(bench.measure("one", [61_234.567, 3.0], unit="/s", raw=[100_000.0]).as_json()))
    assert set(made) == KEYS
    assert set(bench.skip("one", "absent").as_json()) == KEYS | {"skipped"}
    assert made["rounds"] == [61_235, 3.0]


def test_a_table_shows_measured_skipped_and_failed_measures() -> None:
    bench = bench_of(at_least(0.6, "ratio", "≥ 0.6 × raw"))
    found = [bench.measure("one", [1.0], unit="/s", raw=[2.0]), bench.skip("one", "absent"), bench.fail("one", "")]
    assert table([one.as_json() for one in found]).row_count == 3


def test_resuming_keeps_what_the_same_commit_finished(tmp_path: Path) -> None:
    bench, file = bench_of(None), tmp_path / "bench.json"
    head: dict[str, Any] = {"commit": "abc", "parameters": {"quick": True}}
    done, failed = bench.measure("one", [1.0], unit="s").as_json(), {**bench.fail("one", "x").as_json(), "name": "two"}
    write(file, head, {"one": done, "two": failed})
    assert kept(file, head) == {"one": done}
    assert kept(file, {**head, "commit": "def"}) == {}
    assert kept(file, {**head, "parameters": {"quick": False}}) == {}
    assert kept(tmp_path / "absent.json", head) == {}


def test_only_names_that_exist_can_be_chosen() -> None:
    assert list(chosen(["hop_200_p50"])) == ["hop"]
    assert list(chosen([])) == list(MODULES)
    with pytest.raises(SystemExit, match="no benchmark is called speed"):
        chosen(["speed"])


def test_a_quick_run_ends_when_its_time_is_over() -> None:
    bench = bench_of(at_most(10, "value", "≤ 10"))
    (found,) = run("throughput", bench, quick=True, rounds=None, note=lambda _: None, left_s=5)
    assert (found["met"], found["skipped"]) == (False, "the time of a quick run was over")


def test_a_benchmark_is_killed_at_its_deadline_and_keeps_what_it_yielded() -> None:
    code = (
        "import sys, time; print('{\"name\": \"one\"}', flush=True); print('on it', file=sys.stderr); time.sleep(600)"
    )
    found, log, why = _collect([sys.executable, "-c", code], 1.0, lambda _: None)
    assert found == [{"name": "one"}]
    assert log == ["on it"]
    assert "killed at its deadline" in why


def test_what_a_benchmark_prints_before_it_breaks_is_kept_for_the_report() -> None:
    found, log, why = _collect([sys.executable, "-c", "raise SystemExit('no broker')"], 60.0, lambda _: None)
    assert (found, log, why) == ([], ["no broker"], "")


def test_no_round_is_begun_that_would_be_killed(tmp_path: Path) -> None:
    def context(deadline_s: float) -> Context:
        return Context(quick=False, folder=tmp_path, build=tmp_path, note=lambda _: None, deadline_s=deadline_s)

    assert list(context(1e9).rounds_in_time(full=3)) == [1, 2, 3]
    assert list(context(-1.0).rounds_in_time(full=3)) == []
