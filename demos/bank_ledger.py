"""The bank's core ledger: a process of its own that records every call it gets before it answers.

    python -m demos.bank_ledger --file ledger.sqlite --port 8600

It plays the outside world in the fault tests: workers are killed, this process never is. What stands in its file was
asked for, whatever the worker that asked knows of it. Calls carry the key under which the caller would repeat them
(``Idempotency-Key``); the file tells first calls from repetitions.

| request | answer |
|---|---|
| ``GET /accounts/{account}/standing`` | ``{"standing": "good"}``, or ``blocked`` |
| ``POST /operations/{operation}``, JSON body | ``{"number", "times"}``: the call's place, how often its key was seen |
| ``PUT /slow``, ``{account: seconds}`` | from now on, questions about these accounts take so long |
| ``GET /calls?after=N`` | what was recorded after call N |

Theory of operation: calls of all connections gather in a queue; one task writes whatever is there as one SQLite
transaction with ``synchronous=FULL`` and wakes those who wait for it. So each answer follows the fsync of its own
record, and a hundred calls at once cost one fsync.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import web

KEY_HEADER: Final = "Idempotency-Key"
BODY_BYTES_MAX: Final = 64 * 1024
"""Of an operation's arguments; a bank's are some hundred bytes."""
WAITING_MAX: Final = 10_000
"""Calls that wait to be written; beyond, the ledger answers 503 and has recorded nothing."""
SLOW_S_MAX: Final = 600.0
PAGE_MAX: Final = 10_000

_TABLE: Final = """
create table if not exists calls (
    number integer primary key,
    at_ms integer not null,
    kind text not null,
    operation text not null,
    account text not null,
    key text not null,
    arguments text not null,
    times integer not null
) strict
"""


class Call(NamedTuple):
    """One recorded call.

    Args:
        number: place in the ledger, from 1 without gaps.
        at_ms: wall time when it came, milliseconds since 1970.
        kind: ``read`` or ``effect``.
        operation: what was asked for.
        account: about which account; "" if the operation names none.
        key: the caller's key; repetitions of one call share it.
        arguments: of an effect, as canonical JSON.
        times: how often this key had been seen for this operation, this call included.
    """

    number: int
    at_ms: int
    kind: str
    operation: str
    account: str
    key: str
    arguments: str
    times: int


class Journal:
    """The calls on disk. One thread at a time may write, another may read: each has a connection of its own."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._database.execute("pragma journal_mode=wal")
        self._database.execute("pragma synchronous=full")  # each commit is on disk before it returns
        self._database.execute(_TABLE)
        self._database.execute("create index if not exists calls_by_key on calls (key, operation)")
        self._reader = sqlite3.connect(file, isolation_level=None)

    def record(self, calls: list[tuple[int, str, str, str, str, str]]) -> list[Call]:
        """Writes calls (all fields but number and times) in one transaction; durable on return."""
        recorded = []
        self._database.execute("begin immediate")
        for at_ms, kind, operation, account, key, arguments in calls:
            (seen,) = self._database.execute(
                "select count(*) from calls where key = ? and operation = ?", (key, operation)
            ).fetchone()
            inserted = self._database.execute(
                "insert into calls (at_ms, kind, operation, account, key, arguments, times) values (?,?,?,?,?,?,?)",
                (at_ms, kind, operation, account, key, arguments, seen + 1),
            )
            number = inserted.lastrowid
            assert number is not None
            recorded.append(Call(number, at_ms, kind, operation, account, key, arguments, seen + 1))
        self._database.execute("commit")
        return recorded

    def calls(self, after: int = 0, limit: int = -1) -> list[Call]:
        """Recorded calls in their order, from the one behind ``after`` on."""
        rows = self._reader.execute("select * from calls where number > ? order by number limit ?", (after, limit))
        return [Call(*row) for row in rows]

    def close(self) -> None:
        self._reader.close()
        self._database.close()


