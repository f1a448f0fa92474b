"""Arithmetic and generators of waiting, slow_key, restart, memory, growth and plan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest

from benchmarks import growth, large_topology
from benchmarks.desk import Answer, person
from benchmarks.growth import per_event_us
from benchmarks.memory import bytes_allowed
from benchmarks.plan import beyond_start
from benchmarks.raw_loop import schema_of
from benchmarks.registry import MODULES, load
from benchmarks.restart import parts
from benchmarks.rows import account_row, row_headers
from benchmarks.slow_key import others_ms
from benchmarks.waiting import steady_per_s
from choreo.codec.schema import SchemaSet
from choreo.runtime.project import Project
from choreo.topology.desired import wanted_topics
from choreo.topology.lints import lint
from choreo.topology.parse import parse

SECOND_NS = 1_000_000_000


def test_topology_of_500_agents_has_no_problem() -> None:
    parsed = parse(large_topology.topology(500), "parcels.yaml", env={})
    topology = parsed.topology
    assert topology is not None and not parsed.problems
    schemas = large_topology.schemas(500)
    assert not list(lint(topology, SchemaSet.load(schemas, {}), {}))
    assert (len(topology.agents), len(topology.topics), len(topology.tables)) == (500, 1_000, 500)
    assert len(schemas) == 1_500
    assert len(wanted_topics(topology)) == 1_000 + 500 * 6 + 1


@pytest.mark.parametrize("agents", [0, 5, 7, 501])
def test_topology_of_another_shape_is_refused(agents: int) -> None:
    with pytest.raises(ValueError, match="a multiple of 5"):
        large_topology.topology(agents)


def test_large_project_is_found_as_one(tmp_path: Path) -> None:
    large_topology.write(tmp_path, 10)
    project = Project.find(tmp_path, environment={})
    assert len(project.load_topology().agents) == 10
    assert len(project.schema_texts()) == 30


def test_lint_and_plan_count_without_the_start_of_the_interpreter() -> None:
    taken_s = {"python -c pass": [0.1, 0.2], "choreo --help": [1.0, 1.0], "choreo lint": [0.5, 0.7]}
    assert beyond_start({**taken_s, "choreo plan": [0.6, 0.9]}) == pytest.approx([0.9, 1.2])


def _answers(moments_s: Sequence[float]) -> list[Answer]:
    return [Answer(person(n), n, 0, int(moment * SECOND_NS)) for n, moment in enumerate(moments_s)]


def test_waiting_counts_the_middle_of_a_round() -> None:
    slow_edges = [n * 5.0 for n in range(20)] + [100 + n * 0.01 for n in range(60)] + [200 + n * 5.0 for n in range(20)]
    # from answer 20 (100 s) to answer 80 (200 s): the pause before the last fifth counts
    assert steady_per_s(_answers(slow_edges)) == pytest.approx(60 / 100)
    assert steady_per_s(_answers([n / 2_000 for n in range(1_000)])) == pytest.approx(2_000)
    with pytest.raises(ValueError, match="no middle"):
        steady_per_s(_answers([0.0, 1.0]))


def test_slow_key_and_warm_up_do_not_count() -> None:
    answers = [
        Answer(person(0), 10, 0, 60 * SECOND_NS),  # behind the slow call
        Answer(person(1), 9, 0, 5 * SECOND_NS),  # warm-up
        Answer(person(1), 10, SECOND_NS, SECOND_NS + 7_000_000),
        Answer(person(2), 11, SECOND_NS, SECOND_NS + 9_000_000),
    ]
    assert others_ms(answers, 10) == [7.0, 9.0]


LOG = """\
[2026-11-21 13:08:34,458] [7514] [INFO] [^Worker]: Starting...
[2026-11-21 13:08:34,958] [7514] [INFO] [^Worker]: Ready
no line of the log
[2026-11-21 13:08:35,208] [7514] [INFO] assigned partitions [0, 1, 2, 3] of payments.off-memory
[2026-11-21 13:08:35,308] [7514] [INFO] restored partition 0 of payments.off-memory: 25000 rows
[2026-11-21 13:08:35,408] [7514] [INFO] restored partition 1 of payments.off-memory: 25000 rows
"""


def test_parts_of_a_restart_add_up() -> None:
    start_s = datetime(2026, 11, 21, 13, 8, 33, 458_000).astimezone().timestamp()  # local time, as logs have it
    found = parts(LOG, start_s, start_s + 2.5)
    assert found == {
        "imports": 1.0,
        "faust and preflight": 0.5,
        "clients, join": 0.25,
        "restore": 0.2,
        "first commit": 0.55,
    }


def test_parts_that_a_log_does_not_show_are_left_out() -> None:
    assert parts("", 100.0, 101.5) == {"first commit": 1.5}


def test_cost_of_an_event_counts_after_the_warm_up() -> None:
    # 1,000 events and 100 commit markers; a fifth is there at 2 s of CPU, the last record at 10 s
    marks = [(100, 1.0), (220, 2.0), (660, 6.0), (1_100, 10.0)]
    assert per_event_us(marks, 1_000) == pytest.approx((10.0 - 2.0) / 800 * 1e6)
    with pytest.raises(ValueError, match="at once"):
        per_event_us([(1_000, 3.0)], 1_000)


@pytest.mark.parametrize("partitions", [4, 64])
def test_jobs_that_grow_have_valid_topologies(partitions: int) -> None:
    parsed = parse(growth.topology("growkeys", partitions), "growkeys.yaml", env={})
    assert parsed.topology is not None and not parsed.problems
    assert {topic.partitions for topic in parsed.topology.topics.values()} == {partitions}


def test_row_may_cost_three_times_its_bytes_and_200() -> None:
    assert bytes_allowed(100) == 500


def test_rows_carry_the_id_of_an_event() -> None:
    (_, event_id), *_ = row_headers(5)
    assert isinstance(event_id, bytes) and len(event_id) == 32 and event_id != row_headers(6)[0][1]
    assert account_row(3, schema_of("Account"), b"\0\0\0\0\1").startswith(b"\0\0\0\0\1\x1caccount-000003")


def test_every_measure_is_in_the_runner() -> None:
    for module in ("waiting", "slow_key", "restart", "restore", "memory", "growth", "plan"):
        assert module in MODULES
        assert all(what for what, _ in load(module).measures.values())
