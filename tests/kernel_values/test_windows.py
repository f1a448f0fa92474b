"""Windows answer as a list of all values would, in whatever order the values came, within stated bounds."""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from choreo.errors import SchemaError, StepError
from choreo.kernel.windows import SLICES_MAX, VALUES_MAX, Window, WindowConfig

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SLIDING = WindowConfig("sliding", size_ms=5_000, every_ms=1_000, late_ms=2_000)
TUMBLING = WindowConfig("tumbling", size_ms=6_000, every_ms=2_000, late_ms=3_000)
CONFIGS = st.builds(
    lambda kind, slices, every, late: WindowConfig(kind, slices * every, every, late),
    st.sampled_from(["sliding", "tumbling"]),
    st.integers(1, 8),
    st.sampled_from([1, 7, 1_000]),
    st.integers(0, 5_000),
)
VALUES = st.lists(st.tuples(st.integers(0, 12_000), st.integers(-50, 50)), max_size=60)


def moment(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


def within(config: WindowConfig, values: list[tuple[int, int]], at_ms: int) -> list[int]:
    """The definition, on a plain list."""
    if config.kind == "tumbling":
        first = at_ms // config.size_ms * config.size_ms
        return sorted(v for t, v in values if first <= t < first + config.size_ms)
    slice_end = at_ms // config.every_ms * config.every_ms + config.every_ms
    return sorted(v for t, v in values if slice_end - config.size_ms <= t < slice_end)


def check(window: Window, config: WindowConfig, values: list[tuple[int, int]], at_ms: int) -> None:
    at, expected = moment(at_ms), within(config, values, at_ms)
    assert window.count(at=at) == len(expected)
    assert window.total(at=at) == sum(expected)
    assert window.mean(at=at) == (sum(expected) / len(expected) if expected else None)
    for q in (0, 0.25, 0.5, 0.9, 1):
        rank = max(0, math.ceil(q * len(expected) - 1e-9) - 1)
        assert window.quantile(q, at=at) == (expected[rank] if expected else None)


@given(CONFIGS, VALUES, st.randoms(use_true_random=False), st.integers(0, 6_000))
@example(SLIDING, [(0, 1), (4_999, 2), (5_000, 3)], random.Random(0), 0)
@example(TUMBLING, [(5_999, 1), (6_000, 2), (0, 4)], random.Random(0), 0)
def test_answers_equal_those_of_a_list_of_all_values_in_any_order(
    config: WindowConfig, values: list[tuple[int, int]], chance: random.Random, after_ms: int
) -> None:
    shuffled = values[:]
    chance.shuffle(shuffled)
    window = Window(config)
    for t, v in shuffled:
        window.add(v, at=moment(t))
        window = Window.from_avro(json.loads(json.dumps(window.to_avro())), config)
    watermark = max((t for t, _ in values), default=0)
    for at_ms in {watermark + after_ms, watermark, max(0, watermark - config.late_ms)}:
        check(window, config, values, at_ms)


@given(CONFIGS, VALUES)
def test_a_value_is_refused_only_if_no_answerable_question_needs_it(
    config: WindowConfig, values: list[tuple[int, int]]
) -> None:
    window, watermark = Window(config), -1
    for t, v in values:
        watermark = max(watermark, t)
        oldest = max(0, watermark - config.late_ms)
        needed = t >= oldest or t in [x for x, _ in values if within(config, [(x, 0)], oldest)]
        assert window.add(v, at=moment(t)) == needed


def test_a_question_about_a_forgotten_moment_is_answered_for_the_oldest_known_one() -> None:
    window = Window(SLIDING)
    for second in range(20):
        window.add(at=moment(second * 1_000))
    assert window.count(at=moment(0)) == window.count(at=moment(17_000)) == 5


@given(CONFIGS, st.lists(st.integers(0, 10_000_000), max_size=300))
def test_state_is_bounded(config: WindowConfig, times: list[int]) -> None:
    window = Window(config)
    for t in times:
        window.add(1.5, at=moment(t))
    state = window.to_avro()
    bound = 2 * config.size_ms if config.kind == "tumbling" else config.size_ms
    assert len(state["buckets"]) <= (bound + config.late_ms) // config.every_ms + 2
    assert all(len(bucket["values"]) <= VALUES_MAX for bucket in state["buckets"])


def test_beyond_the_sample_counts_stay_exact_and_quantiles_close() -> None:
    chance = random.Random(7)
    window = Window(SLIDING)
    values = [chance.gauss(100, 20) for _ in range(20_000)]
    for i, value in enumerate(values):
        window.add(value, at=moment(i % 5_000))
    at = moment(4_999)
    assert window.count(at=at) == 20_000
    assert window.total(at=at) == pytest.approx(sum(values))
    for q in (0.1, 0.5, 0.9):
        estimate = window.quantile(q, at=at)
        assert estimate is not None
        rank = sum(v <= estimate for v in values) / len(values)
        assert abs(rank - q) < 0.12  # four sigmas of five samples of 64


def test_a_replay_draws_the_same_sample() -> None:
    def run() -> dict[str, object]:
        window = Window(SLIDING)
        for i in range(1_000):
            window.add(i, at=moment(i))
        return window.to_avro()

    assert run() == run()


def test_a_changed_configuration_keeps_what_still_fits() -> None:
    window = Window(SLIDING)
    for second in range(5):
        window.add(second, at=moment(second * 1_000))
    coarser = Window.from_avro(window.to_avro(), WindowConfig("sliding", 6_000, 2_000, 0))
    assert coarser.count(at=moment(4_000)) == 5
    shorter = Window.from_avro(window.to_avro(), WindowConfig("sliding", 2_000, 1_000, 0))
    assert shorter.count(at=moment(4_000)) == 2


@pytest.mark.parametrize(
    "declared",
    [
        {},
        {"kind": "sliding"},
        {"kind": "hopping", "size": "5m", "every": "1m"},
        {"kind": "sliding", "size": "5m"},
        {"kind": "sliding", "size": "5m", "every": "2m"},
        {"kind": "sliding", "size": "0s", "every": "0s"},
        {"kind": "sliding", "size": "5 minutes", "every": "1m"},
        {"kind": "sliding", "size": 300, "every": "1m"},
        {"kind": "sliding", "size": f"{SLICES_MAX + 1}s", "every": "1s"},
        {"kind": "tumbling", "size": "5m", "step": "1m"},
    ],
)
def test_a_bad_configuration_is_refused_with_the_reason(declared: dict[str, object]) -> None:
    with pytest.raises(SchemaError) as caught:
        WindowConfig.parse(declared, "HubState.delays")
    assert caught.value.code == "CH0202"
    assert caught.value.where == "HubState.delays"


def test_a_configuration_is_read_with_its_units() -> None:
    declared = {"kind": "sliding", "size": "5m", "every": "30s", "late": "1m"}
    assert WindowConfig.parse(declared) == WindowConfig("sliding", 300_000, 30_000, 60_000)
    assert WindowConfig.parse({"kind": "tumbling", "size": "1d"}) == WindowConfig("tumbling", 86_400_000, 86_400_000)


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, True, "1", None])
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(StepError) as caught:
        Window(SLIDING).add(value, at=EPOCH)  # type: ignore[arg-type]
    assert caught.value.code == "CH0204"


def test_times_need_a_zone_and_begin_in_1970() -> None:
    window = Window(SLIDING)
    with pytest.raises(StepError):
        window.add(at=datetime(2013, 1, 1))  # noqa: DTZ001
    with pytest.raises(StepError):
        window.add(at=EPOCH - timedelta(seconds=1))
    with pytest.raises(StepError):
        window.quantile(1.5, at=EPOCH)
