"""Every lint finds its own bad example and leaves its good one alone; both are in the documentation."""

from __future__ import annotations

import pytest

from choreo.errors import CATALOGUE
from choreo.topology.lints import lint
from choreo.topology.rules import RULES, Rule
from tests.topology.shared import EXAMPLE_SCHEMAS, example


def test_example_has_no_problem() -> None:
    assert [str(one) for one in lint(example(), EXAMPLE_SCHEMAS)] == []


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_bad_example_is_found_with_place_and_advice(rule: Rule) -> None:
    found = [one for one in lint(example(rule.bad), EXAMPLE_SCHEMAS) if one.code == rule.code]
    assert found, f"{rule.code} does not find its own bad example"
    for one in found:
        assert one.severity == rule.severity
        assert one.message and one.expected and one.hint
        assert "\n" not in str(one)
        assert one.position.line >= 1 and one.position.column >= 1


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_bad_example_points_into_the_fragment(rule: Rule) -> None:
    found = [one for one in lint(example(rule.bad), EXAMPLE_SCHEMAS) if one.code == rule.code]
    where = {one.position.file for one in found}
    # Four fragments break what the base declares: the topic itself, or an agent on the way.
    assert where == {"example.yaml" if rule.code in ("CH0121", "CH0123", "CH0132", "CH0133") else "fragment.yaml"}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_good_example_has_neither_this_problem_nor_any_error(rule: Rule) -> None:
    found = lint(example(rule.good), EXAMPLE_SCHEMAS)
    assert [str(one) for one in found if one.code == rule.code or one.severity == "error"] == []


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rule_is_documented(rule: Rule) -> None:
    assert rule.code in CATALOGUE
    assert rule.title.endswith(".") or rule.title.endswith(":")
    assert rule.bad and rule.good


def test_there_are_at_least_twenty_rules() -> None:
    assert len(RULES) >= 20
