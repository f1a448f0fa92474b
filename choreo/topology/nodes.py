"""YAML text as a tree of nodes that know their place. No Python objects are ever built from tags.

Works on the parser's events instead of a loader: positions of keys *and* values, duplicate keys, and bounds that hold
before memory is spent. Scalars stay text here; which type a text has is decided by the field that reads it.

Anchors and aliases work, because long topologies repeat themselves; what they expand to is counted, so that nine lines
cannot become a billion nodes. Merge keys (``<<``) are not part of YAML 1.2 and are not supported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from choreo.topology.model import Position
from choreo.topology.problems import Lint, problem

# 500 agents with 1,000 topics are 120 kB; where it has mistakes the parser needs about 3 s for a megabyte.
FILE_CHARS_MAX: Final = 1_000_000
# The format nests 6 deep. Kubernetes and Compose readers stop at 100 and more; nothing here needs it.
DEPTH_MAX: Final = 32
# The largest file of the size above has about this many nodes; aliases count what they expand to.
NODES_MAX: Final = 200_000
CORE_TAGS: Final = frozenset({"!", "str", "int", "float", "bool", "null", "seq", "map"})


@dataclass(slots=True)
class Scalar:
    """A single value as written.

    Args:
        text: without its quotes.
        plain: it had none, so that it may be a number, a boolean or null.
        position: where it begins.
        size: nodes that it counts for.
        filled: it came out of variables, which have no types: it is whatever its field wants.
    """

    text: str
    plain: bool
    position: Position
    size: int = 1
    filled: bool = False


@dataclass(slots=True)
class Sequence:
    position: Position
    items: list[Node] = field(default_factory=list)
    size: int = 1


@dataclass(slots=True)
class Mapping:
    position: Position
    entries: dict[str, Entry] = field(default_factory=dict)
    size: int = 1


@dataclass(slots=True)
class Entry:
    """A key with its place and what it maps to."""

    position: Position
    value: Node


Node = Scalar | Sequence | Mapping


class _UnreadableError(Exception):
    """Ends the reading of one file; carries the problem."""

    def __init__(self, found: Lint) -> None:
        self.found = found
        super().__init__(str(found))


def read_nodes(text: str, file: str) -> tuple[Mapping | None, list[Lint]]:
    """The top-level mapping of a YAML text, or why there is none.

    Args:
        text: the whole file.
        file: its name, for positions.
    """
    composer = _Composer(file, pure=False)
    try:
        return composer.document(text), composer.problems
    except _UnreadableError:
        composer = _Composer(file, pure=True)  # ten times slower than libyaml; it says better what is wrong, and where
    try:
        return composer.document(text), composer.problems
    except _UnreadableError as error:
        return None, [*composer.problems, error.found]


def merged(base: Mapping, over: Mapping) -> Mapping:
    """``base`` with ``over`` laid on it: mappings merge key by key, everything else is replaced as a whole.

    Every node keeps its own position, so that a problem points at the line that counts.
    """
    out = Mapping(base.position, dict(base.entries))
    for name, entry in over.entries.items():
        below = base.entries.get(name)
        if below is not None and isinstance(below.value, Mapping) and isinstance(entry.value, Mapping):
            out.entries[name] = Entry(below.position, merged(below.value, entry.value))
        else:
            out.entries[name] = entry
    return out


class _Composer:
    def __init__(self, file: str, *, pure: bool) -> None:
        self.problems: list[Lint] = []
        self._pure = pure
        self._file = file
        self._anchors: dict[str, Node] = {}
        self._open: set[str] = set()  # anchors whose node is not finished: an alias to one has no end
        self._count = 0
        self._here = Position(file, 1, 1)

    def document(self, text: str) -> Mapping:
        if len(text) > FILE_CHARS_MAX:
            raise self._stop(f"the file has {len(text)} characters", f"at most {FILE_CHARS_MAX}", "split the topology")
        try:
            return self._read(self._events(text))
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = Position(self._file, mark.line + 1, mark.column + 1) if mark is not None else self._here
            said = ", ".join(part for part in (error.context, error.problem) if part) or "not readable"
            raise self._stop(f"not valid YAML: {said}", "YAML 1.2", "check quotes and indentation", place) from error
        except (YAMLError, ValueError, RecursionError) as error:
            said = " ".join(str(error).split())[:200]
            raise self._stop(f"not valid YAML: {said}", "YAML 1.2", "save the file as UTF-8 text") from error

    def _events(self, text: str) -> Iterator[Event]:
        """The parser's events. Of YAML's versions it knows 1.1 and 1.2, and asserts that there are no others."""
        try:
            yield from YAML(typ="safe", pure=self._pure).parse(text)
        except AssertionError as error:
            raise self._stop(
                f"not valid YAML: {error}", "YAML 1.2", "remove the line that begins with %YAML"
            ) from error

    def _read(self, events: Iterator[Event]) -> Mapping:
        root: Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, StreamStartEvent | StreamEndEvent | DocumentEndEvent):
                continue
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._here = self._place(event)
                    raise self._stop("a second document begins here", "one topology a file", "remove the `---`")
                continue
            root = self._node(event, events, 0)
        if root is None or (isinstance(root, Scalar) and not root.text):
            raise self._stop("the file is empty", "a mapping that begins with `choreo: 1`", "see docs/topology.md")
        if not isinstance(root, Mapping):
            kind = "a list" if isinstance(root, Sequence) else "a single value"
            raise self._stop(
                f"the file holds {kind}",
                "a mapping that begins with `choreo: 1`",
                "see docs/topology.md",
                root.position,
            )
        return root

    def _node(self, event: Event, events: Iterator[Event], depth: int) -> Node:
        here = self._here = self._place(event)
        self._grow(1)
        if depth > DEPTH_MAX:
            raise self._stop(f"nested more than {DEPTH_MAX} deep", "a flat file", "remove brackets or indentation")
        if isinstance(event, AliasEvent):
            return self._aliased(str(event.anchor))
        if event.tag is not None and str(event.tag).removeprefix("tag:yaml.org,2002:") not in CORE_TAGS:
            self._report(f"the tag {event.tag}", "values without tags", "remove the tag", here)
        anchor = None if event.anchor is None else str(event.anchor)
        if anchor is not None:
            self._open.add(anchor)
        node: Node
        if isinstance(event, ScalarEvent):
            node = Scalar(str(event.value), bool(event.implicit[0]), here)
        elif isinstance(event, SequenceStartEvent):
            node = self._sequence(events, here, depth)
        elif isinstance(event, MappingStartEvent):
            node = self._mapping(events, here, depth)
        else:
            raise AssertionError(f"unexpected YAML event {event}")
        if anchor is not None:
            self._open.discard(anchor)
            self._anchors[anchor] = node
        return node

    def _sequence(self, events: Iterator[Event], here: Position, depth: int) -> Sequence:
        node = Sequence(here)
        for event in events:
            if isinstance(event, SequenceEndEvent):
                return node
            item = self._node(event, events, depth + 1)
            node.items.append(item)
            node.size += item.size
        raise AssertionError("the parser ends every sequence it begins")

    def _mapping(self, events: Iterator[Event], here: Position, depth: int) -> Mapping:
        node = Mapping(here)
        for event in events:
            if isinstance(event, MappingEndEvent):
                return node
            key = self._node(event, events, depth + 1)
            value = self._node(next(events), events, depth + 1)
            node.size += key.size + value.size
            if not isinstance(key, Scalar):
                self._report("a key that is a list or a mapping", "a name", "write `name: value`", key.position)
            elif key.text in node.entries:
                first = node.entries[key.text].position
                message = f"the key {key.text[:60]!r} occurs twice; the first is at line {first.line}"
                self._report(message, "each key once", "remove one of the two", key.position)
            elif key.text == "<<" and key.plain:
                self._report(
                    "a merge key `<<`", "plain keys", "YAML 1.2 has no merge keys; repeat the fields", key.position
                )
            else:
                node.entries[key.text] = Entry(key.position, value)
        raise AssertionError("the parser ends every mapping it begins")

    def _aliased(self, anchor: str) -> Node:
        if anchor in self._open:
            raise self._stop(f"*{anchor} contains itself", "an alias to a finished value", "remove the alias")
        node = self._anchors.get(anchor)
        if node is None:
            raise self._stop(f"*{anchor} refers to no anchor", f"an earlier &{anchor}", "define it above")
        self._grow(node.size)
        return node

    def _grow(self, nodes: int) -> None:
        self._count += nodes
        if self._count > NODES_MAX:
            raise self._stop(f"more than {NODES_MAX} values", "a smaller file", "remove aliases or split the topology")

    def _place(self, event: Event) -> Position:
        mark = event.start_mark
        return Position(self._file, mark.line + 1, mark.column + 1)

    def _report(self, message: str, expected: str, hint: str, position: Position) -> None:
        self.problems.append(problem("CH0101", position, message, expected, hint))

    def _stop(self, message: str, expected: str, hint: str, position: Position | None = None) -> _UnreadableError:
        return _UnreadableError(problem("CH0101", position or self._here, message, expected, hint))
