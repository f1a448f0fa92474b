"""The kinds of values a topology file has, and the description of one field.

A kind knows three things about itself: how to read a node (or say what is wrong with it), its JSON schema, and its name
in words. ``spec`` says which fields exist; nothing else knows the format of the file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from typing import Final, Protocol

from choreo.topology.model import Position
from choreo.topology.nodes import Mapping, Node, Scalar, Sequence
from choreo.topology.problems import Lint, Severity, problem

Path = tuple[str | int, ...]
JsonSchema = dict[str, object]

# A file with more mistakes than this is the wrong file; the rest would only scroll the first ones away.
PROBLEMS_MAX: Final = 200
# Text ends up in Kafka's own settings and names; the longest sensible one is a list of brokers or a CEL expression.
TEXT_CHARS_MAX: Final = 8_192
# A century. Kafka takes milliseconds as a signed 64-bit number; beyond this a unit was surely mistaken.
DURATION_MS_MAX: Final = 36_500 * 86_400_000
UNITS_MS: Final[MappingType[str, int]] = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

_VARIABLE: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_VARIABLE_BODY: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DURATION: Final = re.compile(r"([0-9]{1,15})(ms|s|m|h|d)")
_INTERPOLATED: Final[JsonSchema] = {"type": "string", "pattern": r"\$\{[^{}]*\}"}


class _Absent:
    """Marks a value that the file does not give."""

    def __repr__(self) -> str:
        return "ABSENT"


class _Invalid:
    """Marks a value that was reported as a problem."""

    def __repr__(self) -> str:
        return "INVALID"


ABSENT: Final = _Absent()
INVALID: Final = _Invalid()


@dataclass(slots=True)
class Reading:
    """What one pass over a file collects: problems, places, and the variables it may use."""

    environment: MappingType[str, str]
    problems: list[Lint] = field(default_factory=list)
    positions: dict[Path, Position] = field(default_factory=dict)
    overflow: bool = False

    def report(
        self, code: str, position: Position, message: str, expected: str, hint: str, severity: Severity = "error"
    ) -> _Invalid:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem(code, position, message, expected, hint, severity))
        elif not self.overflow:
            self.overflow = True
            text = f"more than {PROBLEMS_MAX} problems; the rest is not shown"
            self.problems.append(problem("CH0102", position, text, "fewer", "correct the first ones and run it again"))
        return INVALID

    def expand(self, node: Scalar, *, unset_ok: bool, secret: bool) -> Scalar | _Absent | _Invalid:
        """The scalar with its variables filled in. Values of variables are never expanded again."""
        if "${" not in node.text:
            return node
        unset = False
        failed = False

        def fill(match: re.Match[str]) -> str:
            nonlocal unset, failed
            if match[0] == "$${":
                return "${"
            body = _VARIABLE_BODY.fullmatch(match[1])
            if body is None:
                failed = True
                message = f"{match[0][:60]!r} is not a variable"
                self.report(
                    "CH0105", node.position, message, "${NAME} or ${NAME:-default}", "write $${ for a literal ${"
                )
                return ""
            value = self.environment.get(body[1]) or body[2]
            if value is None and unset_ok and match[0] == node.text:
                unset = True
            elif value is None:
                failed = True
                message = f"the variable {body[1]} is not set"
                hint = f"set {body[1]}, or give a default: ${{{body[1]}:-…}}"
                self.report("CH0105", node.position, message, "a variable of the environment", hint)
            return value or ""

        text = _VARIABLE.sub(fill, node.text)
        if failed:
            return INVALID
        if unset or not text:
            return ABSENT
        if len(text) > TEXT_CHARS_MAX:
            what = "it" if secret else repr(node.text[:60])
            message = f"{what} becomes {len(text)} characters long"
            return self.report(
                "CH0105", node.position, message, f"at most {TEXT_CHARS_MAX} characters", "check the variable's value"
            )
        return Scalar(text, True, node.position, filled=True)


class Kind(Protocol):
    """One kind of value."""

    @property
    def composite(self) -> bool:
        """Whether it reads mappings or lists (scalars come with their variables filled in)."""
        ...

    def read(self, node: Node, path: Path, reading: Reading) -> object:
        """The value, or ``INVALID`` after reporting why."""
        ...

    def json_schema(self) -> JsonSchema: ...

    def words(self) -> str:
        """What the value is, in words: "expected …"."""
        ...


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the file: everything that parsing, defaults, JSON schema and documentation need to know of it.

    Args:
        name: key in YAML.
        kind: what its value is.
        doc: one or two sentences for the documentation and the editor.
        default: value when the field is absent; the model's own default when ``ABSENT``.
        shown_default: the default in words, where the value alone does not say it.
        required: whether it must be there.
        secret: never shown in messages, plans or graphs.
        unset_ok: a value that is one unset ``${VARIABLE}`` counts as absent instead of as a mistake.
    """

    name: str
    kind: Kind
    doc: str
    default: object = ABSENT
    shown_default: str = ""
    required: bool = False
    secret: bool = False
    unset_ok: bool = False

    def read(self, node: Node, path: Path, reading: Reading) -> object:
        if isinstance(node, Scalar) and not (self.kind.composite and not node.text):
            filled = reading.expand(node, unset_ok=self.unset_ok, secret=self.secret)
            if not isinstance(filled, Scalar):
                return filled
            node = filled
        if is_null(node):
            return ABSENT
        if self.secret and isinstance(node, Scalar):
            hidden = Reading(reading.environment)
            value = self.kind.read(node, path, hidden)
            for one in hidden.problems:
                message = f"the value of {shown(path)} cannot be used"
                return reading.report(
                    one.code, one.position, message, one.expected, "it is a secret, so it is not shown"
                )
            return value
        return self.kind.read(node, path, reading)


