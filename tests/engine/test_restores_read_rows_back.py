"""Rows come back from a changelog as they were stored, and the group's offsets are waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from choreo.errors import HostError
from choreo.kernel.envelope import row_provenance
from choreo.kernel.packed import pack, unpack
from choreo.runtime import group_look, restore
from choreo.runtime.barrier import Mark
from choreo.runtime.group_look import Group, Member
from choreo.runtime.group_offsets import GroupOffsets
from choreo.runtime.records import InternalRecords
from choreo.runtime.restore import Restorer
from tests.engine.restoring import idle_restorer

Header = tuple[str, bytes | None]


class Row:
    def __init__(self, key: str, value: bytes | None, headers: list[Header] | None) -> None:
        self._key, self._value, self._headers = key.encode(), value, headers

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[Header] | None:
        return self._headers


@pytest.mark.parametrize(
    "headers",
    [
        None,
        [],
        [("traceparent", b"00-1-2-00")],
        [("ce_causationid", b"0123456789abcdef" * 2), ("ce_correlationid", b"other")],
        [("ce_correlationid", b"other"), ("ce_causationid", b"a")],
        [("ce_causationid", b"an id, from outside: /1/2"), ("ce_causationid", b"second")],
        [("ce_causationid", "ключ".encode())],
        [("ce_causationid", b"\xff\xfe")],
        [("ce_causationid", b"line\nbreak")],
        [("ce_causationid", b"")],
        [("ce_causationid", None)],
        [("ce_causationid", b"x" * 255)],
        [("ce_causationid", b"x" * 256)],
        [("ce_causationid", b"x" * 257)],
    ],
)
def test_row_is_stored_with_the_id_of_the_event_that_shaped_it(headers: list[Header] | None) -> None:
    read = InternalRecords().packed_rows([Row("k", b"value", headers)])
    present = [(name, value) for name, value in headers or () if value is not None]
    assert read == [("k", pack(row_provenance(present) or "", b"value"))]
    packed = read[0][1]
    assert packed is not None and unpack(packed)[1] == b"value"


def test_tombstone_deletes_and_rows_keep_their_order() -> None:
    rows = [Row("ключ", b"1", None), Row("k", None, []), Row("ключ", b"2", None)]
    assert InternalRecords().packed_rows(rows) == [("ключ", b"\x001"), ("k", None), ("ключ", b"\x002")]


PLACES = [TopicPartition("in", 0), TopicPartition("in", 1)]
MARK = Mark([TopicPartition("j", 0)], "mark")


class Coordinator(GroupOffsets):
    """Answers in turn: the code of an error, or offsets. No connection is ever made."""

    def __init__(self, *codes: int | None, gives_up: bool = False, behind: int = 0) -> None:
        self.codes = list(codes)
        self.behind = behind  # answers without the mark
        self._bootstrap = "127.0.0.1:1"
        self._wait = lambda _: gives_up

    def _committed(self, places: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        code = self.codes.pop(0)
        if code is not None:
            raise KafkaException(KafkaError(code))
        self.behind -= 1
        mark = "of another restore" if self.behind >= 0 else "mark"
        return [
            TopicPartition(place.topic, place.partition, 0, mark) if place.topic == "j" else place for place in places
        ]

    def close(self) -> None: ...


@pytest.fixture
def restorer(tmp_path: Path) -> Iterator[Restorer]:
    made = idle_restorer(tmp_path)
    yield made
    made.stop()


def test_coordinator_that_moves_is_asked_again() -> None:
    moving = Coordinator(KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, None)
    assert moving.ask(PLACES, 0.5) == PLACES
    assert moving.codes == []


def test_whoever_gives_up_meanwhile_gets_no_answer() -> None:
    assert Coordinator(KafkaError.NOT_COORDINATOR, gives_up=True).ask(PLACES, 0.5) is None


def test_other_answers_of_the_coordinator_end_the_session() -> None:
    with pytest.raises(HostError) as caught:
        Coordinator(KafkaError.GROUP_AUTHORIZATION_FAILED).ask(PLACES, 0.5)
    assert caught.value.code == "CH0801"


@pytest.fixture
def ended(restorer: Restorer, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Owners whose transactions were ended."""
    seen: list[set[str]] = []
    monkeypatch.setattr(restorer, "_end_transactions", lambda owners: seen.append(owners) or True)
    monkeypatch.setattr(restorer, "_owners_of", lambda found: {"g.w1"})
    return seen


