"""Bad files: each mistake gives its code, its place and advice, and all mistakes are reported together."""

from __future__ import annotations

import pytest

from choreo.errors import CATALOGUE
from choreo.topology.fields import PROBLEMS_MAX
from choreo.topology.nodes import DEPTH_MAX, FILE_CHARS_MAX
from choreo.topology.parse import parse

HEAD = "choreo: 1\ntopology: t\n"

# (text, code, line, column, part of the message, part of expectation or hint)
BAD = [
    ("", "CH0101", 1, 1, "the file is empty", "choreo: 1"),
    ("# only a comment\n", "CH0101", 1, 1, "the file is empty", "choreo: 1"),
    ("just text", "CH0101", 1, 1, "a single value", "mapping"),
    ("- a\n- b", "CH0101", 1, 1, "a list", "mapping"),
    ("a: [1, 2", "CH0101", 1, 9, "not valid YAML", "quotes and indentation"),
    ("a: 1\n b: 2", "CH0101", 2, 3, "not valid YAML", "quotes and indentation"),
    ("a: 'open", "CH0101", 1, 9, "not valid YAML", "quotes"),
    ("a: \x01", "CH0101", 1, 1, "not valid YAML", "UTF-8"),
    ("choreo: 1\n---\nchoreo: 1\n", "CH0101", 2, 1, "second document", "one topology a file"),
    (HEAD + "topology: u\n", "CH0101", 3, 1, "'topology' occurs twice", "remove one"),
    (HEAD + "? [a]\n: 1\n", "CH0101", 3, 3, "a key that is a list", "name: value"),
    (HEAD + "<<: {owner: x}\n", "CH0101", 3, 1, "merge key", "no merge keys"),
    (HEAD + "owner: !secret x\n", "CH0101", 3, 8, "tag !secret", "remove the tag"),
    (HEAD + "owner: !!python/object/apply:os.system [x]\n", "CH0101", 3, 8, "python/object", "remove the tag"),
    (HEAD + "owner: *nobody\n", "CH0101", 3, 8, "refers to no anchor", "define it above"),
    (HEAD + "topics: &a {b: *a}\n", "CH0101", 3, 16, "contains itself", "remove the alias"),
    (HEAD + "owner: " + "[" * 100 + "]" * 100, "CH0101", 3, 40, f"nested more than {DEPTH_MAX} deep", "flat"),
    ("topology: t\n", "CH0104", 1, 1, "does not say which format", "begin the file with `choreo: 1`"),
    ("choreo: 2\n", "CH0104", 1, 9, "the number 2", "a newer choreo"),
    ("choreo: '1'\n", "CH0104", 1, 9, "the text '1'", "choreo: 1"),
    ("choreo: 1\n", "CH0102", 1, 1, "has no 'topology'", "add `topology: …`"),
    ("choreo: 1\ntopology: 5\n", "CH0102", 2, 11, "the number 5", 'put it in quotes: "5"'),
    ("choreo: 1\ntopology: a b\n", "CH0102", 2, 11, "the text 'a b'", "letters, digits"),
    (HEAD + "topic: {}\n", "CH0102", 3, 1, "unknown field 'topic'", "did you mean 'topics'?"),
    (HEAD + "topics: []\n", "CH0102", 3, 9, "topics is a list", "write `name: {…}`"),
    (HEAD + "topics: {a: 1}\n", "CH0102", 3, 13, "topics.a is the number 1", "schema: …"),
    (HEAD + "topics: {a: {key: x}}\n", "CH0102", 3, 10, "topics.a has no 'schema'", "Avro record"),
    (HEAD + "topics: {a: }\n", "CH0102", 3, 10, "topics.a has no 'key'", "the name of a field"),
    (HEAD + "topics: {'a b': {schema: A, key: x}}\n", "CH0102", 3, 10, "cannot be the name", "another name"),
    (HEAD + "topics: {a: {schema: A, key: []}}\n", "CH0102", 3, 30, "an empty list", "at least one"),
    (HEAD + "topics: {a: {schema: A, key: [x, x]}}\n", "CH0102", 3, 34, "lists 'x' twice", "remove one"),
    (HEAD + "topics: {a: {schema: A, key: {x: y}}}\n", "CH0102", 3, 30, "a mapping", "the name of a field"),
    (HEAD + "topics: {a: {schema: A, key: x, partitions: 0}}\n", "CH0102", 3, 45, "is 0", "from 1 to 10000"),
    (HEAD + "topics: {a: {schema: A, key: x, partitions: '4'}}\n", "CH0102", 3, 45, "the text '4'", "without quotes"),
    (HEAD + "topics: {a: {schema: A, key: x, partitions: 4.5}}\n", "CH0102", 3, 45, "the number 4.5", "whole number"),
    (HEAD + "topics: {a: {schema: A, key: x, retention: 10}}\n", "CH0102", 3, 44, "the number 10", "add a unit: 10s"),
    (HEAD + "topics: {a: {schema: A, key: x, retention: 10 s}}\n", "CH0102", 3, 44, "the text '10 s'", "a space"),
    (HEAD + "topics: {a: {schema: A, key: x, retention: 99999999d}}\n", "CH0102", 3, 44, "is 99999999d", "36500d"),
    (HEAD + "topics: {a: {schema: A, key: x, compact: yes}}\n", "CH0102", 3, 42, "the text 'yes'", "true or false"),
    (HEAD + "topics: {a: {schema: A, key: x, dedupe: {}}}\n", "CH0102", 3, 41, "has no 'window'", "window: …"),
    (HEAD + "topics: {a: {schema: A, key: x, dedupe: 10m}}\n", "CH0102", 3, 41, "the text '10m'", "{window: …}"),
    (HEAD + "topics: {a: {schema: A, key: x, compatibility: backward}}\n", "CH0102", 3, 48, "backward", "BACKWARD"),
    (HEAD + "agents: {a: {kind: handler}}\n", "CH0102", 3, 20, "the text 'handler'", "did you mean handlers?"),
    (HEAD + "agents: {a: {reads: x}}\n", "CH0102", 3, 21, "the text 'x'", "write [x]"),
    (HEAD + "agents: {a: {reads: [x, ~]}}\n", "CH0102", 3, 25, "agents.a.reads[1] is nothing", "remove the item"),
    (HEAD + "agents: {a: {limits: {hop: 3}}}\n", "CH0102", 3, 23, "'hop'", "did you mean 'hops'?"),
    (HEAD + "agents: {a: {limits: {merge_wait: 2d}}}\n", "CH0102", 3, 35, "is 2d", "from 0ms to 1h"),
    (HEAD + "agents: {a: {app: 'rm -rf'}}\n", "CH0102", 3, 19, "the text 'rm -rf'", "agents.tracker"),
    (HEAD + "tools: {a: {effect: maybe}}\n", "CH0102", 3, 21, "the text 'maybe'", "pure, read"),
    (HEAD + "models: {a: {provider: x, budget: {usd: cheap}}}\n", "CH0102", 3, 41, "not a number", "digits"),
    (HEAD + "cluster: {bootstrap: localhost}\n", "CH0102", 3, 22, "'localhost'", "localhost:9092"),
    (
        HEAD + "cluster: {schema_registry: ftp://x}\n",
        "CH0102",
        3,
        28,
        "the value of cluster.schema_registry",
        "not shown",
    ),
    (HEAD + "cluster: {security: {acks: '0'}}\n", "CH0102", 3, 22, "'acks'", "exactly-once"),
    (HEAD + "owner: ${NOBODY}\n", "CH0105", 3, 8, "NOBODY is not set", "${NOBODY:-…}"),
    (HEAD + "owner: ${NO BODY}\n", "CH0105", 3, 8, "'${NO BODY}' is not a variable", "$${"),
    (HEAD + "owner: x${}\n", "CH0105", 3, 8, "'${}' is not a variable", "${NAME}"),
]


