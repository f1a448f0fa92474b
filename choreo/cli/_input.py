"""Reads the records that a command is given: JSON or CSV, from a file or stdin."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from choreo.errors import SchemaError

if TYPE_CHECKING:
    from choreo.codec.schema import Schema


def read_input(file: str) -> str:
    """Text of a file, or of stdin for ``-``.

    Raises:
        HostError: CH0804, it cannot be read.
    """
    if file == "-":
        return click.get_text_stream("stdin").read()
    from choreo.runtime.project import read_text

    return read_text(Path(file))


def json_records(text: str, schema: Schema, name: str) -> Iterator[dict[str, object]]:
    """Records from one JSON object, an array of them, or one object a line.

    Raises:
        SchemaError: CH0204, with ``name:line`` and the field at fault.
    """
    from choreo.runtime.json_values import from_json

    for value, where in _json_values(text, name):
        yield from_json(schema, value, where)


def _json_values(text: str, name: str) -> Iterator[tuple[Any, str]]:
    try:
        whole = json.loads(text)
    except ValueError as error:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2:
            raise _not_json(error, f"{name}:{lines[0][0] if lines else 1}") from error
        for number, line in lines:
            try:
                yield json.loads(line), f"{name}:{number}"
            except ValueError as line_error:
                raise _not_json(line_error, f"{name}:{number}") from line_error
        return
    if isinstance(whole, list):
        for number, value in enumerate(whole):
            yield value, f"{name}[{number}]"
    else:
        yield whole, name


def _not_json(error: ValueError, where: str) -> SchemaError:
    return SchemaError(
        f"not JSON: {error}", code="CH0204", where=where, hint="one object, an array of objects, or one object a line"
    )


def csv_records(text: str, schema: Schema, name: str) -> Iterator[dict[str, object]]:
    """Records from CSV with a header line of field names.

    Raises:
        SchemaError: CH0204, with ``name:line`` and the field at fault.
    """
    from choreo.runtime.json_values import from_cells

    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        for row in reader:
            where = f"{name}:{reader.line_num}"
            if None in row or None in row.values():
                raise SchemaError(
                    f"the line has another number of cells than the header's {len(reader.fieldnames or ())}",
                    code="CH0204",
                    where=where,
                )
            yield from_cells(schema, row, where)
    except csv.Error as error:
        raise SchemaError(f"not CSV: {error}", code="CH0204", where=f"{name}:{reader.line_num}") from error