class Ledger:
    """The HTTP side: takes calls, has them recorded, answers."""

    def __init__(self, journal: Journal, blocked: frozenset[str] = frozenset()) -> None:
        self._journal = journal
        self._blocked = blocked
        self._slow: dict[str, float] = {}
        self._waiting: asyncio.Queue[tuple[tuple[int, str, str, str, str, str], asyncio.Future[Call]]] = asyncio.Queue(
            WAITING_MAX
        )

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/accounts/{account}/standing", self._standing)
        app.router.add_post("/operations/{operation}", self._operation)
        app.router.add_put("/slow", self._set_slow)
        app.router.add_get("/calls", self._calls)
        app.cleanup_ctx.append(self._writing)
        return app

    async def _standing(self, request: web.Request) -> web.Response:
        account = request.match_info["account"]
        await self._record("read", "standing", account, self._key(request), "")
        await asyncio.sleep(self._slow.get(account, 0.0))
        return web.json_response({"standing": "blocked" if account in self._blocked else "good"})

    async def _operation(self, request: web.Request) -> web.Response:
        try:
            arguments = await request.json()
        except json.JSONDecodeError:
            raise web.HTTPBadRequest(text="the body of an operation is JSON") from None
        if not isinstance(arguments, dict):
            raise web.HTTPBadRequest(text="the arguments of an operation are an object")
        canonical = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
        account = str(arguments.get("account", ""))
        call = await self._record("effect", request.match_info["operation"], account, self._key(request), canonical)
        await asyncio.sleep(self._slow.get(account, 0.0))
        return web.json_response({"number": call.number, "times": call.times})

    async def _set_slow(self, request: web.Request) -> web.Response:
        wanted = {str(account): float(seconds) for account, seconds in (await request.json()).items()}
        if not all(0 <= seconds <= SLOW_S_MAX for seconds in wanted.values()):
            raise web.HTTPBadRequest(text=f"seconds lie between 0 and {SLOW_S_MAX:g}")
        self._slow = wanted
        return web.json_response({"slow": len(wanted)})

    async def _calls(self, request: web.Request) -> web.Response:
        after = int(request.query.get("after", "0"))
        return web.json_response([call._asdict() for call in self._journal.calls(after, PAGE_MAX)])

    @staticmethod
    def _key(request: web.Request) -> str:
        key = request.headers.get(KEY_HEADER, "")
        if not key:
            raise web.HTTPBadRequest(text=f"every call names its {KEY_HEADER}")
        return key

    async def _record(self, kind: str, operation: str, account: str, key: str, arguments: str) -> Call:
        """Returns once the call is on disk."""
        done: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait(((time.time_ns() // 1_000_000, kind, operation, account, key, arguments), done))
        except asyncio.QueueFull:
            raise web.HTTPServiceUnavailable(text="too many calls wait to be recorded") from None
        return await asyncio.shield(done)  # a caller that hangs up does not take its call back

    async def _writing(self, _: web.Application) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(self._write(), name="ledger-writer")
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _write(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            recorded = await asyncio.to_thread(self._journal.record, [call for call, _ in batch])
            for (_, done), call in zip(batch, recorded, strict=True):
                if not done.cancelled():
                    done.set_result(call)


async def serve(file: Path, port: int, blocked: frozenset[str]) -> None:
    """Serves until SIGTERM or SIGINT; prints its address as the first line of standard output."""
    journal = Journal(file)
    runner = web.AppRunner(Ledger(journal, blocked).app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    (address,) = runner.addresses
    print(f"http://127.0.0.1:{address[1]}", flush=True)  # noqa: T201 - how a caller that said port 0 learns the port
    await stopped.wait()
    await runner.cleanup()
    journal.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="The bank's core ledger.")
    parser.add_argument("--file", type=Path, default=Path("ledger.sqlite"), help="SQLite file with all calls")
    parser.add_argument("--port", type=int, default=8600, help="on 127.0.0.1; 0 for a free one")
    parser.add_argument("--blocked", action="append", default=[], help="account that is blocked; repeatable")
    options = parser.parse_args()
    asyncio.run(serve(options.file, options.port, frozenset(options.blocked)))


if __name__ == "__main__":
    main()
