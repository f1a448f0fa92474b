"""A TCP proxy between Kafka's clients and a broker that does, on demand, what networks do.

Theory of operation. TCP keeps order, so a network never loses one message out of the middle: once something is lost,
nothing that follows on the same connection arrives either. *Drop* therefore means that this connection goes silent from
that message on, in one direction, without being closed; the client finds out by its own timeout. *Cut* closes both
sides. *Delay* holds a message and all that follow it; a request that is delayed reaches the broker even if its client
has given up meanwhile and left, as packets on their way do. Where a fault hits a response, the broker has carried out
the request: the client cannot know, which is the indefinite error.

A rule fires once, at its n-th matching request. Everything else passes unchanged, byte for byte.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Self

from tests.proxy.frames import Api, NotKafka, Request, correlation_of, framed, parse_request, read_frame

LOOPBACK = "127.0.0.1"
UNANSWERED_MAX = 10_000
"""Requests under way on one connection; librdkafka sends a few, so more means that answers are not understood."""
LATE_ANSWER_S = 10.0
"""How long a connection whose client left is kept for the answer to a delayed request."""
STOP_S = 10.0


class Fault(Enum):
    """What happens to a request or to its response."""

    DROP_REQUEST = "drop request"
    DROP_RESPONSE = "drop response"
    DELAY_REQUEST = "delay request"
    DELAY_RESPONSE = "delay response"
    CUT_BEFORE = "cut before"
    CUT_AFTER = "cut after"


ON_RESPONSE = frozenset({Fault.DROP_RESPONSE, Fault.DELAY_RESPONSE, Fault.CUT_AFTER})


@dataclass(frozen=True)
class Rule:
    """When what happens.

    Args:
        api: which requests.
        fault: what happens to the one that is hit.
        nth: it is the n-th from arming on.
        client: only those of clients with this ``client.id``; "" for all.
        delay_s: how long a delay takes.
    """

    api: Api
    fault: Fault
    nth: int = 1
    client: str = ""
    delay_s: float = 0.0


@dataclass
class Armed:
    """A rule in force. ``fired`` is set once the fault has really happened; for those that hit a response, this means
    that the broker had answered."""

    rule: Rule
    seen: int = 0
    over: bool = False
    fired: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Link:
    """One client's connection and ours to the broker."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    unanswered: deque[tuple[int, Armed | None]] = field(default_factory=deque)
    late: asyncio.Event | None = None  # set when a delayed request was answered

    def cut(self) -> None:
        self.client.transport.abort()
        self.broker.transport.abort()


