"""Promise 1 where no protocol tells: every request of a commit's path, lost, unanswered, late or cut off.

A worker goes through the proxy; input and check go past it. For each kind of request and each way it can go wrong: the
fault happened, nothing was lost, nothing came twice, order and counts per key are right, and the worker went on by
itself, with a new connection, a new producer or a new session.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.proxy.frames import Api
from tests.proxy.lanes import DELAY_S, Lanes, Result, dealt
from tests.proxy.proxy import Fault, Rule, faults

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]

LANES = 7
SEED = 20
MATRIX = [Rule(api, **fault) for api, fault in itertools.product(Api, faults(DELAY_S))]


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    with Lanes(tmp_path_factory.mktemp("lanes"), count=LANES) as lanes:
        yield lanes


@pytest.fixture(scope="module")
def results(lanes: Lanes) -> dict[Rule, Result]:
    found = lanes.run(dealt([[rule] for rule in MATRIX], LANES, SEED))
    return {Rule(r.rule.api, r.rule.fault, delay_s=r.rule.delay_s): r for r in found}


FENCES_ITSELF = (Api.INIT_PRODUCER_ID, Fault.DELAY_REQUEST)
"""A worker's request for a producer id that arrives after the worker has asked again makes a newer producer than the
one it uses. No protocol tells this from another worker with its name: it exits, and its supervisor starts it again."""


@pytest.mark.parametrize("rule", MATRIX, ids=lambda rule: f"{rule.api.name.lower()}-{rule.fault.value}")
def test_worker_gets_over_it(results: dict[Rule, Result], rule: Rule) -> None:
    assert rule in results, "the lane stopped before: see the fault that failed"
    assert not results[rule].problem, results[rule]
    assert results[rule].fired, "the fault did not happen"
    assert not results[rule].restarts or (rule.api, rule.fault) == FENCES_ITSELF, results[rule]


def test_nothing_was_lost_repeated_or_out_of_order(lanes: Lanes, results: dict[Rule, Result]) -> None:
    assert results
    for lane in lanes.lanes:
        lane.check()
