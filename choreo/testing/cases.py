"""Cases in YAML beside a topology: given these events, expect those events and rows.

``topologies/x.test.yaml`` holds cases for ``topologies/x.yaml``; ``choreo test`` runs them, and so does pytest::

    @pytest.mark.parametrize("case", read_cases("topologies/logistics.test.yaml"), ids=str)
    def test_case(case):
        case.check()

A case::

    cases:
      - name: a long delay is a risk
        agents: [aircraft_tracker]            # all of the topology if absent
        tables: {airports: [{iata: JFK, city: New York}]}            # reference rows
        answers: {weather_at: [fog, {error: no such airport}]}       # of tools, in order
        given:
          - {event: FlightDeparted, value: {tail_number: N1, dep_delay_minutes: 45}, at: "2013-01-01T10:00:00Z"}
          - {advance: 10m}
          - {topic: flights, value: {tail_number: N1, dep_delay_minutes: 5}}
        advance: 1h
        expect:
          events: {delay-risks: [{tail_number: N1, minutes: 45}]}    # exactly these, in order
          rows: {aircraft: {N1: {delay_minutes: 5}, N2: null}}       # null: no row
          dead_letters: 0
          parked: 0

Of an event or a row only the fields that are written are compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from choreo.codec.schema import Schema, SchemaSet
from choreo.codec.types import Array, Map, Primitive, Record, Type, Union
from choreo.errors import ChoreoError, SchemaError, TopologyError
from choreo.kernel.envelope import TIME_MS_MAX
from choreo.runtime.json_values import from_json
from choreo.runtime.project import TOPOLOGIES, Project, read_text
from choreo.testing.clock import to_ms
from choreo.testing.driver import TopologyDriver
from choreo.topology.fields import DURATION_MS_MAX, UNITS_MS
from choreo.topology.model import Position, Topology
from choreo.topology.nodes import Mapping, Node, Scalar, Sequence, read_nodes

SUFFIX: Final = ".test.yaml"
SHOWN_CHARS_MAX: Final = 400
"""Longest value shown in a difference; rows can be large."""
DIGITS_MAX: Final = 1_000
"""A decimal's precision at most; Python refuses to read numbers of more than 4,300 digits."""

_CASE_KEYS: Final = ("name", "agents", "tables", "answers", "given", "advance", "expect", "dead_letters", "parked")
_GIVEN_KEYS: Final = ("event", "topic", "value", "at", "advance")
_EXPECT_KEYS: Final = ("events", "rows", "dead_letters", "parked")
_DURATION: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_NUMBER: Final = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_PLAIN: Final = {"null": None, "Null": None, "NULL": None, "~": None, "": None}
_BOOLEANS: Final = {"true": True, "True": True, "false": False, "False": False}
_NUMERIC: Final = frozenset({"int", "long", "float", "double", "boolean", "null"})


class ToolFailure(Exception):
    """What a tool of a case raises that is written as ``{error: …}``."""


@dataclass(frozen=True)
class World:
    """What all cases of a file share."""

    project: Project
    topology: Topology
    schemas: SchemaSet


@dataclass(frozen=True)
class Case:
    """One case of a file, ready to run."""

    name: str
    position: Position
    world: World = field(repr=False)
    body: Mapping = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def differences(self) -> list[str]:
        """Runs the case: what was not as expected, one line each; nothing if it passed.

        Raises:
            ChoreoError: the case itself is not written correctly.
        """
        return _Run(self).differences()

    def check(self) -> None:
        """Runs the case.

        Raises:
            AssertionError: with what was not as expected.
        """
        found = self.differences()
        if found:
            raise AssertionError(f"{self.position}: {self.name}\n" + "\n".join(f"  {line}" for line in found))


def read_cases(path: str | Path, *, project: Project | None = None) -> list[Case]:
    """The cases of a file.

    Args:
        path: ``x.test.yaml``, or the topology ``x.yaml`` that it stands beside; from the project root or the working
            directory.
        project: the project; found from the file or the working directory if absent.

    Raises:
        HostError: CH0804, there is no such file.
        TopologyError: the file is not written correctly, with its line.
    """
    given = Path(path)
    if project is None:
        project = Project.find(given.parent if given.is_absolute() else None)
    file = case_file(given, project)
    topology = project.load_topology(file.with_name(f"{file.name.removesuffix(SUFFIX)}.yaml"))
    world = World(project, topology, project.schemas())
    root, problems = read_nodes(read_text(file), project.shown(file))
    if problems or root is None:
        first = problems[0]
        raise TopologyError(first.message, code=first.code, where=str(first.position), hint=first.hint)
    _only(root, ("cases",))
    cases = _required(root, "cases", root.position)
    return [_case(item, world) for item in _items(cases, "cases")]


