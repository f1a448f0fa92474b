"""The proxy passes bytes unchanged, each fault fires where it says and nowhere else. Against a broker that echoes."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.proxy.frames import FRAME_BYTES_MAX, Api, NotKafka, framed, parse_request
from tests.proxy.proxy import LOOPBACK, Fault, Proxy, Rule

PATIENCE_S = 10.0
"""How long a test waits for what takes milliseconds."""


def request(correlation: int, api: int = Api.END_TXN, client: str = "w0", rest: bytes = b"") -> bytes:
    name = client.encode()
    return struct.pack(">hhih", api, 3, correlation, len(name)) + name + rest


def answer(frame: bytes) -> bytes:
    """What the echoing broker says: the correlation id, and the request as it arrived."""
    return frame[4:8] + frame


class Echo:
    """A broker that answers each request with itself. Remembers what it read, byte for byte."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.arrived = threading.Condition()
        self.sockets: list[socket.socket] = []
        self.server = socket.create_server((LOOPBACK, 0))
        self.port: int = self.server.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.server.accept()
                self.sockets.append(connection)
                self.threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
                self.threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while (frame := receive(connection)) is not None:
                with self.arrived:
                    self.heard.append(frame)
                    self.arrived.notify_all()
                connection.sendall(framed(answer(frame)))

    def wait_heard(self, frame: bytes) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: frame in self.heard, PATIENCE_S), f"{frame!r} did not arrive"

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for connection in self.sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(PATIENCE_S)


def receive(connection: socket.socket) -> bytes | None:
    """One frame without its size, None if the other side is gone."""
    try:
        size = _exactly(connection, 4)
        return _exactly(connection, struct.unpack(">i", size)[0])
    except (EOFError, ConnectionError):
        return None


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            raise EOFError
        found += part
    return found


