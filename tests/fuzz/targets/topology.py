"""Topology files: any text is a topology or a list of problems, with an overlay and variables too; nothing else.

What parsed can be linted, drawn and turned into wanted topics: commands do that with no further questions.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from typing import Final

from choreo.codec.schema import SchemaSet
from choreo.errors import CATALOGUE
from choreo.runtime.builtin_schemas import library_texts
from choreo.topology.desired import wanted_schemas, wanted_topics
from choreo.topology.drawing import page
from choreo.topology.example import SCHEMAS, TOPOLOGY
from choreo.topology.graph import graph_json, mermaid
from choreo.topology.graph import text as graph_text
from choreo.topology.lints import lint
from choreo.topology.pages import json_schema
from choreo.topology.parse import Parsed, parse
from choreo.topology.problems import Lint
from tests.fuzz.changes import TEXT, changed, word_of
from tests.fuzz.target import Target, promised

ROOT: Final = Path(__file__).parents[3]
OVERLAY: Final = b"\n%%%% overlay\n"
VARIABLE: Final = b"\n%%%% variable\n"
PROBLEM_CHARS_MAX: Final = 20_000

FOUND: Final = (b"%YAML 1.0\n--- a", b"%YAML 1.3\n---\nchoreo: 1", b"%YAML 2.0\n---\nchoreo: 1", b"%YAML 1\n--- a")


@cache
def _schemas() -> SchemaSet:
    return SchemaSet.load(SCHEMAS, library=library_texts())


def _texts() -> list[str]:
    files = sorted((ROOT / "topologies").glob("*.yaml"))
    return [TOPOLOGY, *(file.read_text("utf-8") for file in files if not file.name.endswith(".test.yaml"))]


@cache
def words() -> tuple[bytes, ...]:
    properties = json_schema()["properties"]
    assert isinstance(properties, dict)
    marks = (
        "{",
        "}",
        "[",
        "]",
        ": ",
        ", ",
        "- ",
        "\n",
        "\n  ",
        "&a ",
        "*a",
        "<<: ",
        "? ",
        "!t ",
        "| ",
        "> ",
        "#",
        "---",
    )
    more = (
        *marks,
        *(
            "...",
            "%YAML 1.1\n",
            "%YAML 1.3\n--- ",
            "'",
            '"',
            "${",
            "${A}",
            "${A:-x}",
            "$${",
            "forever",
            "1d",
            "0ms",
            "99999999999d",
        ),
    )
    named = [word.encode() for word in (*properties, *more)]
    return (*TEXT, *named, *named, *(word for text in _texts() for word in word_of(text)))


def parts_of(data: bytes) -> tuple[str, str | None, str]:
    """Text, overlay and the value of every variable; a file's bytes are UTF-8, or it is not read at all."""
    data, _, variable = data.partition(VARIABLE)
    data, mark, overlay = data.partition(OVERLAY)

    def text(part: bytes) -> str:
        return part.decode("utf-8", errors="replace")

    return text(data), text(overlay) if mark else None, text(variable)


class _Variables(dict[str, str]):
    """Every variable is set."""

    def __init__(self, value: str) -> None:
        super().__init__()
        self._value = value

    def get(self, name: str, default: object = None) -> str:
        return self._value


def check(data: bytes) -> None:
    text, overlay, variable = parts_of(data)
    over = None if overlay is None else (overlay, "x.prod.yaml")
    check_parsed(parse(text, "x.yaml", overlay=over, env=_Variables(variable)))


def check_parsed(parsed: Parsed) -> None:
    for one in parsed.problems:
        check_problem(one)
    errors = any(one.severity == "error" for one in parsed.problems)
    promised((parsed.topology is None) == errors, parsed.problems)
    topology = parsed.topology
    if topology is None:
        return
    found = lint(topology, _schemas())
    for one in found:
        check_problem(one)
    if any(one.severity == "error" for one in found):
        return
    mermaid(topology)
    graph_text(topology)
    graph_json(topology)
    page(topology)
    wanted_topics(topology)
    wanted_schemas(topology)


def check_problem(one: Lint) -> None:
    promised(one.code in CATALOGUE and one.severity in ("error", "warning"), one)
    promised(bool(one.message and one.expected and one.hint), one)
    promised(one.position.line >= 1 and one.position.column >= 1, one)
    promised(len(str(one)) <= PROBLEM_CHARS_MAX, str(one)[:500])


BOMB: Final = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


def seeds() -> tuple[bytes, ...]:
    base = TOPOLOGY.encode()
    texts = [one.encode() for one in _texts()]
    over = OVERLAY + b"defaults: {partitions: 2}\ncluster: {bootstrap: ${B}}\n" + VARIABLE + b"127.0.0.1:9092"
    small = (
        b"choreo: 1\ntopology: t\nowner: o\ntopics:\n  a: {schema: FlightDeparted, key: tail_number, ingress: true}\n"
    )
    wide = small + b"agents:\n  x: &x {reads: [a]}\n" + b"".join(b"  x%d: *x\n" % n for n in range(20))
    return (*texts, base + over, small, small, small + over, wide, b"choreo: 1\n" + BOMB.encode(), b"")


def change(seed: bytes, chance: Random) -> bytes:
    """Damage to a file, its overlay or its variables; or the words of the format in any order."""
    kind = chance.random()
    if kind < 0.1:
        return b" ".join(chance.choices(words(), k=chance.randrange(1, 50)))[:8_000]
    if kind < 0.3:
        return seed + OVERLAY + changed(chance.choice(seeds()[-4:]), chance, words())
    if kind < 0.4:
        return seed.partition(VARIABLE)[0] + VARIABLE + chance.choice(words())
    return changed(seed, chance, words())


def targets() -> list[Target]:
    # The YAML parser is pure Python and needs 3 ms for a kilobyte; a file is read once, by the person who wrote it.
    return [Target("topology", check, seeds(), change, FOUND, seconds_max=1.0)]