def case_file(given: Path, project: Project) -> Path:
    """The case file that is meant by its own path, the topology's, or the topology's name."""
    name = given.name
    if not name.endswith(SUFFIX):
        name = f"{name.removesuffix('.yaml')}{SUFFIX}"
    wanted = given.with_name(name)
    for candidate in (wanted, project.root / wanted, project.root / TOPOLOGIES / name):
        if candidate.is_file():
            return candidate.resolve()
    return project.root / wanted  # reading it says that it is missing


def case_files(project: Project) -> list[Path]:
    """All case files of a project."""
    return sorted((project.root / TOPOLOGIES).glob(f"*{SUFFIX}"))


def _case(node: Node, world: World) -> Case:
    body = _mapping(node, "a case")
    _only(body, _CASE_KEYS)
    return Case(_text(_required(body, "name", body.position)), body.position, world, body)


class _Run:
    """One case while it runs."""

    def __init__(self, case: Case) -> None:
        self._body = case.body
        self._world = case.world
        agents = [_text(item) for item in _items(_get(case.body, "agents"), "agents")]
        self._driver = TopologyDriver(
            case.world.topology,
            agents=agents,
            schemas=case.world.schemas,
            project=case.world.project,
            strict=False,
        )

    def differences(self) -> list[str]:
        body, driver = self._body, self._driver
        for table, rows in _entries(_get(body, "tables")):
            schema = self._table_schema(table, rows.position)
            for row in _items(rows, table):
                driver.load_value(table, _value(row, schema))
        for tool, answers in _entries(_get(body, "answers")):
            driver.answer(tool, *(_answer(item) for item in _items(answers, tool)))
        try:
            for item in _items(_get(body, "given"), "given"):
                self._give(_mapping(item, "an event"))
            advance = _get(body, "advance")
            if advance is not None:
                driver.advance(_duration(advance))
        except ChoreoError as error:
            if error.code != "CH0401":
                raise
            return [str(error)]  # a tool without an answer
        return list(self._compare())

    def _give(self, given: Mapping) -> None:
        _only(given, _GIVEN_KEYS)
        advance = _get(given, "advance")
        if advance is not None:
            self._driver.advance(_duration(advance))
            if len(given.entries) == 1:
                return
        topic = self._topic(given)
        schema = self._world.schemas.by_name(self._world.topology.topics[topic].schema)
        at = _get(given, "at")
        value = _value(_required(given, "value", given.position), schema)
        try:
            self._driver.send_value(topic, value, at=None if at is None else _moment(at))
        except (KeyError, SchemaError) as error:
            text = f"the event has no field {error.args[0]!r}" if isinstance(error, KeyError) else error.message
            raise SchemaError(text, code="CH0204", where=str(given.position)) from error

    def _topic(self, given: Mapping) -> str:
        topics = self._world.topology.topics
        named = _get(given, "topic")
        if named is not None:
            return _known(named, topics, "topic")
        event = _text(_required(given, "event", given.position))
        carrying = [name for name, topic in topics.items() if event in (topic.schema, topic.schema.rpartition(".")[2])]
        if len(carrying) != 1:
            seen = f"topics {' and '.join(carrying)} carry" if carrying else "no topic carries"
            raise _wrong(f"{seen} {event}", given.position, "write `topic:` instead of `event:`")
        return carrying[0]

    # -- expectations --------------------------------------------------------------------------------------------------

    def _compare(self) -> Iterator[str]:
        expect = _mapping(_get(self._body, "expect") or Mapping(self._body.position), "expect")
        _only(expect, _EXPECT_KEYS)
        for topic, events in _entries(_get(expect, "events")):
            yield from self._compare_events(topic, events)
        for table, rows in _entries(_get(expect, "rows")):
            schema = self._table_schema(table, rows.position)
            for key, row in _entries(rows):
                yield from self._compare_row(table, key, row, schema)
        yield from self._compare_count(
            "dead_letters", expect, [_dead_letter(one) for one in self._driver.dead_letters()]
        )
        yield from self._compare_count("parked", expect, self._driver.parked())

    def _compare_events(self, topic: str, node: Node) -> Iterator[str]:
        topics = self._world.topology.topics
        if topic not in topics:
            raise _unknown(topic, topics, "topic", node.position)
        schema = self._world.schemas.by_name(topics[topic].schema)
        expected = [_value(item, schema) for item in _items(node, topic)]
        seen = self._driver.emitted_values(topic)
        for index, (want, saw) in enumerate(zip(expected, seen, strict=False)):
            yield from _differences(f"{topic}[{index}]", schema.root, want, saw)
        for index, want in enumerate(expected[len(seen) :], len(seen)):
            yield f"{topic}[{index}]: expected {_shown(want)}, but nothing more came"
        for index, saw in enumerate(seen[len(expected) :], len(expected)):
            yield f"{topic}[{index}]: not expected: {_shown(saw)}"

    def _compare_row(self, table: str, key: str, node: Node, schema: Schema) -> Iterator[str]:
        saw = self._driver.row_value(table, key)
        path = f"{table}[{key}]"
        if _is_null(node):
            if saw is not None:
                yield f"{path}: expected no row, saw {_shown(saw)}"
            return
        want = _value(node, schema)
        if saw is None:
            yield f"{path}: there is no such row"
        else:
            yield from _differences(path, schema.root, want, saw)

    def _compare_count(self, name: str, expect: Mapping, seen: list[str]) -> Iterator[str]:
        node = _get(expect, name) or _get(self._body, name)
        expected = 0
        if node is not None:
            number = _plain(node)
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise _wrong(f"{name} is a number of events", node.position, f"{name}: 0")
            expected = number
        if expected != len(seen):
            yield f"{name}: expected {expected}, saw {len(seen)}"
            yield from (f"  {one}" for one in seen)

    def _table_schema(self, table: str, position: Position) -> Schema:
        tables = self._world.topology.tables
        if table not in tables:
            raise _unknown(table, tables, "table", position)
        return self._world.schemas.by_name(tables[table].schema)


