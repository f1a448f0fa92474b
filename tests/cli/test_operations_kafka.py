"""A project from `choreo new`, run by `choreo run` on a real Kafka, and every operation an operator has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

pytestmark = pytest.mark.kafka
WAIT_S = 40.0

# The template's second agent, with a look at a reference table, and with customers that need a person until the file
# "fixed" exists.
HOST = """\
from pathlib import Path

import choreo
from schemas import Level, Member, PerkGranted, SpendingGrew

app = choreo.App("topologies/coffee_shop.yaml", agent="host")


@app.on(SpendingGrew)
async def grant(event: SpendingGrew, ctx: choreo.Context) -> None:
    if not Path("fixed").exists():
        if event.customer.startswith("stuck"):
            ctx.park("nobody knows this customer")
        if event.customer.startswith("broken"):
            raise ValueError("cannot compute")
    level = ctx.lookup(Level, "silver")
    member = ctx.row(Member)
    if level is not None and event.spent_cents >= level.from_cents and not member.has_perk:
        member.has_perk = True
        ctx.emit(PerkGranted(customer=event.customer, spent_cents=event.spent_cents))
"""
LEVEL = """{"type": "record", "name": "Level", "namespace": "coffee_shop", "fields": [
{"name": "level", "type": "string"}, {"name": "from_cents", "type": "long"}]}"""


class Shop:
    """The project and the commands run in it."""

    def __init__(self, root: Path, bootstrap: str) -> None:
        self.root = root
        self.bootstrap = bootstrap
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CHOREO_")}
        self.environment = {**kept, "CHOREO_BROKERS": bootstrap, "PYTHONUNBUFFERED": "1"}

    def command(self, *arguments: str, stdin: str = "", exit_code: int = 0) -> list[Any]:
        """Run a command with --json; the JSON values it prints."""
        shown = subprocess.run(
            [sys.executable, "-c", "from choreo.cli._main import main; main()", *arguments, "--json"],
            cwd=self.root,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert shown.returncode == exit_code, shown.stdout + shown.stderr
        assert "Traceback" not in shown.stderr
        return [json.loads(line) for line in shown.stdout.splitlines()]

    def eventually(self, *arguments: str, until: Callable[[list[Any]], Any]) -> list[Any]:
        """Repeat a command until its answer is as wanted."""
        deadline = time.monotonic() + WAIT_S
        while True:
            answer = self.command(*arguments)
            if until(answer):
                return answer
            assert time.monotonic() < deadline, f"waited in vain: {arguments} says {answer}"
            time.sleep(0.2)

    def send(self, *orders: tuple[str, int]) -> None:
        lines = [json.dumps({"customer": customer, "amount_cents": cents}) for customer, cents in orders]
        assert self.command("send", "orders", stdin="\n".join(lines))[0]["sent"] == len(orders)

    def rows(self, table: str) -> dict[str, Any]:
        return {row["key"]: row["row"] for row in self.command("rows", table)}


class Running:
    """`choreo run` as a process; its events and lines."""

    def __init__(self, shop: Shop, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from choreo.cli._main import main; main()", "run", "--json", *arguments],
            cwd=shop.root,
            env=shop.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            self.lines.extend(output)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(10)
        return code


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The project, adapted, on a broker of its own: names in it are those of every `choreo new` project."""
    from choreo.testing.broker import broker_for_tests

    parent = tmp_path_factory.mktemp("operations")
    with broker_for_tests() as broker:
        shop = Shop(parent, broker.bootstrap)
        shop.command("new", "coffee-shop")
        shop.root = parent / "coffee-shop"
        (shop.root / "schemas/Level.avsc").write_text(LEVEL)
        (shop.root / "agents/host.py").write_text(HOST)
        file = shop.root / "topologies/coffee_shop.yaml"
        text = file.read_text()
        text = text.replace(
            "agents:\n  book", "  levels:   {schema: Level, key: level, reference: true}\n\nagents:\n  book"
        )
        file.write_text(text.replace("tables: [members]", "tables: [members, levels]"))
        shop.command("schemas", "generate")
        yield shop


