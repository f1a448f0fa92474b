"""The fuzzers are checkers, and checkers are tested: a planted defect is found by what ``make test`` runs."""

from __future__ import annotations

import pytest

from tests.fuzz.catalogue import all_targets
from tests.fuzz.plants import PLANTS
from tests.fuzz.strategies import fuzz
from tests.fuzz.target import BrokenPromiseError
from tests.fuzz.test_readers_keep_their_promises import CASES


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_defect_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = all_targets()[PLANTS[name].target]
    PLANTS[name].put(monkeypatch)
    with pytest.raises(BrokenPromiseError, match=PLANTS[name].shown):
        fuzz(target, CASES)