def _dead_letter(value: dict[str, object]) -> str:
    return f"{value['agent']} {value['entity']}: {value['code']} {value['message']}"


def _differences(path: str, node: Type, want: object, saw: object) -> Iterator[str]:
    """Where a value differs from what a case writes of it. Fields of records that are not written don't count."""
    if isinstance(node, Union):
        branch = next((one for one in node.branches if isinstance(one, Record | Array | Map)), None)
        if branch is not None and type(want) is type(saw) and want is not None:
            node = branch
    if isinstance(node, Record) and isinstance(want, dict) and isinstance(saw, dict):
        for one in node.fields:
            if one.name in want:
                yield from _differences(f"{path}.{one.name}", one.type, want[one.name], saw[one.name])
    elif isinstance(node, Array) and isinstance(want, list) and isinstance(saw, list) and len(want) == len(saw):
        for index, (left, right) in enumerate(zip(want, saw, strict=True)):
            yield from _differences(f"{path}[{index}]", node.items, left, right)
    elif not _equal(want, saw):
        yield f"{path}: expected {_shown(want)}, saw {_shown(saw)}"


def _equal(want: object, saw: object) -> bool:
    if isinstance(want, int | float) and isinstance(saw, float) and not isinstance(want, bool):
        return math.isclose(want, saw, rel_tol=1e-9, abs_tol=1e-12)
    return want == saw


def _shown(value: object) -> str:
    match value:
        case datetime():
            text = value.isoformat().replace("+00:00", "Z")
        case dict():
            text = "{" + ", ".join(f"{name}: {_shown(one)}" for name, one in value.items()) + "}"
        case list():
            text = "[" + ", ".join(map(_shown, value)) + "]"
        case None:
            text = "null"
        case _:
            text = str(value) if isinstance(value, str | int | float) else repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}…"


# -- YAML to values ----------------------------------------------------------------------------------------------------


def _value(node: Node, schema: Schema) -> dict[str, object]:
    """The fields of a record that a case writes, as the schema types them."""
    try:
        return from_json(schema, _json(_mapping(node, schema.full_name), schema.root))
    except SchemaError as error:
        raise SchemaError(error.message, code=error.code, where=str(node.position), hint=error.hint) from None