def test_operations(shop: Shop) -> None:
    """One story, in order, because each step needs what the one before left."""
    # nothing runs, nothing is applied
    assert shop.command("status")[0]["agents"][0]["missing"] == ["orders", "spending"]
    assert (
        shop.command("send", "orders", stdin='{"customer": "ada", "amount_cents": 1}', exit_code=1)[0]["error"]["code"]
        == "CH0205"
    )

    running = Running(shop, "--apply", "--scale", "bookkeeper=2")
    try:
        status = shop.eventually("status", until=lambda a: len(a[0]["workers"]) == 3 and all_ready(a[0]))[0]
        assert {view["agent"]: len(view["members"]) for view in status["agents"]} == {"bookkeeper": 2, "host": 1}

        load_reference_rows(shop)
        shop.send(("ada", 4_000), ("ada", 7_000), ("bob", 100), ("stuck-eve", 20_000), ("broken-tom", 20_000))
        shop.eventually("rows", "accounts", until=lambda rows: len(rows) == 4)
        assert shop.rows("accounts")["ada"] == {"customer": "ada", "orders": 2, "spent_cents": 11_000}
        shop.eventually("rows", "members", "ada", until=lambda rows: rows[0]["row"]["has_perk"])
        shop.command("rows", "members", "nobody", exit_code=1)

        kill_a_worker(shop)
        settle_parked_events(shop)
        settle_dead_letters(shop)

        error = shop.command("agent", "reset", "host", "--yes", exit_code=1)[0]["error"]
        assert error["code"] == "CH0809" and "is at work" in error["message"]
    finally:
        code = running.stop()
    assert code == 0, "".join(running.lines[-40:])
    events = [json.loads(line) for line in running.lines]
    assert any(one.get("event", "").startswith("was ended by signal 9; starting again") for one in events)
    tracebacks = [index for index, one in enumerate(events) if "Traceback" in one.get("line", "")]
    assert not tracebacks, "\n".join(str(one) for one in events[tracebacks[0] - 5 : tracebacks[0] + 30])
    assert shop.eventually("status", until=lambda a: not any(view["members"] for view in a[0]["agents"]))

    reset_and_run_again(shop)


def all_ready(status: dict[str, Any]) -> bool:
    return all(worker["ready"] for worker in status["workers"])


def load_reference_rows(shop: Shop) -> None:
    (shop.root / "levels.csv").write_text("level,from_cents\nsilver,10000\ngold,50000\n")
    assert shop.command("load", "levels", "levels.csv")[0]["rows"] == 2
    answer = shop.command("load", "levels", "-", "--replace", stdin='[{"level": "silver", "from_cents": 9000}]')[0]
    assert (answer["rows"], answer["deleted"]) == (1, 1)
    assert shop.rows("levels") == {"silver": {"level": "silver", "from_cents": 9_000}}
    error = shop.command("load", "levels", "-", stdin='[{"level": "x", "from_cents": "much"}]', exit_code=1)[0]["error"]
    assert error["code"] == "CH0204" and "from_cents" in error["message"]
    error = shop.command("load", "accounts", "levels.csv", exit_code=1)[0]["error"]
    assert error["code"] == "CH0103"


def kill_a_worker(shop: Shop) -> None:
    before = shop.command("status")[0]["workers"]
    victim = next(worker for worker in before if worker["agent"] == "host")
    os.kill(victim["pid"], signal.SIGKILL)
    shop.eventually(
        "status",
        until=lambda a: (
            all_ready(a[0]) and any(one["agent"] == "host" and one["pid"] != victim["pid"] for one in a[0]["workers"])
        ),
    )


def settle_parked_events(shop: Shop) -> None:
    parked = shop.eventually("parked", "list", "host", until=len)
    assert [(one["entity"], one["reason"]) for one in parked] == [("stuck-eve", "nobody knows this customer")]
    shop.send(("stuck-eve", 1))  # queues behind
    shop.eventually("parked", "list", until=lambda rows: len(rows) == 2)
    shown = shop.command("parked", "show", "host", "stuck-eve")
    assert [one["event"]["spent_cents"] for one in shown] == [20_000, 20_001]
    shop.command("parked", "drop", "host", "stuck-eve", str(shown[1]["number"]), "--reason", "a test")
    shop.eventually("parked", "list", until=lambda rows: len(rows) == 1)
    (shop.root / "fixed").touch()
    shop.command("parked", "retry", "host", "stuck-eve", "--reason", "known by now")
    shop.eventually("parked", "list", until=lambda rows: not rows)
    shop.eventually("rows", "members", until=lambda rows: any(one["key"] == "stuck-eve" for one in rows))
    assert shop.command("parked", "retry", "host", "stuck-eve", exit_code=1)[0]["error"]["code"] == "CH0809"


