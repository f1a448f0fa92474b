"""The pytest plugin costs nothing unless used, and the console consumer's output is read back byte for byte."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from choreo.runtime.broker import KAFKA_VERSION
from choreo.runtime.broker.tools import ConsoleRecord, _bytes, _record
from choreo.testing.broker import NamedCluster, broker_for_tests


def test_plugin_imports_nothing_heavy() -> None:
    script = """
import sys, pytest
before = set(sys.modules)
import choreo.testing.plugin
print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - {'choreo'}))
print([name for name in sys.modules if name.startswith('choreo.')])
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    others, own = (set(re.findall(r"'([^']+)'", line)) for line in done.stdout.splitlines())
    assert others <= set(sys.stdlib_module_names)
    assert own == {"choreo.testing", "choreo.testing.plugin"}


def test_docker_alternative_runs_the_same_release() -> None:
    compose = YAML(typ="safe").load(Path(__file__).parents[2] / "docker-compose.yml")
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


def test_named_cluster_is_used_instead_of_a_broker() -> None:
    with broker_for_tests({"CHOREO_TEST_BROKERS": " kafka-1:9092,kafka-2:9092 "}) as broker:
        assert broker == NamedCluster("kafka-1:9092,kafka-2:9092")


_prefixes: set[str] = set()


@pytest.mark.parametrize("case", ["plain", "Ünïcode / and spaces", "x" * 300])
def test_topic_prefix_is_unique_and_legal(kafka_topic_prefix: str, case: str) -> None:
    assert re.fullmatch(r"[a-z0-9-]{1,100}-", kafka_topic_prefix)
    assert kafka_topic_prefix.startswith("test-topic-prefix-is-unique-and-legal")
    assert kafka_topic_prefix not in _prefixes
    _prefixes.add(kafka_topic_prefix)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", b""),
        ("plain", b"plain"),
        ("\\x00\\x00\\x03\\xE8", b"\x00\x00\x03\xe8"),
        ("\\x5Cx00", b"\\x00"),
        ("null-7", None),
    ],
)
def test_escaped_bytes_are_read_back(text: str, value: bytes | None) -> None:
    assert _bytes(text, "null-7") == value


def test_console_line_is_read_back() -> None:
    line = "CreateTime:17\tPartition:2\tOffset:40\tid:a,b:c\x1enone:null-7\tkey\t\\x00v"
    assert _record(line, "null-7") == ConsoleRecord(
        2, 40, "CreateTime:17", b"key", b"\x00v", (("id", b"a,b:c"), ("none", None))
    )
