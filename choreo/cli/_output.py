"""What commands print: results on stdout, progress on stderr, errors as one line.

stdout carries results only, so that it can be piped; with ``--json`` every line of it is one JSON value.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import click

from choreo.errors import ChoreoError

if TYPE_CHECKING:
    from rich.console import Console

Decorated = TypeVar("Decorated", bound=Callable[..., object])


def json_option(function: Decorated) -> Decorated:
    """Add ``--json`` to a command, as parameter ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(function)


def emit_json(value: object) -> None:
    """Print one JSON value on one line of stdout."""
    click.echo(json_text(value))


def json_text(value: object) -> str:
    """One line of JSON. Bytes become base64, times ISO 8601, decimals strings, dataclasses and named tuples objects."""
    return json.dumps(_plain(value), ensure_ascii=False, separators=(", ", ": "), allow_nan=False)


def _plain(value: object) -> object:
    """The value in JSON's own types."""
    if value is None or isinstance(value, (bool, int, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        # JSON has no NaN and no infinities; text keeps them readable and distinct from null
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in (sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b64encode(bytes(value)).decode("ascii")
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be shown as JSON")


@cache
def console() -> Console:
    """Console for progress and notes: on stderr, silent when nobody watches."""
    from rich.console import Console

    return Console(stderr=True, quiet=not sys.stderr.isatty(), highlight=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "nothing") -> None:
    """Print rows as aligned text on stdout, or ``empty`` if there are none.

    Plain text with two spaces between columns, the same on a terminal and in a pipe: easy to read, to grep and to cut.
    """
    cells = [["-" if cell is None else _cell(cell) for cell in row] for row in rows]
    if not cells:
        click.echo(empty)
        return
    widths = [max(len(row[index]) for row in [list(columns), *cells]) for index in range(len(columns))]
    for row in [[name.upper() for name in columns], *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    """One line of text for a table cell."""
    text = value if isinstance(value, str) else json_text(value) if isinstance(value, (Mapping, list)) else str(value)
    return " ".join(text.split("\n"))


def report(error: ChoreoError, *, as_json: bool) -> int:
    """Show an error to the person who ran the command.

    Args:
        error: what went wrong.
        as_json: also print it as ``{"error": …}`` on stdout.

    Returns:
        The exit code.
    """
    click.echo(str(error), err=True)
    if as_json:
        emit_json(
            {"error": {"code": error.code, "message": error.message, "where": error.where, "hint": error.hint}},
        )
    return error.exit_code