def shown(path: Path) -> str:
    """A path as people write it: ``agents.desk.reads[0]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the file"


def is_null(node: Node) -> bool:
    """Whether a node says "nothing here"."""
    return isinstance(node, Scalar) and node.plain and not node.filled and node.text in _NULL


def seen(node: Node) -> str:
    """A node in words, for messages."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    text = node.text if len(node.text) <= 60 else node.text[:57] + "…"
    if not node.plain:
        return f"the text {text!r}"
    if node.text in _TRUE or node.text in _FALSE:
        return f"the boolean {text}"
    if _INTEGER.fullmatch(node.text) or _FLOAT.fullmatch(node.text):
        return f"the number {text}"
    return f"the text {text!r}"


def is_text(node: Scalar) -> bool:
    """Whether a scalar is text: quoted, from a variable, or by the core schema of YAML 1.2."""
    text = node.text
    return (
        node.filled
        or not node.plain
        or not (text in _NULL or text in _TRUE or text in _FALSE or _INTEGER.fullmatch(text) or _FLOAT.fullmatch(text))
    )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    near = difflib.get_close_matches(name[:100], list(known), n=1)
    return near[0] if near else None


@dataclass(frozen=True, slots=True)
class Text:
    """Text of limited length, with an optional pattern."""

    what: str = "text"
    pattern: str | None = None
    hint: str = ""
    chars_max: int = TEXT_CHARS_MAX
    composite: bool = False

    def read(self, node: Node, path: Path, reading: Reading) -> object:
        if not isinstance(node, Scalar):
            return reading.report(
                "CH0102", node.position, f"{shown(path)} is {seen(node)}", self.words(), self.hint or "write text here"
            )
        if not is_text(node):
            return reading.report(
                "CH0102",
                node.position,
                f"{shown(path)} is {seen(node)}",
                self.words(),
                f'put it in quotes: "{node.text[:40]}"',
            )
        text = node.text
        if not text or len(text) > self.chars_max:
            message = f"{shown(path)} has {len(text)} characters"
            return reading.report(
                "CH0102", node.position, message, f"1 to {self.chars_max} characters", "shorten or fill it"
            )
        if self.pattern is not None and not re.fullmatch(self.pattern, text):
            return reading.report(
                "CH0102",
                node.position,
                f"{shown(path)} is {seen(node)}",
                self.words(),
                self.hint or f"it must match {self.pattern}",
            )
        return text

    def json_schema(self) -> JsonSchema:
        found: JsonSchema = {"type": "string", "minLength": 1, "maxLength": self.chars_max}
        if self.pattern is None:
            return found
        return {"anyOf": [{**found, "pattern": f"^({self.pattern})$"}, _INTERPOLATED]}

    def words(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number within bounds."""

    low: int
    high: int
    unit: str = ""
    composite: bool = False

    def read(self, node: Node, path: Path, reading: Reading) -> object:
        if not isinstance(node, Scalar) or not node.plain or not _INTEGER.fullmatch(node.text):
            return reading.report(
                "CH0102", node.position, f"{shown(path)} is {seen(node)}", self.words(), "write digits without quotes"
            )
        value = int(node.text)
        if not self.low <= value <= self.high:
            return reading.report(
                "CH0102", node.position, f"{shown(path)} is {value}", self.words(), "choose a value within the bounds"
            )
        return value

    def json_schema(self) -> JsonSchema:
        return {"anyOf": [{"type": "integer", "minimum": self.low, "maximum": self.high}, _INTERPOLATED]}

    def words(self) -> str:
        if self.low == self.high:
            return f"the number {self.low}"
        return f"a whole number from {self.low} to {self.high}{' ' if self.unit else ''}{self.unit}"


@dataclass(frozen=True, slots=True)
class Flag:
    """``true`` or ``false``."""

    composite: bool = False

    def read(self, node: Node, path: Path, reading: Reading) -> object:
        if isinstance(node, Scalar) and node.plain and node.text in _TRUE | _FALSE:
            return node.text in _TRUE
        return reading.report(
            "CH0102",
            node.position,
            f"{shown(path)} is {seen(node)}",
            self.words(),
            "write true or false, without quotes",
        )

    def json_schema(self) -> JsonSchema:
        return {"anyOf": [{"type": "boolean"}, _INTERPOLATED]}

    def words(self) -> str:
        return "true or false"


@dataclass(frozen=True, slots=True)
class Choice:
    """One word of a few."""

    options: tuple[str, ...]
    composite: bool = False

    def read(self, node: Node, path: Path, reading: Reading) -> object:
        if isinstance(node, Scalar) and node.text in self.options:
            return node.text
        near = nearest(node.text, self.options) if isinstance(node, Scalar) else None
        hint = f"did you mean {near}?" if near else f"write one of {', '.join(self.options)}"
        return reading.report("CH0102", node.position, f"{shown(path)} is {seen(node)}", self.words(), hint)

    def json_schema(self) -> JsonSchema:
        return {"anyOf": [{"enum": list(self.options)}, _INTERPOLATED]}

    def words(self) -> str:
        return self.options[0] if len(self.options) == 1 else f"{', '.join(self.options[:-1])} or {self.options[-1]}"


@dataclass(frozen=True, slots=True)
class Duration:
    """A duration with a unit; the value is milliseconds. ``forever`` (where allowed) is None."""

    low_ms: int = 1
    high_ms: int = DURATION_MS_MAX
    forever: bool = False
    composite: bool = False

    def read(self, node: Node, path: Path, reading: Reading) -> object:
        text = node.text if isinstance(node, Scalar) else ""
        if self.forever and text == "forever":
            return None
        match = _DURATION.fullmatch(text)
        if match is None:
            number = isinstance(node, Scalar) and _INTEGER.fullmatch(text)
            hint = f"add a unit: {text}s" if number else "write a number and one of ms, s, m, h, d, without a space"
            return reading.report("CH0102", node.position, f"{shown(path)} is {seen(node)}", self.words(), hint)
        value = int(match[1]) * UNITS_MS[match[2]]
        if not self.low_ms <= value <= self.high_ms:
            bounds = f"a duration from {duration_text(self.low_ms)} to {duration_text(self.high_ms)}"
            return reading.report(
                "CH0102", node.position, f"{shown(path)} is {text}", bounds, "choose a value within the bounds"
            )
        return value

    def json_schema(self) -> JsonSchema:
        pattern = r"^[0-9]+(ms|s|m|h|d)$" + (r"|^forever$" if self.forever else "")
        return {"anyOf": [{"type": "string", "pattern": pattern}, _INTERPOLATED]}

    def words(self) -> str:
        return "a duration such as 500ms, 30s, 5m, 12h or 7d" + (", or forever" if self.forever else "")


def duration_text(milliseconds: int) -> str:
    """A duration as one would write it in the file."""
    for unit in ("d", "h", "m", "s"):
        if milliseconds >= UNITS_MS[unit] and milliseconds % UNITS_MS[unit] == 0:
            return f"{milliseconds // UNITS_MS[unit]}{unit}"
    return f"{milliseconds}ms"


@dataclass(frozen=True, slots=True)
class Names:
    """A list of different names; a single name may stand for a list of one where ``single`` says so."""

    what: str
    single: bool = False
    composite: bool = True

    def read(self, node: Node, path: Path, reading: Reading) -> object:
        if isinstance(node, Scalar) and self.single:
            node = Sequence(node.position, [node])
        if not isinstance(node, Sequence):
            example = node.text[:40] if isinstance(node, Scalar) else "name"
            return reading.report(
                "CH0102", node.position, f"{shown(path)} is {seen(node)}", self.words(), f"write [{example}]"
            )
        found: list[str] = []
        failed = False
        for index, item in enumerate(node.items):
            reading.positions[(*path, index)] = item.position
            value = Field("", Text(f"the name of {self.what}"), "").read(item, (*path, index), reading)
            if not isinstance(value, str):
                if value is ABSENT:
                    reading.report(
                        "CH0102", item.position, f"{shown((*path, index))} is nothing", self.words(), "remove the item"
                    )
                failed = True
            elif value in found:
                failed = True
                reading.report(
                    "CH0102", item.position, f"{shown(path)} lists {value!r} twice", "each name once", "remove one"
                )
            else:
                found.append(value)
        if self.single and not node.items:
            return reading.report(
                "CH0102", node.position, f"{shown(path)} is an empty list", self.words(), "name at least one"
            )
        return INVALID if failed else tuple(found)

    def json_schema(self) -> JsonSchema:
        item: JsonSchema = {"type": "string", "minLength": 1}
        many: JsonSchema = {"type": "array", "items": item, "uniqueItems": True}
        return {"anyOf": [item, {**many, "minItems": 1}]} if self.single else many

    def words(self) -> str:
        return f"the name of {self.what}, or a list of them" if self.single else f"a list of names of {self.what}"


@dataclass(frozen=True, slots=True)
class Settings:
    """A free mapping of names to texts and numbers; ``prefixes`` limits the names."""

    what: str
    prefixes: tuple[str, ...] = ()
    numbers: bool = False
    composite: bool = True

    def read(self, node: Node, path: Path, reading: Reading) -> object:
        if not isinstance(node, Mapping):
            return reading.report(
                "CH0102", node.position, f"{shown(path)} is {seen(node)}", self.words(), "write {name: value}"
            )
        found: dict[str, object] = {}
        failed = False
        for name, entry in node.entries.items():
            reading.positions[(*path, name)] = entry.value.position
            if self.prefixes and not name.startswith(self.prefixes):
                expected = f"settings that begin with {', '.join(self.prefixes)}"
                hint = "choreo sets all others itself; they decide about exactly-once"
                reading.report("CH0102", entry.position, f"{shown(path)} has the setting {name[:60]!r}", expected, hint)
                failed = True
                continue
            value = self._value(entry.value, (*path, name), reading)
            if value is INVALID:
                failed = True
            elif value is not ABSENT:
                found[name] = value
        return INVALID if failed else found

    def _value(self, node: Node, path: Path, reading: Reading) -> object:
        expected = "a number" if self.numbers else "text, a number or a boolean"
        if not isinstance(node, Scalar):
            return reading.report(
                "CH0102", node.position, f"{shown(path)} is {seen(node)}", expected, "write a single value"
            )
        filled = reading.expand(node, unset_ok=False, secret=True)
        if not isinstance(filled, Scalar):
            return filled
        if is_null(filled):
            return ABSENT
        if self.numbers:
            if filled.plain and _FLOAT.fullmatch(filled.text) and "n" not in filled.text.lower():
                return float(filled.text) if not _INTEGER.fullmatch(filled.text) else int(filled.text)
            return reading.report(
                "CH0102", node.position, f"{shown(path)} is not a number", expected, "write digits without quotes"
            )
        if filled.plain and filled.text in _TRUE | _FALSE:
            return filled.text.lower()
        return filled.text

    def json_schema(self) -> JsonSchema:
        kinds = ["number"] if self.numbers else ["string", "number", "boolean"]
        value: JsonSchema = {"anyOf": [{"type": kinds}, _INTERPOLATED]} if self.numbers else {"type": kinds}
        found: JsonSchema = {"type": "object", "additionalProperties": value}
        if self.prefixes:
            names = "|".join(re.escape(prefix) for prefix in self.prefixes)
            found["propertyNames"] = {"pattern": f"^({names})"}
        return found

    def words(self) -> str:
        return f"a mapping of {self.what}"


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping with known fields; the value is a dict with one entry per field that has a value."""

    what: str
    fields: tuple[Field, ...]
    composite: bool = True

    def read(self, node: Node, path: Path, reading: Reading) -> object:
        if not isinstance(node, Mapping):
            example = ", ".join(f"{one.name}: …" for one in self.fields if one.required) or f"{self.fields[0].name}: …"
            return reading.report(
                "CH0102", node.position, f"{shown(path)} is {seen(node)}", self.words(), f"write {{{example}}}"
            )
        failed = self._unknown(node, path, reading)
        found: dict[str, object] = {}
        for one in self.fields:
            entry = node.entries.get(one.name)
            value: object = ABSENT
            if entry is not None:
                reading.positions[(*path, one.name)] = entry.value.position
                value = one.read(entry.value, (*path, one.name), reading)
            if value is INVALID:
                failed = True
            elif value is not ABSENT:
                found[one.name] = value
            elif one.required:
                message = f"{shown(path)} has no {one.name!r}"
                reading.report(
                    "CH0102",
                    reading.positions.get(path, node.position),
                    message,
                    one.kind.words(),
                    f"add `{one.name}: …`: {one.doc}",
                )
                failed = True
            elif one.default is not ABSENT:
                found[one.name] = one.default
        return INVALID if failed else found

    def _unknown(self, node: Mapping, path: Path, reading: Reading) -> bool:
        known = [one.name for one in self.fields]
        strange = [name for name in node.entries if name not in known]
        for name in strange:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else "remove it"
            message = f"{shown(path)} has the unknown field {name[:60]!r}"
            reading.report("CH0102", node.entries[name].position, message, f"one of {', '.join(known)}", hint)
        return bool(strange)

    def json_schema(self) -> JsonSchema:
        found: JsonSchema = {
            "type": "object",
            "additionalProperties": False,
            "properties": {one.name: field_schema(one) for one in self.fields},
        }
        required = [one.name for one in self.fields if one.required]
        return {**found, "required": required} if required else found

    def words(self) -> str:
        return f"a mapping with the fields of {self.what}"


def field_schema(one: Field) -> JsonSchema:
    """JSON schema of a field, with its documentation for editors."""
    found = one.kind.json_schema()
    found = {"description": one.doc, **found}
    if isinstance(one.default, str | int | bool):
        found["default"] = one.default
    if one.secret:
        found["writeOnly"] = True
    if one.required:
        return found
    # `name:` with nothing after it means the same as leaving the field out.
    return {"description": found.pop("description"), "anyOf": [found, {"type": "null"}]}


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping of names that the author chooses to sections; the value is a dict of dicts."""

    section: Section
    composite: bool = True

    def read(self, node: Node, path: Path, reading: Reading) -> object:
        if not isinstance(node, Mapping):
            return reading.report(
                "CH0102", node.position, f"{shown(path)} is {seen(node)}", self.words(), "write `name: {…}`"
            )
        found: dict[str, object] = {}
        failed = False
        for name, entry in node.entries.items():
            reading.positions[(*path, name)] = entry.position
            if not name or len(name) > NAME_CHARS_MAX or not _NAME.fullmatch(name):
                expected = f"1 to {NAME_CHARS_MAX} letters, digits, dots, dashes and underscores"
                message = f"{name[:60]!r} cannot be the name of {self.section.what}"
                reading.report("CH0102", entry.position, message, expected, "choose another name")
                failed = True
                continue
            node_or_empty = Mapping(entry.position) if is_null(entry.value) else entry.value
            value = self.section.read(node_or_empty, (*path, name), reading)
            failed = failed or value is INVALID
            found[name] = value
        return INVALID if failed else found

    def json_schema(self) -> JsonSchema:
        names: JsonSchema = {"pattern": f"^({_NAME.pattern})$", "maxLength": NAME_CHARS_MAX}
        return {"type": "object", "propertyNames": names, "additionalProperties": self.section.json_schema()}

    def words(self) -> str:
        return f"a mapping of names to {self.section.what.removeprefix('the ').removeprefix('a ').removeprefix('an ')}s"


# Kafka's own limit for topic names; internal topics are longer and are checked by a lint.
NAME_CHARS_MAX: Final = 249
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