def _json(node: Node, kind: Type | None) -> object:
    """A node as JSON. What the schema calls a text stays one, even if it looks like a number."""
    branches: tuple[Type, ...] = kind.branches if isinstance(kind, Union) else () if kind is None else (kind,)
    match node:
        case Mapping():
            record = next((one for one in branches if isinstance(one, Record)), None)
            if record is not None:
                fields = {one.name: one.type for one in record.fields}
                return {name: _json(entry.value, fields.get(name)) for name, entry in node.entries.items()}
            of_map = next((one.values for one in branches if isinstance(one, Map)), None)
            return {name: _json(entry.value, of_map) for name, entry in node.entries.items()}
        case Sequence():
            items = next((one.items for one in branches if isinstance(one, Array)), None)
            return [_json(item, items) for item in node.items]
        case Scalar():
            nullable = not branches or any(isinstance(one, Primitive) and one.name == "null" for one in branches)
            texts = branches and not any(isinstance(one, Primitive) and _is_numeric(one) for one in branches)
            if texts and not (nullable and _is_null(node)):
                return node.text
            return _plain(node)


def _is_numeric(one: Primitive) -> bool:
    return one.logical is None and one.name in _NUMERIC and one.name != "null"


def _plain(node: Node) -> object:
    """A node by YAML's core rules."""
    if isinstance(node, Mapping):
        return {name: _plain(entry.value) for name, entry in node.entries.items()}
    if isinstance(node, Sequence):
        return [_plain(item) for item in node.items]
    text = node.text
    if not node.plain:
        return text
    if text in _PLAIN:
        return _PLAIN[text]
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > DIGITS_MAX:
            raise _wrong(f"a number of {len(text)} digits", node.position, "write a text in quotes")
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _answer(node: Node) -> object:
    value = _plain(node)
    if isinstance(value, dict) and set(value) == {"error"}:
        return ToolFailure(str(value["error"]))
    return value


def _duration(node: Node) -> timedelta:
    match = _DURATION.fullmatch(node.text) if isinstance(node, Scalar) else None
    if match is None:
        raise _wrong("not a duration", node.position, "write for example 30s, 10m, 1h")
    milliseconds = int(match[1]) * UNITS_MS[match[2]]
    if milliseconds > DURATION_MS_MAX:
        raise _wrong("more than a century", node.position, "write for example 30s, 10m, 1h")
    return timedelta(milliseconds=milliseconds)


def _moment(node: Node) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(node))
    except ValueError:
        raise _wrong("not a time", node.position, "write for example 2013-01-01T10:00:00Z") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    if not 0 <= to_ms(moment) <= TIME_MS_MAX:
        raise _wrong("a time outside the years 1970 to 9999", node.position, "no event can carry it")
    return moment


def _get(node: Mapping, name: str) -> Node | None:
    entry = node.entries.get(name)
    return None if entry is None else entry.value


def _required(node: Mapping, name: str, position: Position) -> Node:
    found = _get(node, name)
    if found is None:
        raise _wrong(f"`{name}:` is missing", position, "see docs/testing.md")
    return found


def _entries(node: Node | None) -> list[tuple[str, Node]]:
    if node is None or _is_null(node):
        return []
    return [(name, entry.value) for name, entry in _mapping(node, "this").entries.items()]


def _items(node: Node | None, name: str) -> list[Node]:
    if node is None or _is_null(node):
        return []
    if not isinstance(node, Sequence):
        raise _wrong(f"{name} is a list", node.position, "write each entry behind a dash")
    return node.items


def _mapping(node: Node, what: str) -> Mapping:
    if not isinstance(node, Mapping):
        raise _wrong(f"{what} is a mapping", node.position, "write `name: value`")
    return node


def _text(node: Node) -> str:
    if not isinstance(node, Scalar):
        raise _wrong("expected a text", node.position, "write one value")
    return node.text


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.text in _PLAIN


def _only(node: Mapping, known: tuple[str, ...]) -> None:
    for name, entry in node.entries.items():
        if name not in known:
            raise _wrong(f"unknown field {name!r}", entry.position, f"known: {', '.join(known)}")


def _known(node: Node, known: Collection[str], what: str) -> str:
    name = _text(node)
    if name not in known:
        raise _unknown(name, known, what, node.position)
    return name


def _unknown(name: str, known: Collection[str], what: str, position: Position) -> TopologyError:
    return _wrong(f"the topology has no {what} {name!r}", position, f"it has: {', '.join(known)}")


def _wrong(message: str, position: Position, hint: str) -> TopologyError:
    return TopologyError(message, code="CH0102", where=str(position), hint=hint)