class Proxy:
    """Listens on a free port of the loopback interface, in a thread of its own. Use as a context manager.

    Args:
        upstream: asked for the broker's port at each connection; None: nobody is there.
        sleep: how a delay waits.
    """

    def __init__(
        self, upstream: Callable[[], int | None], *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by client id and api key
        self.failures: list[BaseException] = []
        self._upstream = upstream
        self._sleep = sleep
        self._armed: list[Armed] = []
        self._guard = threading.Lock()  # around `_armed` and what the rules have seen
        self._socket = socket.create_server((LOOPBACK, 0))
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._links: set[asyncio.Task[None]] = set()

    def arm(self, rule: Rule) -> Armed:
        """Puts a rule in force. It is over once it has fired, or with ``disarm``."""
        armed = Armed(rule)
        with self._guard:
            self._armed.append(armed)
        return armed

    def disarm(self, armed: Armed) -> None:
        """Takes a rule out of force that may not have fired."""
        with self._guard:
            armed.over = True
            self._armed = [one for one in self._armed if one is not armed]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_S)
        if error is None and self.failures:
            raise self.failures[0]

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._socket)
        await self._stop.wait()
        server.close()
        await asyncio.sleep(0)  # what was accepted by now begins
        await asyncio.gather(*self._links)
        await asyncio.sleep(0)  # and aborted transports close

    def _accept(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(client_reader, client))
        self._links.add(task)
        task.add_done_callback(self._links.discard)
        task.add_done_callback(lambda _: client.transport.abort())

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            port = self._upstream()
            if port is None:
                return
            broker_reader, broker = await asyncio.open_connection(LOOPBACK, port)
        except OSError:  # the broker is away: so is what the client wants to reach
            return
        await self._pass(client_reader, broker_reader, _Link(client, broker))  # ends by itself when we stop

    async def _pass(
        self, client_reader: asyncio.StreamReader, broker_reader: asyncio.StreamReader, link: _Link
    ) -> None:
        """Both directions, until either side is gone."""
        forth = asyncio.create_task(self._forth(client_reader, link))
        back = asyncio.create_task(self._back(broker_reader, link))
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({forth, back, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if forth.done() and link.late is not None:  # the broker may take as long as anybody waits for
            answered = asyncio.create_task(link.late.wait())
            await asyncio.wait({answered, stopped}, timeout=LATE_ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
            answered.cancel()
        for task in (forth, back, stopped):
            task.cancel()
        for end in await asyncio.gather(forth, back, stopped, return_exceptions=True):
            if isinstance(end, Exception) and not isinstance(end, ConnectionError):
                self.failures.append(end)
        link.cut()
        with self._guard:  # a client that left before the answer came felt nothing of its fault: it is still due
            self._armed += [armed for _, armed in link.unanswered if armed is not None and not armed.over]

    async def _forth(self, reader: asyncio.StreamReader, link: _Link) -> None:
        """From the client to the broker, until either is gone."""
        while (frame := await read_frame(reader)) is not None:
            request = parse_request(frame)
            self.requests[request.client, request.api_key] += 1
            armed = self._match(request)
            fault = None if armed is None else armed.rule.fault
            if armed is not None and fault is Fault.CUT_BEFORE:
                link.cut()
                armed.fired.set()
                return
            if armed is not None and fault is Fault.DROP_REQUEST:
                armed.fired.set()
                while await read_frame(reader) is not None:  # nothing arrives any more
                    continue
                return
            if armed is not None and fault is Fault.DELAY_REQUEST:
                link.late = asyncio.Event()
                await self._sleep(armed.rule.delay_s)
            link.unanswered.append((request.correlation, armed))
            if len(link.unanswered) > UNANSWERED_MAX:
                raise NotKafka(f"{len(link.unanswered)} requests without an answer")
            link.broker.write(framed(frame))
            await link.broker.drain()

    async def _back(self, reader: asyncio.StreamReader, link: _Link) -> None:
        """From the broker to the client, until the broker is gone."""
        while (frame := await read_frame(reader)) is not None:
            armed = _answered(link, correlation_of(frame))
            fault = None if armed is None else armed.rule.fault
            if armed is not None and fault is Fault.CUT_AFTER:
                link.cut()
                armed.fired.set()
                return
            if armed is not None and fault is Fault.DROP_RESPONSE:
                armed.fired.set()
                while await read_frame(reader) is not None:  # nothing arrives any more
                    continue
                return
            if armed is not None and fault is Fault.DELAY_RESPONSE:
                armed.fired.set()  # now: the client may leave before the delay is over
                await self._sleep(armed.rule.delay_s)
            if armed is not None and fault is Fault.DELAY_REQUEST:
                armed.fired.set()
                if link.late is not None:
                    link.late.set()
            if not link.client.transport.is_closing():
                link.client.write(framed(frame))
                await link.client.drain()

    def _match(self, request: Request) -> Armed | None:
        """The rule that this request is the one for; each rule counts it."""
        hit: Armed | None = None
        with self._guard:
            for armed in list(self._armed):
                rule = armed.rule
                if rule.api != request.api_key or rule.client not in ("", request.client):
                    continue
                armed.seen += 1
                if hit is None and armed.seen >= rule.nth:
                    hit = armed
                    self._armed = [one for one in self._armed if one is not armed]
        return hit


def _answered(link: _Link, correlation: int) -> Armed | None:
    """The rule that waits for this answer. A broker answers in order; only acks=0 goes unanswered.

    Raises:
        NotKafka: nobody asked for it.
    """
    while link.unanswered:
        asked, armed = link.unanswered.popleft()
        if asked == correlation:
            return armed
    raise NotKafka(f"an answer to request {correlation}, which nobody made")


def faults(delay_s: float) -> list[dict[str, Any]]:
    """The ways in which one request can go wrong, as arguments of ``Rule``."""
    return [
        {"fault": Fault.DROP_REQUEST},
        {"fault": Fault.DROP_RESPONSE},
        {"fault": Fault.DELAY_REQUEST, "delay_s": delay_s},
        {"fault": Fault.DELAY_RESPONSE, "delay_s": delay_s},
        {"fault": Fault.CUT_BEFORE},
        {"fault": Fault.CUT_AFTER},
    ]
