"""Ids are the same on every run and in every language; keys go where Java's client would send them."""

from __future__ import annotations

import hashlib
import json

import aiokafka.partitioner
import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.kernel.ids import Identity, event_id, root_id, timer_id, trace_id
from choreo.kernel.partitioner import murmur2, murmur2_partition

# Kafka's own UtilsTest.testMurmur2
JAVA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "expected"), JAVA_VECTORS.items())
def test_murmur2_is_javas(key: bytes, expected: int) -> None:
    unsigned = murmur2(key)
    assert (unsigned - 2**32 if unsigned >= 2**31 else unsigned) == expected
    assert murmur2_partition(key, 8) == (expected & 0x7FFFFFFF) % 8


@given(st.binary(max_size=64), st.integers(1, 1000))
def test_partition_agrees_with_an_independent_client(key: bytes, partitions: int) -> None:
    assert murmur2_partition(key, partitions) == (aiokafka.partitioner.murmur2(key) & 0x7FFFFFFF) % partitions


@given(st.text(), st.text(), st.text(), st.integers(0, 10**6))
def test_event_id_is_the_documented_digest(topology: str, agent: str, parent: str, n: int) -> None:
    array = json.dumps([topology, agent, parent, n], ensure_ascii=False, separators=(",", ":"))
    assert event_id(topology, agent, parent, n) == hashlib.sha256(array.encode()).hexdigest()[:32]


@given(st.text(), st.text(), st.text())
def test_a_steps_span_and_first_event_come_from_one_digest(topology: str, agent: str, parent: str) -> None:
    array = json.dumps([topology, agent, parent, 0], ensure_ascii=False, separators=(",", ":"))
    digest = hashlib.sha256(array.encode()).hexdigest()
    identity = Identity(topology, agent)
    assert identity.step_ids(parent) == (event_id(topology, agent, parent, 0), digest[48:])
    assert identity.span_id(parent) == digest[48:]


def test_event_id_never_changes() -> None:
    assert event_id("logistics", "aircraft_tracker", "a" * 32, 0) == "85360a6ca634142fb193fb470eabc84a"
    assert root_id("cluster", "topic", 3, 17) == hashlib.sha256(b'["cluster","topic",3,17]').hexdigest()[:32]


def test_ids_of_different_kinds_never_collide() -> None:
    parent = "p"
    ids = {
        event_id("t", "a", parent, 0),
        event_id("t", "a", parent, 1),
        event_id("t", "b", parent, 0),
        timer_id("t", "a", parent, "0"),
        timer_id("t", "a", parent, "step"),
        root_id("t", "a", 0, 0),
        root_id("t", "a", 0, 1),
    }
    assert len(ids) == 7
    assert len(Identity("t", "a").span_id(parent)) == 16


def test_a_root_id_is_its_own_trace_id() -> None:
    root = root_id("c", "t", 0, 0)
    assert trace_id(root) == root
    assert trace_id("0" * 32) != "0" * 32
    assert trace_id("A" * 32) != "A" * 32
    assert len(trace_id("order 17")) == 32
