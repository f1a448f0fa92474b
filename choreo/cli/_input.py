"""Reads the records that a command is given: JSON or CSV, from a file or stdin."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from choreo.errors import HostError, SchemaError

if TYPE_CHECKING:
    from choreo.codec.schema import Schema
    from choreo.codec.wire import Encoder


BYTE_ORDER_MARK: Final = "\ufeff"
"""Spreadsheets write it before the first column's name."""


def read_input(file: str) -> str:
    """Text of a file, or of stdin for ``-``.

    Raises:
        HostError: CH0804, it cannot be read, or is not UTF-8 text.
    """
    if file == "-":
        try:
            text = click.get_binary_stream("stdin").read().decode()
        except UnicodeDecodeError as error:
            raise HostError(f"not UTF-8 text: {error.reason} at byte {error.start}", where="stdin") from error
    else:
        from choreo.runtime.project import read_text

        text = read_text(Path(file))
    return text.removeprefix(BYTE_ORDER_MARK)


def json_records(text: str, schema: Schema, name: str) -> Iterator[dict[str, object]]:
    """Records from one JSON object, an array of them, or one object a line.

    Raises:
        SchemaError: CH0204, with ``name:line`` and the field at fault.
    """
    from choreo.runtime.json_values import from_json

    encoder = _encoder(schema)
    for value, where in _json_values(text, name):
        yield _fitting(encoder, from_json(schema, value, where), where)


def _encoder(schema: Schema) -> Encoder:
    from choreo.codec.wire import Encoder

    return Encoder(0, schema)


def _fitting(encoder: Encoder, record: dict[str, object], where: str) -> dict[str, object]:
    """The record, if it can be written: a command looks at all of them before the first one leaves."""
    try:
        encoder.encode(record)
    except SchemaError as error:
        error.where = where
        raise
    return record


def _json_values(text: str, name: str) -> Iterator[tuple[Any, str]]:
    try:
        whole = json.loads(text)
    except RecursionError:
        raise _not_json("it is nested too deep", name) from None
    except ValueError as error:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2:
            raise _not_json(error, f"{name}:{lines[0][0] if lines else 1}") from error
        for number, line in lines:
            try:
                yield json.loads(line), f"{name}:{number}"
            except RecursionError:
                raise _not_json("it is nested too deep", f"{name}:{number}") from None
            except ValueError as line_error:
                raise _not_json(line_error, f"{name}:{number}") from line_error
        return
    if isinstance(whole, list):
        for number, value in enumerate(whole):
            yield value, f"{name}[{number}]"
    else:
        yield whole, name


def _not_json(error: ValueError | str, where: str) -> SchemaError:
    return SchemaError(
        f"not JSON: {error}", code="CH0204", where=where, hint="one object, an array of objects, or one object a line"
    )


def csv_records(text: str, schema: Schema, name: str) -> Iterator[dict[str, object]]:
    """Records from CSV with a header line of field names.

    Raises:
        SchemaError: CH0204, with ``name:line`` and the field at fault.
    """
    from choreo.runtime.json_values import from_cells

    encoder = _encoder(schema)
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
            yield _fitting(encoder, from_cells(schema, row, where), where)
    except csv.Error as error:
        raise SchemaError(f"not CSV: {error}", code="CH0204", where=f"{name}:{reader.line_num}") from error
