"""The ledger is what faults are judged by: what it answered is on disk, each call counts, repetitions are seen."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from demos.bank_ledger import BODY_BYTES_MAX, Journal

ROOT = Path(__file__).parents[2]


@contextmanager
def running(file: Path, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A ledger process; its ``host:port``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demos.bank_ledger", "--file", str(file), "--port", "0", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip().removeprefix("http://")
        assert address, "the ledger printed no address"
        yield address, process
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


def ask(address: str, method: str, path: str, *, key: str | None = None, body: object = None) -> tuple[int, object]:
    """(status, answer) of one request."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        headers = {} if key is None else {"Idempotency-Key": key}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        is_json = "json" in (answer.getheader("content-type") or "")
        return answer.status, json.loads(text) if is_json else text
    finally:
        connection.close()


def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    with running(file) as (address, process):
        for number in range(20):
            assert ask(address, "GET", f"/accounts/A{number}/standing", key=f"T{number}") == (200, {"standing": "good"})
        process.kill()
    journal = Journal(file)
    assert [(call.number, call.key, call.kind) for call in journal.calls()] == [
        (number + 1, f"T{number}", "read") for number in range(20)
    ]
    journal.close()


def test_a_repeated_key_is_recorded_again_and_counted(tmp_path: Path) -> None:
    with running(tmp_path / "ledger.sqlite") as (address, _):
        first = ask(address, "POST", "/operations/withdraw", key="K", body={"account": "A", "cents": 5})
        again = ask(address, "POST", "/operations/withdraw", key="K", body={"cents": 5, "account": "A"})
        other = ask(address, "POST", "/operations/deposit", key="K", body={"account": "B", "cents": 5})
        assert [first[1], again[1], other[1]] == [
            {"number": 1, "times": 1},
            {"number": 2, "times": 2},
            {"number": 3, "times": 1},
        ]
        status, calls = ask(address, "GET", "/calls?after=1")
        assert status == 200
        assert isinstance(calls, list)
        assert [(call["operation"], call["times"], call["arguments"]) for call in calls] == [
            ("withdraw", 2, '{"account":"A","cents":5}'),
            ("deposit", 1, '{"account":"B","cents":5}'),
        ]


def test_concurrent_calls_are_each_recorded_once(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    with running(file) as (address, process), ThreadPoolExecutor(16) as pool:
        paths = [f"/accounts/A{number % 7}/standing" for number in range(200)]
        answers = list(pool.map(lambda n: ask(address, "GET", paths[n], key=f"T{n}")[0], range(200)))
        assert answers == [200] * 200
        process.terminate()
        assert process.wait(30) == 0
    journal = Journal(file)
    calls = journal.calls()
    journal.close()
    assert [call.number for call in calls] == list(range(1, 201))
    assert sorted(call.key for call in calls) == sorted(f"T{number}" for number in range(200))


def test_a_blocked_account_is_said_to_be_blocked(tmp_path: Path) -> None:
    with running(tmp_path / "ledger.sqlite", "--blocked", "X") as (address, _):
        assert ask(address, "GET", "/accounts/X/standing", key="T") == (200, {"standing": "blocked"})
        assert ask(address, "GET", "/accounts/Y/standing", key="T") == (200, {"standing": "good"})


def test_a_slow_account_waits_alone(tmp_path: Path) -> None:
    """Its answer is still out when another account's, asked later, has come."""
    with ThreadPoolExecutor(1) as pool, running(tmp_path / "ledger.sqlite") as (address, _):
        assert ask(address, "PUT", "/slow", body={"S": 600})[0] == 200
        slow = pool.submit(ask, address, "GET", "/accounts/S/standing", key="T1")
        while not ask(address, "GET", "/calls")[1]:
            assert not slow.done()
        assert ask(address, "GET", "/accounts/A/standing", key="T2") == (200, {"standing": "good"})
        assert not slow.done()  # it ends when the ledger does


@pytest.mark.parametrize(
    ("method", "path", "key", "body"),
    [
        ("GET", "/accounts/A/standing", None, None),
        ("POST", "/operations/withdraw", None, {}),
        ("POST", "/operations/withdraw", "K", [1]),
        ("PUT", "/slow", None, {"A": -1}),
        ("PUT", "/slow", None, {"A": 10_000}),
        ("POST", "/operations/withdraw", "K", {"x": "x" * BODY_BYTES_MAX}),
    ],
)
def test_bad_calls_are_refused_and_not_recorded(
    tmp_path: Path, method: str, path: str, key: str | None, body: object
) -> None:
    with running(tmp_path / "ledger.sqlite") as (address, _):
        assert 400 <= ask(address, method, path, key=key, body=body)[0] < 500
        assert ask(address, "GET", "/calls") == (200, [])
