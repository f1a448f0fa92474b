"""The JSON schema for editors and the parser say the same, as both come from one table of fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from choreo.topology.example import TOPOLOGY
from choreo.topology.pages import fields_page, json_schema, json_schema_page, lints_page
from choreo.topology.parse import parse
from choreo.topology.rules import RULES
from tests.topology.test_parse_reads_what_is_written import DESIGN
from tests.topology.test_parse_reports_every_problem import BAD

ROOT = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def plain(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("text", [TOPOLOGY, DESIGN, "choreo: 1\ntopology: t\ntopics:\nagents:\n"])
def test_good_files_fit(text: str) -> None:
    assert parse(text, "x.yaml").problems == []
    assert [error.message for error in VALIDATOR.iter_errors(plain(text))] == []


def test_topologies_of_this_repository_fit() -> None:
    for file in sorted((ROOT / "topologies").glob("*.yaml")):
        if "." not in file.stem:
            assert [error.message for error in VALIDATOR.iter_errors(plain(file.read_text("utf-8")))] == [], file


@pytest.mark.parametrize("case", [case for case in BAD if case[1] in ("CH0102", "CH0104")], ids=lambda case: case[0])
def test_what_the_parser_refuses_the_schema_refuses(case: tuple[str, ...]) -> None:
    text, *_, message, _ = case
    if "is 2d" in message or "99999999d" in message:
        pytest.skip("bounds of durations are beyond a JSON schema")
    assert list(VALIDATOR.iter_errors(plain(text))) != []


def test_checked_in_pages_are_current() -> None:
    """`make docs` writes them."""
    docs = ROOT / "docs"
    for name, page in (
        ("lints.md", lints_page()),
        ("topology.md", fields_page()),
        ("topology.schema.json", json_schema_page()),
    ):
        assert (docs / name).read_text("utf-8") == page, f"docs/{name} is stale: run `make docs`"


def test_page_has_every_lint() -> None:
    page = lints_page()
    assert [code for code in RULES if f"### {code} (" not in page] == []


def test_every_field_is_described() -> None:
    def fields(schema: Any) -> Any:
        if isinstance(schema, dict):
            yield from schema.get("properties", {}).items()
            for value in schema.values():
                yield from fields(value)
        elif isinstance(schema, list):
            for value in schema:
                yield from fields(value)

    found = list(fields(json.loads(json_schema_page())))
    assert len(found) > 60
    assert [name for name, one in found if not one.get("description", "").endswith((".", "`."))] == []
