"""CloudEvents and W3C headers: read once per event, written once per emitted record.

Reading never fails: whatever another producer put into a header is either usable or as good as absent. Writing replaces
every header of the previous hop; nothing is appended, so headers don't grow with the length of a chain.

Source: CloudEvents 1.0 Kafka protocol binding (binary mode); W3C Trace Context level 1; W3C Baggage.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from choreo.errors import SchemaError
from choreo.kernel.ids import SPAN_ID_CHARS, TRACE_ID_CHARS, Identity, root_id, trace_id
from choreo.kernel.values import Delivery, Envelope, Headers, InputTopic

ID_BYTES_MAX: Final = 256
"""Longest id (event, correlation, causation) and type taken from a header. They are copied into every event of the
chain, every row and every decision; a UUID has 36 characters, a URN well under 200."""
TRACESTATE_BYTES_MAX: Final = 512
"""What W3C Trace Context asks every participant to carry (section 3.3.1.5); longer is dropped, which it allows."""
BAGGAGE_BYTES_MAX: Final = 8_192
"""What W3C Baggage asks every participant to carry (section 3.3.2)."""
HOP_DIGITS_MAX: Final = 6
TIME_BYTES_MAX: Final = 64
TIME_MS_MAX: Final = 253_402_300_799_999
"""End of the year 9999, the last that RFC 3339 can write. Kafka takes any number as a timestamp."""

TRACEPARENT_CHARS: Final = 55
_UNSAMPLED: Final = "00"
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

Header = tuple[str, bytes]
_new: Final = tuple.__new__  # a NamedTuple's own constructor costs three times as much

_SPECVERSION: Final[Header] = ("ce_specversion", b"1.0")
_CONTENT_TYPE: Final[Header] = ("content-type", b"application/avro")
_NOTHING: Final = b""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def parse_headers(delivery: Delivery, topic: InputTopic) -> Envelope:
    """Envelope of one input record. Never raises; a header that occurs twice counts as its last value.

    Args:
        delivery: the record as Kafka delivered it.
        topic: its topic; cluster id and topic id identify a root event that brought no ``ce_id``.
    """
    _, partition, offset, timestamp_ms, _, _, headers = delivery
    get = dict(headers).get
    raw = get("ce_id")
    # ASCII letters and digits, as in ids made by choreo, need no closer look
    event_id = raw.decode() if raw and raw.isalnum() and len(raw) <= ID_BYTES_MAX else _identifier(raw)
    if not event_id:
        event_id = root_id(topic.cluster_id, topic.topic_id, partition, offset)
    raw = get("ce_correlationid")
    correlation_id = raw.decode() if raw and raw.isalnum() and len(raw) <= ID_BYTES_MAX else _identifier(raw)
    raw = get("ce_causationid")
    causation_id = raw.decode() if raw and raw.isalnum() and len(raw) <= ID_BYTES_MAX else _identifier(raw)
    raw = get("ce_time")
    time_ms = _time_ms(raw) if raw and len(raw) <= TIME_BYTES_MAX else None
    raw = get("traceparent")
    traceparent = _traceparent(raw) if raw else ""
    raw = get("ce_type")
    kind = _type(raw) if raw and len(raw) <= ID_BYTES_MAX else ""
    hop, tracestate, baggage = get("ce_choreohop"), get("tracestate"), get("baggage")
    return _new(
        Envelope,
        (
            event_id,
            kind,
            min(max(timestamp_ms, 0), TIME_MS_MAX) if time_ms is None else time_ms,
            correlation_id or event_id,
            causation_id,
            int(hop) if hop and len(hop) <= HOP_DIGITS_MAX and hop.isdigit() else 0,
            traceparent,
            _text(tracestate, TRACESTATE_BYTES_MAX) if tracestate and traceparent else "",
            _text(baggage, BAGGAGE_BYTES_MAX) if baggage else "",
        ),
    )


def _identifier(value: bytes | None) -> str:
    """An id, or "" if the header is absent, too long, or not printable text."""
    if not value or len(value) > ID_BYTES_MAX:
        return ""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""


@lru_cache(maxsize=4_096)  # an input topic has few types
def _type(value: bytes) -> str:
    return _identifier(value)


def _text(value: bytes, bytes_max: int) -> str:
    if len(value) > bytes_max or not value.isascii():
        return ""
    text = value.decode()
    return text if text.isprintable() else ""


@lru_cache(maxsize=4_096)  # neighbouring events often share their time
def _time_ms(value: bytes) -> int | None:
    """Milliseconds of an RFC 3339 time with an offset, or None."""
    try:
        moment = datetime.fromisoformat(value.decode())
        if moment.tzinfo is None:
            return None
        time_ms = (moment - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        return None
    return time_ms if 0 <= time_ms <= TIME_MS_MAX else None


def _traceparent(value: bytes) -> str:
    """A valid traceparent, brought to version 00, or ""."""
    if _TRACEPARENT.match(value) is None:
        return ""
    version = value[:2]
    if len(value) > TRACEPARENT_CHARS and (version == b"00" or value[TRACEPARENT_CHARS] != 0x2D):
        return ""
    text = value[:TRACEPARENT_CHARS].decode()
    return text if version == b"00" else f"00{text[2:]}"


@lru_cache(maxsize=4_096)
def rfc3339(time_ms: int) -> str:
    """A moment as RFC 3339 text in UTC with milliseconds: ``2013-01-01T05:17:00.000Z``."""
    return (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds")[:-6] + "Z"


def constant_headers(identity: Identity, type_name: str) -> tuple[Header, ...]:
    """Headers that all events of one type from one agent share; build them once.

    Raises:
        SchemaError: CH0202, no reader would take a type name of this length from a header.
    """
    size = len(type_name.encode())
    if size > ID_BYTES_MAX:
        raise SchemaError(
            f"the Avro name {type_name[:80]}… has {size} bytes; the header ce_type takes {ID_BYTES_MAX}",
            code="CH0202",
            hint="give the record a shorter name or namespace",
        )
    return (
        ("ce_source", identity.source.encode()),
        ("ce_type", type_name.encode()),
        _SPECVERSION,
        _CONTENT_TYPE,
    )


def carried_headers(identity: Identity, cause: Envelope) -> tuple[Header, ...]:
    """Headers that all events of one step share: time, correlation, causation, hop and trace context.

    The trace context names the same trace, the step's own span and the same flags. A chain that no context came with
    gets a trace derived from its correlation id, marked unsampled.

    Args:
        identity: whose step it is.
        cause: what triggers it.
    """
    return step_headers(identity, cause)[0]


def step_headers(identity: Identity, cause: Envelope) -> tuple[tuple[Header, ...], str]:
    """``carried_headers`` of a step and the id of its first event, which cost one digest together."""
    event_id, _, time_ms, correlation_id, _, hop, seen, tracestate, baggage = cause
    first_id, span = identity.step_ids(event_id)
    if seen:
        traceparent = f"{seen[: 4 + TRACE_ID_CHARS]}{span}{seen[-3:]}"
    else:
        traceparent = f"00-{trace_id(correlation_id)}-{span}-{_UNSAMPLED}"
    carried: tuple[Header, ...] = (
        _time_header(time_ms),
        ("ce_correlationid", correlation_id.encode()),
        ("ce_causationid", event_id.encode()),
        ("ce_choreohop", b"%d" % (hop + 1)),
        ("traceparent", traceparent.encode()),
    )
    if tracestate:
        carried += (("tracestate", tracestate.encode()),)
    if baggage:
        carried += (("baggage", baggage.encode()),)
    return carried, first_id


@lru_cache(maxsize=4_096)
def _time_header(time_ms: int) -> Header:
    return ("ce_time", rfc3339(time_ms).encode())


def outgoing_headers(
    constants: tuple[Header, ...], carried: tuple[Header, ...], event_id: str, key: bytes
) -> tuple[Header, ...]:
    """All headers of one emitted event.

    Args:
        constants: from ``constant_headers``.
        carried: from ``carried_headers``.
        event_id: from ``Identity.event_id``.
        key: the message key; CloudEvents calls it the subject.
    """
    return (("ce_id", event_id.encode("ascii")), *constants, *carried, ("ce_subject", key))


def id_and_type(headers: Headers) -> tuple[str, str]:
    """Id and type of an emitted event, from the headers that ``outgoing_headers`` made."""
    return headers[0][1].decode(), headers[2][1].decode()


def row_headers(carried: tuple[Header, ...]) -> tuple[Header, ...]:
    """Provenance of the rows that a step writes: which event shaped them, in which chain, under which trace.

    Args:
        carried: from ``carried_headers``.
    """
    return (carried[2], carried[1], carried[4])


def row_provenance(headers: Headers) -> str | None:
    """Id of the event that last shaped a row, from the headers of its changelog record."""
    for name, value in headers:
        if name == "ce_causationid":
            return _identifier(value) or None
    return None


assert TRACEPARENT_CHARS == 3 + TRACE_ID_CHARS + 1 + SPAN_ID_CHARS + 3
