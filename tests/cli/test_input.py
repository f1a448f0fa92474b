"""What people type or export is read as a whole, with the place of its first mistake, before anything leaves."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from choreo.cli._input import csv_records, json_records, read_input
from choreo.codec.schema import Schema
from choreo.errors import ChoreoError

SCHEMA = Schema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "t.Airport",
            "fields": [{"name": "iata", "type": "string"}, {"name": "runways", "type": "int", "default": 1}],
        }
    ),
    "Airport.avsc",
)


class Stdin:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def test_good_records_come_as_they_are() -> None:
    assert list(json_records('{"iata": "JFK"}', SCHEMA, "stdin")) == [{"iata": "JFK"}]
    assert list(csv_records("iata,runways\nJFK,4\n", SCHEMA, "a.csv")) == [{"iata": "JFK", "runways": 4}]


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ('{"iata": "JFK"}\n{"runways": 2}', "stdin:2", "iata is missing"),
        ('[{"iata": "JFK"}, {"iata": null}]', "stdin[1]", "iata holds nothing"),
        ('{"iata": "JFK"}\n{"iata": "EWR", "runways": 4294967296}', "stdin:2", "outside the range of int"),
        ("[" * 100_000, "stdin", "nested too deep"),
        ('{"iata": "JFK"}\n' + "[" * 100_000, "stdin:2", "nested too deep"),
    ],
)
def test_a_json_record_that_does_not_fit_is_named_by_its_line(text: str, where: str, said: str) -> None:
    with pytest.raises(ChoreoError, match=said) as caught:
        list(json_records(text, SCHEMA, "stdin"))
    assert (caught.value.code, caught.value.where) == ("CH0204", where)


def test_a_csv_line_that_does_not_fit_is_named() -> None:
    with pytest.raises(ChoreoError, match="iata is missing") as caught:
        list(csv_records("runways\n3\n", SCHEMA, "a.csv"))
    assert caught.value.where == "a.csv:2"


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"\xef\xbb\xbfiata\nJFK\n")
    assert list(csv_records(read_input(str(file)), SCHEMA, "a.csv")) == [{"iata": "JFK"}]


def test_stdin_is_utf_8_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin("\ufeffé".encode()))
    assert read_input("-") == "é"
    monkeypatch.setattr(sys, "stdin", Stdin(b"\xff\xfe"))
    with pytest.raises(ChoreoError, match="not UTF-8 text: invalid start byte at byte 0") as caught:
        read_input("-")
    assert (caught.value.code, caught.value.where) == ("CH0804", "stdin")