def settle_dead_letters(shop: Shop) -> None:
    letters = shop.eventually("dead-letters", "list", "host", until=lambda found: len(found) == 2)
    by_entity = {letter["entity"]: letter for letter in letters}
    assert by_entity["stuck-eve"]["code"] == "CH0312" and "a test" in by_entity["stuck-eve"]["message"]
    broken = by_entity["broken-tom"]
    assert broken["code"] == "CH0303" and "cannot compute" in broken["message"]
    shown = shop.command("dead-letters", "show", "host", broken["id"])[0]
    assert shown["event"] == {"customer": "broken-tom", "spent_cents": 20_000}
    assert shop.command("dead-letters", "redrive", "host", "99/99", exit_code=1)[0]["error"]["code"] == "CH0809"
    shop.command("dead-letters", "redrive", "host", broken["id"], "--reason", "fixed")
    shop.eventually("rows", "members", until=lambda rows: any(one["key"] == "broken-tom" for one in rows))
    after = {one["id"]: one["redriven"] for one in shop.command("dead-letters", "list", "host")}
    assert after[broken["id"]] is True
    # bytes that are no event, and an event without a key: dead letters of the first agent, with the original bytes
    producer = Producer({"bootstrap.servers": shop.bootstrap, "partitioner": "murmur2_random", "acks": "all"})
    producer.produce("orders", b"garbage", b"ada")
    producer.produce("orders", b"garbage", None)
    producer.flush(20)
    letters = shop.eventually("dead-letters", "list", "bookkeeper", until=lambda found: len(found) == 2)
    assert {letter["code"] for letter in letters} == {"CH0201", "CH0206"}
    shown = shop.command("dead-letters", "show", "bookkeeper", letters[0]["id"])[0]
    assert shown["event"] is None and shown["unreadable"] and shown["original"]["value"] == "Z2FyYmFnZQ=="
    answer = shop.command("dead-letters", "redrive", "bookkeeper", "--all", "--code", "CH0206")[0]
    assert (len(answer["redriven"]), len(answer["skipped"])) == (0, 1)


def reset_and_run_again(shop: Shop) -> None:
    """A reset agent begins as a new one: it handles everything again and comes to the same rows."""
    before = shop.rows("accounts")
    answer = shop.command("agent", "reset", "bookkeeper", "--yes")[0]
    assert "coffee-shop.bookkeeper.changelog.accounts" in answer["topics"]
    assert shop.rows("accounts") == {}
    running = Running(shop, "--only", "bookkeeper")
    try:
        shop.eventually("rows", "accounts", until=lambda rows: len(rows) == len(before))
        assert shop.rows("accounts") == before
    finally:
        assert running.stop() == 0, "".join(running.lines[-40:])


def test_a_hopeless_worker_ends_the_run_with_the_reason(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = shop.root / "agents/host.py"
    text = agent.read_text()
    agent.write_text("raise SystemExit(3)\n")
    try:
        running = Running(shop, "--only", "host", "--restarts", "1")
        assert running.process.wait(60) == 1
        running.stop()
    finally:
        agent.write_text(text)
    error = json.loads(next(line for line in reversed(running.lines) if '"error"' in line))["error"]
    assert error["code"] == "CH0808"
    assert "worker host ended 2 times in a row, last with exit code 3" in error["message"]


def test_unreachable_brokers_exit_69(shop: Shop) -> None:
    for arguments in (["status"], ["rows", "accounts"], ["dead-letters", "list"], ["parked", "list"], ["apply"]):
        error = shop.command(*arguments, "--brokers", "127.0.0.1:1", exit_code=69)[0]["error"]
        assert error["code"] == "CH0801"
