"""Headers: exactly those of CloudEvents and W3C on the way out, anything at all on the way in."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.errors import SchemaError
from choreo.kernel.envelope import (
    TIME_MS_MAX,
    carried_headers,
    constant_headers,
    outgoing_headers,
    parse_headers,
    rfc3339,
    row_headers,
    row_provenance,
)
from choreo.kernel.ids import Identity, root_id
from choreo.kernel.values import Delivery, Envelope, InputTopic

IDENTITY = Identity("logistics", "aircraft_tracker")
TOPIC = InputTopic("flights", cluster_id="cluster", topic_id="topic")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
NAMES = ["ce_id", "ce_type", "ce_time", "ce_correlationid", "ce_causationid", "ce_choreohop"]
NAMES += ["traceparent", "tracestate", "baggage"]
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def parse(*headers: tuple[str, bytes], timestamp_ms: int = 1_700_000_000_000) -> Envelope:
    return parse_headers(Delivery("flights", 2, 40, timestamp_ms, b"N1", b"", headers), TOPIC)


def emitted(cause: Envelope) -> dict[str, bytes]:
    headers = outgoing_headers(
        constant_headers(IDENTITY, "logistics.DelayRisk"), carried_headers(IDENTITY, cause), "e" * 32, b"N1"
    )
    assert len(dict(headers)) == len(headers), "no header twice"
    return dict(headers)


def test_emitted_headers_are_cloudevents_binary_mode() -> None:
    cause = parse(
        ("ce_id", b"outside-1"),
        ("ce_time", b"2013-01-01T05:17:00.25-05:00"),
        ("ce_correlationid", b"order-7"),
        ("ce_choreohop", b"3"),
        ("traceparent", PARENT.encode()),
        ("tracestate", b"vendor=1"),
        ("baggage", b"user=4"),
    )
    headers = emitted(cause)
    span = headers.pop("traceparent").decode()
    assert headers == {
        "ce_id": b"e" * 32,
        "ce_source": b"/choreo/logistics/aircraft_tracker",
        "ce_type": b"logistics.DelayRisk",
        "ce_time": b"2013-01-01T10:17:00.250Z",
        "ce_specversion": b"1.0",
        "ce_subject": b"N1",
        "content-type": b"application/avro",
        "ce_correlationid": b"order-7",
        "ce_causationid": b"outside-1",
        "ce_choreohop": b"4",
        "tracestate": b"vendor=1",
        "baggage": b"user=4",
    }
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", span)
    assert span != PARENT


def test_headers_are_replaced_hop_by_hop_and_stay_the_same_size() -> None:
    cause = parse(("traceparent", PARENT.encode()), ("tracestate", b"vendor=1"))
    first = emitted(cause)
    second = emitted(parse(*first.items()))
    assert first.keys() == second.keys()
    assert second["traceparent"] != first["traceparent"]
    assert second["traceparent"][:35] == first["traceparent"][:35]
    assert second["ce_causationid"] == first["ce_id"]
    assert second["ce_correlationid"] == first["ce_correlationid"]


def test_a_rerun_writes_the_same_headers() -> None:
    assert emitted(parse()) == emitted(parse())


def test_a_root_without_headers_gets_a_derived_id_and_an_unsampled_trace() -> None:
    root = parse()
    assert root.event_id == root_id("cluster", "topic", 2, 40)
    assert root.correlation_id == root.event_id
    assert (root.hop, root.causation_id, root.traceparent, root.time_ms) == (0, "", "", 1_700_000_000_000)
    trace = emitted(root)["traceparent"].decode()
    assert trace.startswith(f"00-{root.event_id}-")
    assert trace.endswith("-00")


@pytest.mark.parametrize(
    "time",
    [b"", b"yesterday", b"2013-01-01", b"2013-01-01T00:00:00", b"1969-12-31T23:59:59Z", b"\xff", b"2" * 99],
)
def test_an_unusable_time_falls_back_to_the_record(time: bytes) -> None:
    assert parse(("ce_time", time)).time_ms == 1_700_000_000_000


def test_a_records_timestamp_out_of_range_is_brought_into_it() -> None:
    assert parse(timestamp_ms=-1).time_ms == 0
    assert parse(timestamp_ms=2**62).time_ms == TIME_MS_MAX
    assert rfc3339(TIME_MS_MAX) == "9999-12-31T23:59:59.999Z"


@pytest.mark.parametrize(
    "value",
    [
        f"00-{TRACE}-00f067aa0ba902b7-01-extra",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-00f067aa0ba902b7-0g",
        f"00-{TRACE}_00f067aa0ba902b7-01",
        "00",
        "",
    ],
)
def test_an_invalid_traceparent_is_dropped_with_its_tracestate(value: str) -> None:
    envelope = parse(("traceparent", value.encode()), ("tracestate", b"vendor=1"))
    assert (envelope.traceparent, envelope.tracestate) == ("", "")


def test_a_traceparent_of_a_later_version_is_understood() -> None:
    assert parse(("traceparent", f"01-{TRACE}-00f067aa0ba902b7-01-more".encode())).traceparent == PARENT


@pytest.mark.parametrize("hop", [b"", b"-1", b"1.5", b"9" * 40, b"\xff", b"many"])
def test_an_unusable_hop_count_is_zero(hop: bytes) -> None:
    assert parse(("ce_choreohop", hop)).hop == 0


def test_ids_with_control_characters_or_without_bounds_are_as_good_as_absent() -> None:
    root = parse().event_id
    for value in (b"a\nb", b"x" * 257, b"\xff\xfe", b""):
        envelope = parse(("ce_id", value), ("ce_correlationid", value), ("ce_causationid", value))
        assert (envelope.event_id, envelope.correlation_id, envelope.causation_id) == (root, root, "")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "ce_id",
                    "ce_type",
                    "ce_time",
                    "ce_correlationid",
                    "ce_causationid",
                    "ce_choreohop",
                    "traceparent",
                    "tracestate",
                    "baggage",
                ]
            ),
            st.one_of(st.binary(max_size=80), st.none(), st.datetimes().map(lambda at: f"{at.isoformat()}Z".encode())),
        ),
        max_size=12,
    ),
    st.integers(-(2**63), 2**63 - 1),
)
def test_any_headers_give_an_envelope_that_can_be_written_on(
    headers: list[tuple[str, bytes]], timestamp_ms: int
) -> None:
    envelope = parse(*headers, timestamp_ms=timestamp_ms)
    again = parse(*emitted(envelope).items())
    assert again.time_ms == envelope.time_ms
    assert again.correlation_id == envelope.correlation_id
    assert again.causation_id == envelope.event_id
    assert again.hop == envelope.hop + 1


@given(st.integers(0, TIME_MS_MAX))
def test_event_time_survives_the_header(time_ms: int) -> None:
    text = rfc3339(time_ms)
    assert datetime.fromisoformat(text).tzinfo is not None
    assert parse(("ce_time", text.encode())).time_ms == time_ms


def test_row_headers_name_the_event_that_shaped_the_row() -> None:
    cause = parse(("ce_id", b"outside-1"))
    headers = row_headers(carried_headers(IDENTITY, cause))
    assert [name for name, _ in headers] == ["ce_causationid", "ce_correlationid", "traceparent"]
    assert row_provenance(headers) == "outside-1"
    assert row_provenance(()) is None


def test_a_time_beyond_the_year_9999_in_utc_counts_as_absent() -> None:
    delivery = Delivery("in", 0, 0, 7, b"k", b"", (("ce_time", b"9999-12-31T23:59:59-23:59"),))
    assert parse_headers(delivery, InputTopic("in")).time_ms == 7


def test_a_type_name_that_no_reader_would_take_is_refused_when_the_headers_are_built() -> None:
    assert constant_headers(IDENTITY, "n" * 256)[1] == ("ce_type", b"n" * 256)
    with pytest.raises(SchemaError, match="257 bytes") as refused:
        constant_headers(IDENTITY, "n" * 257)
    assert refused.value.code == "CH0202"
