"""Fuzzing: whatever the text, the answer is a topology or a list of problems, nothing else.

That it takes bounded time and memory is shown by the bounds in ``test_parse_reports_every_problem``.
"""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from choreo.topology.lints import lint
from choreo.topology.pages import json_schema
from choreo.topology.parse import Parsed, parse
from tests.topology.shared import EXAMPLE_SCHEMAS
from tests.topology.test_parse_reads_what_is_written import DESIGN

WORDS = st.sampled_from(
    sorted(
        {word for line in DESIGN.splitlines() for word in line.replace(",", " ").replace("{", " ").split()}
        | set(json_schema()["properties"])  # type: ignore[call-overload]
        | {
            "choreo: 1",
            "topology: t",
            "\n",
            "  ",
            ": ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            ", ",
            "&a",
            "*a",
            "!t",
            "|",
            ">",
            "'",
            '"',
        }
        | {
            "${",
            "}",
            "${A}",
            "${A:-}",
            "<<",
            "?",
            "---",
            "...",
            "%YAML 1.1\n",
            "#",
            "~",
            "0",
            "-1",
            "1e9",
            ".inf",
            "\t",
        }
    )
)


def check(parsed: Parsed) -> None:
    assert all(one.code and one.message and one.hint and one.position.line >= 1 for one in parsed.problems)
    assert (parsed.topology is None) == any(one.severity == "error" for one in parsed.problems)
    if parsed.topology is not None:
        lint(parsed.topology, EXAMPLE_SCHEMAS)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
@example("\ufeff")
@example("a: \U0010ffff")
@example("\x85\u2028")
@example("&\n*")
@example("? ?")
@example("- - - - -\n -")
@example("%TAG ! tag:x\n--- !a b")
@example("%YAML 9.9\n--- a")
def test_any_text(text: str) -> None:
    check(parse(text, "x.yaml", env={"A": text}))


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=60))
def test_shuffled_words_of_the_format(words: list[str]) -> None:
    check(parse(" ".join(words), "x.yaml", env={"A": "x"}))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_file(data: st.DataObject) -> None:
    text = DESIGN
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 30)))
        text = text[:start] + data.draw(WORDS | st.text(max_size=5)) + text[end:]
    check(parse(text, "x.yaml", env={"CHOREO_BROKERS": "x:1"}))
    check(parse(DESIGN, "x.yaml", overlay=(text, "o.yaml"), env={"CHOREO_BROKERS": "x:1"}))
