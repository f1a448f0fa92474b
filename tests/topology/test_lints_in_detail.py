"""What the examples of the lints don't show: boundaries, several findings, and how circles are told."""

from __future__ import annotations

import pytest

from choreo.codec.schema import Schema
from choreo.topology.lints import lint
from tests.topology.shared import EXAMPLE_SCHEMAS, example


def found(fragment: str, code: str) -> list[str]:
    return [one.message for one in lint(example(fragment), EXAMPLE_SCHEMAS) if one.code == code]


THREE = """
topics:
  one: {schema: Delay, key: parcel_id}
  two: {schema: Delay, key: parcel_id}
  three: {schema: Delay, key: parcel_id}
agents:
  a: {reads: [delays, three], writes: [one]}
  b: {reads: [one], writes: [two]}
  c: {reads: [two], writes: [three]}
"""


def test_circle_of_three_is_told_as_a_way_round() -> None:
    assert found(THREE, "CH0123") == ["the agents a → b → c → a form a circle"]


def test_hop_limit_anywhere_in_the_circle_is_enough() -> None:
    assert found(THREE.replace("writes: [two]", "writes: [two], limits: {hops: 9}"), "CH0123") == []


def test_hop_limit_of_one_circle_does_not_excuse_another_through_the_same_agents() -> None:
    # a → b → a has no limit; a → b → c → a has one at c.
    fragment = THREE.replace("writes: [two]", "writes: [two, three]").replace(
        "writes: [three]}", "writes: [three], limits: {hops: 3}}"
    )
    assert found(fragment, "CH0123") == ["the agents a → b → a form a circle"]


def test_other_limits_are_no_hop_limit() -> None:
    fragment = "agents: {desk: {writes: [apologies, delays], limits: {in_flight: 10}}}"
    assert len(found(fragment, "CH0124")) == 1


def test_every_unknown_name_is_reported_with_the_nearest() -> None:
    fragment = "agents: {desk: {reads: [delay, scan], writes: [apologys]}}"
    problems = [one for one in lint(example(fragment), EXAMPLE_SCHEMAS) if one.code == "CH0110"]
    assert [(one.position.column, one.hint) for one in problems] == [
        (25, "did you mean 'delays'?"),
        (32, "did you mean 'scans'?"),
        (48, "did you mean 'apologies'?"),
    ]


def test_unknown_names_don_t_hide_other_problems_or_raise() -> None:
    fragment = """
topics: {a: {schema: Nothing, key: x}, b: {schema: Scan, key: [belt, nothing]}}
agents: {desk: {reads: [a, b, nowhere], tables: [nothing, parcels], tools: [none], model: none}}
flows: {told: {from: nowhere, to: a}}
"""
    codes = {one.code for one in lint(example(fragment), EXAMPLE_SCHEMAS)}
    assert {"CH0110", "CH0111", "CH0112", "CH0113", "CH0130", "CH0135"} <= codes


@pytest.mark.parametrize(
    ("schema", "key", "message"),
    [
        ("Scan", "label", "the key field Scan.label is null or string"),
        ("Scan", "weight", "the key field Scan.weight is double"),
    ],
)
def test_key_types(schema: str, key: str, message: str) -> None:
    fragment = f"topics: {{odd: {{schema: {schema}, key: {key}, ingress: true}}}}\nagents: {{desk: {{reads: [odd]}}}}"
    assert found(fragment, "CH0131") == [message]


def test_inputs_keyed_by_fields_of_other_names_fit() -> None:
    fragment = (
        "topics: {more: {schema: Apology, key: customer, ingress: true}}\nagents: {desk: {reads: [delays, more]}}"
    )
    assert found(fragment, "CH0133") == []


def test_one_field_never_equals_two() -> None:
    fragment = "topics: {scans: {key: [parcel_id, depot]}}"
    assert found(fragment, "CH0133") == ["'scans' is keyed by a string and a string, 'orders' by a string"]


def test_plain_faust_agent_needs_no_input() -> None:
    assert found("agents: {ticker: {kind: faust, writes: [delays]}}", "CH0125") == []


def test_external_topics_keep_their_names() -> None:
    fragment = "topics: {SAP.Orders_v2: {schema: Order, key: parcel_id, external: true}}"
    assert found(fragment, "CH0114") == []


def test_topic_of_a_flow_that_comes_back_to_its_beginning_needs_a_writer() -> None:
    assert len(found("flows: {told: {from: scans, to: scans}}", "CH0128")) == 1


def test_dead_letter_of_the_largest_record_fits_into_a_burst() -> None:
    assert found("topics: {scans: {message_bytes_max: 7934464}}", "CH0144") == []
    assert len(found("topics: {scans: {message_bytes_max: 7934465}}", "CH0144")) == 1


def test_schema_that_cannot_read_registered_versions_is_an_error_at_its_line() -> None:
    old = Schema.parse(
        '{"type": "record", "name": "Delay", "fields": [{"name": "parcel_id", "type": "string"}]}', "old"
    )
    problems = lint(example(), EXAMPLE_SCHEMAS, {"delays-value": [old]})
    assert [(one.code, str(one.position)) for one in problems] == [("CH0203", "example.yaml:6:23")]
    assert "Delay.customer" in problems[0].message
    unchecked = "topics: {delays: {compatibility: NONE}}"
    assert lint(example(unchecked), EXAMPLE_SCHEMAS, {"delays-value": [old]}) == []
    assert lint(example(), EXAMPLE_SCHEMAS, {"delays-value": [EXAMPLE_SCHEMAS.by_name("Delay")]}) == []
