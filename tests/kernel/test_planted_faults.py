"""Every planted fault is noticed by the worlds or the sweep: the checkers are worth something."""

from __future__ import annotations

import pytest

from tests.kernel.mutants import MUTANTS, first_notice

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_fault_is_noticed(name: str) -> None:
    notice = first_notice(name)
    assert notice is not None, f"nobody noticed that {name}"
    print(f"{name}: noticed in {notice.where}")  # noqa: T201
