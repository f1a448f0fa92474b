"""Whatever others wrote: a value or the declared error, nothing else, in bounded memory."""

from __future__ import annotations

import pytest

from choreo.codec.schema import Schema
from choreo.codec.wire import Decoder
from choreo.errors import DecodeError
from choreo.runtime.builtin_schemas import builtin_schemas
from tests.codec.shapes import SCHEMAS
from tests.fuzz.catalogue import all_targets
from tests.fuzz.strategies import fuzz, fuzz_with_hypothesis
from tests.fuzz.targets.avro import HEADER, lookup_of, project_schemas, seeds_of

CASES = 1_000
CASES_OF_HYPOTHESIS = 250
CASES_FAST = 40
CASES_A_SCHEMA = 100  # of a target that stands for many; tests/codec has 1,000 for each of them


@pytest.mark.slow
@pytest.mark.parametrize("name", all_targets())
def test_a_thousand_inputs(name: str) -> None:
    target = all_targets()[name]
    fuzz(target, max(CASES, CASES_A_SCHEMA * target.share))
    fuzz_with_hypothesis(target, CASES_OF_HYPOTHESIS)


@pytest.mark.parametrize("name", all_targets())
def test_found_inputs_and_a_few_others(name: str) -> None:
    fuzz(all_targets()[name], CASES_FAST)


@pytest.mark.parametrize("name", all_targets())
def test_what_is_right_is_taken(name: str) -> None:
    target = all_targets()[name]
    assert target.seeds
    for data in target.seeds:
        target.check(data)


@pytest.mark.parametrize(
    "schema", [*builtin_schemas(), *project_schemas(), *SCHEMAS.values()], ids=lambda one: one.full_name
)
def test_valid_messages_are_values_and_their_beginnings_are_none(schema: Schema) -> None:
    """Fed in pieces, a message is refused until it is whole: no Avro value is the beginning of another."""
    decoder = Decoder(schema, lookup_of(schema))
    for message in seeds_of(schema)[:2]:
        decoder.decode(HEADER + message)
        for size in range(max(0, len(message) - 200), len(message)):
            with pytest.raises(DecodeError):
                decoder.decode((HEADER + message)[: len(HEADER) + size])
        for size in range(len(HEADER)):
            with pytest.raises(DecodeError):
                decoder.decode(HEADER[:size])
