"""What is wrong with a topology, as values: the parser and the lints report the same kind of thing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from choreo.errors import CATALOGUE
from choreo.topology.model import Position

Severity = Literal["error", "warning"]


class Lint(NamedTuple):
    """One problem of a topology file.

    Args:
        code: stable code, a key of ``choreo.errors.CATALOGUE``.
        severity: ``error``: the topology cannot be used. ``warning``: it can, and this is what it costs.
        position: place in the file that has to change; with overlays, the file whose line counts.
        message: what was seen.
        expected: what would have been right.
        hint: the next thing to do.
    """

    code: str
    severity: Severity
    position: Position
    message: str
    expected: str
    hint: str

    def __str__(self) -> str:
        return f"{self.code} {self.position}: {self.severity}: {self.message}; expected {self.expected} ({self.hint})"


def problem(
    code: str, position: Position, message: str, expected: str, hint: str, severity: Severity = "error"
) -> Lint:
    """A ``Lint`` whose code is in the catalogue."""
    if code not in CATALOGUE:
        raise AssertionError(f"lint code {code!r} is not in the catalogue")
    return Lint(code, severity, position, message, expected, hint)


def in_order(problems: Iterable[Lint]) -> list[Lint]:
    """Problems as a person meets them: by place, errors before warnings of the same place; each once."""
    return sorted(dict.fromkeys(problems), key=lambda one: (one.position, one.severity, one.code, one.message))
