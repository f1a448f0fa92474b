"""What a lint is made of: a rule with its code, its explanation and its examples, and the view it looks at.

The docstring of a rule is its documentation: first line the mistake, then why it matters, then a ``Bad::`` and a
``Good::`` fragment. Both are laid over the example topology (``example``) by the tests, which keeps them true, and
docs/lints.md shows them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from choreo.codec.schema import Schema, SchemaSet
from choreo.codec.types import Field, short_name
from choreo.errors import SchemaError
from choreo.topology.fields import nearest
from choreo.topology.model import Agent, Position, Topology
from choreo.topology.problems import Lint, Severity, problem


class Found(NamedTuple):
    """What a rule found, without its code and severity."""

    position: Position
    message: str
    expected: str
    hint: str


class View:
    """A topology with what several rules ask of it."""

    def __init__(self, topology: Topology, schemas: SchemaSet) -> None:
        self.topology = topology
        self.schemas = schemas
        self._records: dict[str, Schema | SchemaError] = {}

    def at(self, *path: str | int) -> Position:
        """Place of a value in the file."""
        return self.topology.at(*path)

    def record(self, name: str) -> Schema | SchemaError:
        """The record of that name, or why there is none."""
        if name not in self._records:
            try:
                self._records[name] = self.schemas.by_name(name)
            except SchemaError as error:
                self._records[name] = error
        return self._records[name]

    def key_fields(self, schema: str, key: Iterable[str]) -> list[Field] | None:
        """The schema's fields that make a key; None if the schema or one of them does not exist."""
        record = self.record(schema)
        if isinstance(record, SchemaError):
            return None
        found = [record.field(name) for name in key]
        return [one for one in found if one is not None] if None not in found else None

    @property
    def record_names(self) -> list[str]:
        return [short_name(schema.full_name) for schema in self.schemas]

    @cached_property
    def writers(self) -> dict[str, list[Agent]]:
        """Agents by the topics they write."""
        found: dict[str, list[Agent]] = {}
        for agent in self.topology.agents.values():
            for topic in agent.writes:
                found.setdefault(topic, []).append(agent)
        return found

    @cached_property
    def readers(self) -> dict[str, list[Agent]]:
        """Agents by the topics they read."""
        found: dict[str, list[Agent]] = {}
        for agent in self.topology.agents.values():
            for topic in agent.reads:
                found.setdefault(topic, []).append(agent)
        return found

    @cached_property
    def successors(self) -> dict[str, list[str]]:
        """Agents that read what an agent writes, by its name."""
        return {
            agent.name: sorted({reader.name for topic in agent.writes for reader in self.readers.get(topic, ())})
            for agent in self.topology.agents.values()
        }

    def unknown(self, name: str, known: Iterable[str], position: Position, what: str, section: str) -> Found:
        """Finding for a name that nothing has."""
        names = list(known)
        near = nearest(name, names)
        hint = f"did you mean {near!r}?" if near else f"declare it under {section}:, or remove it here"
        listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        return Found(position, f"there is no {what} {name!r}", f"one of {listed}" if names else f"a {what}", hint)


Check = Callable[[View], Iterable[Found]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One lint."""

    code: str
    severity: Severity
    check: Check

    def run(self, view: View) -> Iterator[Lint]:
        for found in self.check(view):
            yield problem(self.code, found.position, found.message, found.expected, found.hint, severity=self.severity)

    @property
    def doc(self) -> str:
        """Docstring of the check, without its indentation."""
        return inspect.getdoc(self.check) or ""

    @property
    def title(self) -> str:
        return self.doc.partition("\n")[0]

    @property
    def why(self) -> str:
        """The text between the title and the examples."""
        return self.doc.partition("\n")[2].partition("Bad::")[0].strip()

    @property
    def bad(self) -> str:
        return _fragment(self.doc.partition("Bad::")[2].partition("Good::")[0])

    @property
    def good(self) -> str:
        return _fragment(self.doc.partition("Good::")[2])


def _fragment(text: str) -> str:
    return inspect.cleandoc(text).strip()


RULES: Final[dict[str, Rule]] = {}


def rule(code: str, severity: Severity = "error") -> Callable[[Check], Check]:
    """Register a check as a lint."""

    def register(check: Check) -> Check:
        if code in RULES:
            raise AssertionError(f"two lints have the code {code}")
        RULES[code] = Rule(code, severity, check)
        return check

    return register
