"""Headers of any producer: reading never fails, what is taken is bounded, what is written on reads back the same."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from choreo.kernel.envelope import (
    BAGGAGE_BYTES_MAX,
    HOP_DIGITS_MAX,
    ID_BYTES_MAX,
    TIME_MS_MAX,
    TRACEPARENT_CHARS,
    TRACESTATE_BYTES_MAX,
    carried_headers,
    constant_headers,
    outgoing_headers,
    parse_headers,
    row_headers,
    row_provenance,
)
from choreo.kernel.ids import Identity
from choreo.kernel.values import Delivery, Envelope, InputTopic
from tests.fuzz.changes import TEXT, Cursor, changed
from tests.fuzz.target import Target, promised

NAMES: Final = (
    *("ce_id", "ce_type", "ce_time", "ce_correlationid", "ce_causationid", "ce_choreohop", "traceparent"),
    *("tracestate", "baggage", "ce_source", "x"),
)
IDENTITY: Final = Identity("logistics", "aircraft_tracker")
TOPIC: Final = InputTopic("flights", cluster_id="cluster", topic_id="topic")
CONSTANTS: Final = constant_headers(IDENTITY, "logistics.DelayRisk")
OUTGOING_BYTES_MAX: Final = 4 * ID_BYTES_MAX + TRACESTATE_BYTES_MAX + BAGGAGE_BYTES_MAX + 1_000
WORDS: Final = (
    *TEXT,
    *(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"-", b"00", b"ff", b"0" * 32, b"+00:00", b"Z", b"T"),
    *(
        b"2013-01-01T05:17:00.25-05:00",
        b"20130101T051700Z",
        b"2013-W01-1",
        b"a" * 257,
        b"vendor=1",
        b"=" * 513,
        b",b=2",
    ),
)
LIMITS: Final = (
    *((name, ID_BYTES_MAX) for name in ("ce_id", "ce_type", "ce_correlationid", "ce_causationid")),
    *(("ce_choreohop", HOP_DIGITS_MAX), ("traceparent", TRACEPARENT_CHARS)),
    *(("tracestate", TRACESTATE_BYTES_MAX), ("baggage", BAGGAGE_BYTES_MAX)),
)


def delivery_of(data: bytes) -> Delivery:
    """A record: a timestamp, then headers, each a name's number, two bytes of length and the value."""
    cursor = Cursor(data)
    timestamp_ms = cursor.number()
    headers: list[Any] = []
    while cursor.more:
        number = cursor.byte()
        size = int.from_bytes(cursor.take(2), "little")
        value = None if number & 0x80 else cursor.take(size)
        headers.append((NAMES[(number & 0x7F) % len(NAMES)], value))
    return Delivery("flights", 2, 40, timestamp_ms, b"N1", b"", tuple(headers))


def packed(headers: list[tuple[str, bytes]], timestamp_ms: int = 1_700_000_000_000) -> bytes:
    """The input of these headers."""
    out = timestamp_ms.to_bytes(8, "little", signed=True)
    for name, value in headers:
        out += bytes([NAMES.index(name)]) + len(value).to_bytes(2, "little") + value
    return out


def check(data: bytes) -> None:
    envelope = parse_headers(delivery_of(data), TOPIC)
    promised(0 < len(envelope.event_id.encode()) <= ID_BYTES_MAX, "event_id")
    for text in (envelope.type, envelope.correlation_id, envelope.causation_id):
        promised(len(text.encode()) <= ID_BYTES_MAX and (text.isprintable() or not text), text)
    promised(0 <= envelope.time_ms <= TIME_MS_MAX, envelope.time_ms)
    promised(0 <= envelope.hop < 10**HOP_DIGITS_MAX, envelope.hop)
    promised(len(envelope.traceparent) in (0, TRACEPARENT_CHARS), envelope.traceparent)
    promised(len(envelope.tracestate) <= TRACESTATE_BYTES_MAX and len(envelope.baggage) <= BAGGAGE_BYTES_MAX)
    check_onwards(envelope)


def check_onwards(cause: Envelope) -> None:
    """What the next agent reads is what this one wrote."""
    carried = carried_headers(IDENTITY, cause)
    headers = outgoing_headers(CONSTANTS, carried, IDENTITY.event_id(cause.event_id, 0), b"N1")
    promised(len(dict(headers)) == len(headers), "a header twice")
    promised(sum(len(name) + len(value) for name, value in headers) <= OUTGOING_BYTES_MAX, "headers grow")
    again = parse_headers(Delivery("delay-risks", 0, 0, 0, b"N1", b"", headers), TOPIC)
    promised(again.time_ms == cause.time_ms, (again.time_ms, cause.time_ms))
    promised(again.correlation_id == cause.correlation_id, (again.correlation_id, cause.correlation_id))
    promised(again.causation_id == cause.event_id == row_provenance(row_headers(carried)), again.causation_id)
    # the largest count that is read is followed by one that is not: the chain starts anew, far above any limit
    promised(again.hop == (cause.hop + 1) % 10**HOP_DIGITS_MAX, again.hop)
    promised(bool(again.traceparent), "no trace context")
    promised(again.traceparent[:35] == cause.traceparent[:35] or not cause.traceparent, again.traceparent)
    promised((again.tracestate, again.baggage) == (cause.tracestate, cause.baggage), "tracestate or baggage")


PARENT: Final = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SEEDS: Final = (
    packed([]),
    packed(
        [
            ("ce_id", b"outside-1"),
            ("ce_type", b"logistics.DelayRisk"),
            ("ce_time", b"2013-01-01T05:17:00.25-05:00"),
            ("ce_correlationid", b"order-7"),
            ("ce_causationid", b"e" * 32),
            ("ce_choreohop", b"3"),
            ("traceparent", PARENT),
            ("tracestate", b"vendor=1"),
            ("baggage", b"user=4"),
        ]
    ),
    packed([("traceparent", b"01" + PARENT[2:] + b"-more"), ("ce_id", "é😀".encode())], 2**62),
    packed([("ce_time", b"9999-12-31T23:59:59-23:59"), ("ce_choreohop", b"999998")], -1),
)


def change(seed: bytes, chance: Random) -> bytes:
    """Damage to the whole, or headers whose values are damaged."""
    if chance.random() < 0.3:
        return changed(seed, chance, WORDS)
    headers = []
    for _ in range(chance.randrange(1, 8)):
        if chance.random() < 0.1:  # at a limit, one below, one above
            name, limit = chance.choice(LIMITS)
            headers.append((name, b"v" * (limit + chance.randrange(-1, 2))))
            continue
        value = chance.choice(WORDS)
        if chance.random() < 0.5:
            value = changed(value, chance, WORDS)
        headers.append((chance.choice(NAMES), value[:9_000]))
    return packed(headers, chance.choice((0, -1, 2**62, chance.randrange(2**41))))


def targets() -> list[Target]:
    return [Target("headers", check, SEEDS, change, share=10)]