def _asks(monkeypatch: pytest.MonkeyPatch, restorer: Restorer, stable: Coordinator, unstable: Coordinator) -> None:
    clients = {True: stable, False: unstable}
    monkeypatch.setattr(restorer, "_group_client", lambda *, stable: clients[stable])


def test_offsets_that_stay_unstable_end_the_transaction_of_their_owner(
    restorer: Restorer, ended: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = KafkaError._TIMED_OUT
    _asks(monkeypatch, restorer, Coordinator(late, late, late, None), Coordinator(None))
    assert restorer._stable_offsets(PLACES, MARK, lambda: True) == PLACES
    assert ended == [{"g.w1"}]


def test_one_slow_answer_ends_nobodys_transaction(
    restorer: Restorer, ended: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _asks(monkeypatch, restorer, Coordinator(KafkaError._TIMED_OUT, None), Coordinator(None))
    assert restorer._stable_offsets(PLACES, MARK, lambda: True) == PLACES
    assert ended == []


def test_answers_of_a_coordinator_that_is_behind_do_not_count(
    restorer: Restorer, ended: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(None, None, None, behind=2)
    _asks(monkeypatch, restorer, coordinator, Coordinator())
    assert restorer._stable_offsets(PLACES, MARK, lambda: True) == PLACES
    assert coordinator.codes == []
    assert ended == []


def test_cluster_that_does_not_answer_ends_the_session(
    restorer: Restorer, ended: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = KafkaError._TIMED_OUT
    _asks(monkeypatch, restorer, Coordinator(late), Coordinator(late))
    with pytest.raises(HostError) as caught:
        restorer._stable_offsets(PLACES, MARK, lambda: True)
    assert caught.value.code == "CH0801"
    assert ended == []


class Groups:
    """Says who is in the group, or nothing at first."""

    def __init__(self, *members: str, refuses: int = 0) -> None:
        self.members, self.refuses = members, refuses

    def look(self, group: str, timeout_s: float) -> Group:
        if self.refuses:
            self.refuses -= 1
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return Group("stable", tuple(Member(f"{name}-id", name, b"") for name in self.members))


class Fencing:
    """A producer that only makes older ones of its id useless."""

    fenced: ClassVar[list[str]] = []

    def __init__(self, settings: dict[str, Any]) -> None:
        self._id = settings["transactional.id"]

    def init_transactions(self, timeout_s: float) -> None:
        self.fenced.append(self._id)


def test_only_owners_that_the_group_does_not_know_are_fenced_and_not_before_it_said_so(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "Producer", Fencing)
    monkeypatch.setattr(Fencing, "fenced", [])
    monkeypatch.setattr(restorer, "_groups", Groups("w0", "w2", refuses=1))
    owners = {"", "g.w0", "g.w1", "g.w2"}
    assert restorer._end_transactions(owners) is False
    assert Fencing.fenced == []
    assert restorer._end_transactions(owners) is True
    assert Fencing.fenced == ["g.w1"]


def test_a_group_that_does_not_know_this_worker_says_nothing_about_others(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "Producer", Fencing)
    monkeypatch.setattr(Fencing, "fenced", [])
    monkeypatch.setattr(restorer, "_groups", Groups())
    assert restorer._end_transactions({"g.w1"}) is False
    assert Fencing.fenced == []


def test_an_error_about_a_group_is_no_group_without_members(monkeypatch: pytest.MonkeyPatch) -> None:
    error = KafkaError(KafkaError.NOT_COORDINATOR)
    client = SimpleNamespace(list_groups=lambda group, timeout_s: [SimpleNamespace(error=error, state="", members=[])])
    monkeypatch.setattr(group_look, "AdminClient", lambda settings: client)
    with pytest.raises(KafkaException):
        group_look.GroupLook("127.0.0.1:1", {}).look("g", 1.0)