@pytest.mark.parametrize(("text", "code", "line", "column", "message", "advice"), BAD, ids=range(len(BAD)))
def test_mistake_has_code_place_and_advice(
    text: str, code: str, line: int, column: int, message: str, advice: str
) -> None:
    parsed = parse(text, "x.yaml", env={})
    assert parsed.topology is None
    found = parsed.problems[0]
    assert (found.code, found.severity, found.position.file) == (code, "error", "x.yaml")
    assert (found.position.line, found.position.column) == (line, column), str(found)
    assert message in found.message
    assert advice in f"{found.expected} | {found.hint}"
    assert found.code in CATALOGUE
    assert "\n" not in str(found)


def test_all_problems_are_reported_in_the_order_of_the_file() -> None:
    text = """choreo: 1
topology: t
owner: 5
topics:
  a: {schem: A, key: x, partitions: many}
agents:
  b: {reads: a, kind: handler, limits: {hops: 0, hop: 1}}
  b: {}
nonsense: true
"""
    found = [(one.position.line, one.message.split(";")[0]) for one in parse(text, "x.yaml").problems]
    assert found == [
        (3, "owner is the number 5"),
        (5, "topics.a has no 'schema'"),
        (5, "topics.a has the unknown field 'schem'"),
        (5, "topics.a.partitions is the text 'many'"),
        (7, "agents.b.reads is the text 'a'"),
        (7, "agents.b.kind is the text 'handler'"),
        (7, "agents.b.limits.hops is 0"),
        (7, "agents.b.limits has the unknown field 'hop'"),
        (8, "the key 'b' occurs twice"),
        (9, "the file has the unknown field 'nonsense'"),
    ]


def test_huge_file_is_refused_before_it_is_read() -> None:
    found = parse("a" * (FILE_CHARS_MAX + 1), "x.yaml").problems
    assert [one.code for one in found] == ["CH0101"]
    assert "characters" in found[0].message


def test_billion_laughs_stop_at_the_bound() -> None:
    lines = ["choreo: 1", "a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    found = parse("\n".join(lines), "x.yaml").problems
    assert [one.code for one in found] == ["CH0101"]
    assert "values" in found[0].message


def test_problems_are_bounded() -> None:
    text = HEAD + "agents:\n" + "".join(f"  a{n}: {{kind: nothing}}\n" for n in range(PROBLEMS_MAX * 3))
    found = parse(text, "x.yaml").problems
    assert len(found) == PROBLEMS_MAX + 1
    assert any("the rest is not shown" in one.message for one in found)


def test_secrets_are_never_shown() -> None:
    for text in (
        "cluster: {security: hunter2}",
        "cluster: {security: [hunter2]}",
        "cluster: {schema_registry: 'htp://me:hunter2@x'}",
        "cluster: {security: {sasl.password: [hunter2]}}",
        "cluster: {security: {hunter: hunter2}}",
        "cluster: {security: {sasl.password: 'hunter2${'}}",
    ):
        parsed = parse(HEAD + text, "x.yaml", env={"P": "hunter2"})
        assert "hunter2" not in " ".join(str(one) for one in parsed.problems), text
    good = parse(HEAD + "cluster: {security: {sasl.password: '${P}'}}", "x.yaml", env={"P": "hunter2"})
    assert good.topology is not None
    assert good.topology.cluster.security == {"sasl.password": "hunter2"}
    assert "hunter2" not in repr(good.topology)