class Gate:
    """A ``sleep`` that ends when the test says so."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.slept: list[float] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: asyncio.Event | None = None

    async def sleep(self, seconds: float) -> None:
        self._loop, self._open = asyncio.get_running_loop(), asyncio.Event()
        self.slept.append(seconds)
        self.entered.set()
        await self._open.wait()

    def open(self) -> None:
        assert self.entered.wait(PATIENCE_S)
        assert self._loop is not None and self._open is not None
        self._loop.call_soon_threadsafe(self._open.set)


@pytest.fixture
def echo() -> Iterator[Echo]:
    broker = Echo()
    yield broker
    broker.close()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def proxy(echo: Echo, gate: Gate) -> Iterator[Proxy]:
    with Proxy(lambda: echo.port, sleep=gate.sleep) as proxy:
        yield proxy


@contextmanager
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection((LOOPBACK, proxy.port), timeout=PATIENCE_S) as connection:
        yield connection


def is_closed(connection: socket.socket) -> bool:
    return receive(connection) is None


def says_nothing(connection: socket.socket, echo: Echo, proxy: Proxy) -> bool:
    """Whether nothing lies ready after another connection has been served from one end to the other."""
    with client(proxy) as other:
        other.sendall(framed(request(77, Api.METADATA, "other")))
        assert receive(other) is not None
    connection.setblocking(False)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        connection.settimeout(PATIENCE_S)
    return False


@pytest.mark.parametrize("seed", range(3))
def test_bytes_pass_unchanged_in_pieces_of_any_size(proxy: Proxy, echo: Echo, seed: int) -> None:
    chance = random.Random(seed)
    sizes = [0, 1, 7, 4_096, 70_000]
    frames = [request(n, chance.randrange(90), "c" * (n % 5), chance.randbytes(sizes[n % 5])) for n in range(40)]
    stream = b"".join(framed(frame) for frame in frames)
    with client(proxy) as connection:

        def send() -> None:
            at = 0
            while at < len(stream):
                size = chance.choice([1, 2, 3, 50, 9_000])
                connection.sendall(stream[at : at + size])
                at += size

        sender = threading.Thread(target=send)
        sender.start()
        assert [receive(connection) for _ in frames] == [answer(frame) for frame in frames]
        sender.join()
    assert echo.heard == frames
    assert sum(proxy.requests.values()) == len(frames)


def test_rule_counts_only_its_requests_and_fires_once(proxy: Proxy, echo: Echo) -> None:
    armed = proxy.arm(Rule(Api.END_TXN, Fault.CUT_BEFORE, nth=2, client="w1"))
    with client(proxy) as connection:
        passes = [request(1, Api.END_TXN, "w0"), request(2, Api.END_TXN, "w1"), request(3, Api.PRODUCE, "w1")]
        for frame in passes:
            connection.sendall(framed(frame))
            assert receive(connection) == answer(frame)
        assert not armed.fired.is_set()
        connection.sendall(framed(request(4, Api.END_TXN, "w1")))
        assert is_closed(connection)
    assert armed.fired.is_set()
    with client(proxy) as connection:
        connection.sendall(framed(request(5, Api.END_TXN, "w1")))
        assert receive(connection) == answer(request(5, Api.END_TXN, "w1"))
    assert echo.heard == [*passes, request(5, Api.END_TXN, "w1")]


def test_disarmed_rule_does_nothing(proxy: Proxy) -> None:
    armed = proxy.arm(Rule(Api.END_TXN, Fault.CUT_BEFORE))
    proxy.disarm(armed)
    proxy.disarm(armed)
    with client(proxy) as connection:
        connection.sendall(framed(request(1)))
        assert receive(connection) == answer(request(1))
    assert not armed.fired.is_set()


def test_cut_after_leaves_the_request_carried_out_and_unanswered(proxy: Proxy, echo: Echo) -> None:
    armed = proxy.arm(Rule(Api.END_TXN, Fault.CUT_AFTER))
    with client(proxy) as connection:
        connection.sendall(framed(request(1)))
        assert is_closed(connection)
    assert armed.fired.is_set()
    assert echo.heard == [request(1)]


def test_dropped_request_silences_the_connection_without_closing_it(proxy: Proxy, echo: Echo) -> None:
    armed = proxy.arm(Rule(Api.END_TXN, Fault.DROP_REQUEST))
    with client(proxy) as connection:
        connection.sendall(framed(request(1)) + framed(request(2, Api.PRODUCE)))
        assert armed.fired.wait(PATIENCE_S)
        assert says_nothing(connection, echo, proxy)
    assert echo.heard == [request(77, Api.METADATA, "other")]


def test_dropped_response_belongs_to_a_request_that_was_carried_out(proxy: Proxy, echo: Echo) -> None:
    armed = proxy.arm(Rule(Api.END_TXN, Fault.DROP_RESPONSE))
    with client(proxy) as connection:
        connection.sendall(framed(request(1)) + framed(request(2, Api.PRODUCE)))
        assert armed.fired.wait(PATIENCE_S)
        echo.wait_heard(request(2, Api.PRODUCE))
        assert says_nothing(connection, echo, proxy)


def test_delayed_request_holds_what_follows_and_arrives_after_its_client_left(
    proxy: Proxy, echo: Echo, gate: Gate
) -> None:
    armed = proxy.arm(Rule(Api.END_TXN, Fault.DELAY_REQUEST, delay_s=3.0))
    with client(proxy) as connection:
        connection.sendall(framed(request(1)))
        assert gate.entered.wait(PATIENCE_S)
        assert says_nothing(connection, echo, proxy)
        assert request(1) not in echo.heard
    assert not armed.fired.is_set()
    gate.open()
    assert armed.fired.wait(PATIENCE_S)
    assert gate.slept == [3.0]
    assert echo.heard[-1] == request(1)


def test_delayed_response_comes_in_its_order(proxy: Proxy, echo: Echo, gate: Gate) -> None:
    armed = proxy.arm(Rule(Api.END_TXN, Fault.DELAY_RESPONSE, delay_s=2.0))
    with client(proxy) as connection:
        connection.sendall(framed(request(1)) + framed(request(2, Api.PRODUCE)))
        assert gate.entered.wait(PATIENCE_S)
        echo.wait_heard(request(2, Api.PRODUCE))
        assert says_nothing(connection, echo, proxy)
        gate.open()
        assert receive(connection) == answer(request(1))
        assert receive(connection) == answer(request(2, Api.PRODUCE))
    assert armed.fired.is_set()


def test_broker_that_is_away_refuses_the_client() -> None:
    with Proxy(lambda: None) as proxy, client(proxy) as connection:
        assert is_closed(connection)


@pytest.mark.parametrize("size", [-1, 3, FRAME_BYTES_MAX + 1])
def test_what_is_no_kafka_is_an_error(echo: Echo, size: int) -> None:
    with pytest.raises(NotKafka), Proxy(lambda: echo.port) as proxy, client(proxy) as connection:
        connection.sendall(struct.pack(">i", size) + b"some bytes")
        assert is_closed(connection)


def test_answer_that_nobody_asked_for_is_an_error(echo: Echo) -> None:
    with pytest.raises(NotKafka), Proxy(lambda: echo.port) as proxy, client(proxy) as connection:
        connection.sendall(framed(request(1)))
        assert receive(connection) is not None
        echo.sockets[0].sendall(framed(answer(request(9))))
        assert is_closed(connection)


def test_header_of_a_request_is_read() -> None:
    assert parse_request(request(7, 26, "choreo", b"rest")) == (26, 3, 7, "choreo")
    assert parse_request(struct.pack(">hhih", 18, 4, 1, -1)).client == ""
    with pytest.raises(NotKafka):
        parse_request(b"\0" * 9)
