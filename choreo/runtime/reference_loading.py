"""Writes the rows of a reference table: one compacted record a key, a tombstone for a key that is gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from confluent_kafka import Producer

from choreo.codec.keys import encode_key
from choreo.codec.wire import Encoder
from choreo.errors import HostError
from choreo.runtime.preflight import require_listener
from choreo.runtime.producer import DELIVERY_S_MAX, QUEUE_WAIT_S, client_settings
from choreo.runtime.topic_reader import read_topic


class Loaded(NamedTuple):
    """What was written."""

    written: int
    deleted: int


def load_rows(
    bootstrap: str,
    security: Mapping[str, str],
    topic: str,
    key: tuple[str, ...],
    rows: Iterable[Mapping[str, object]],
    encoder: Encoder,
    *,
    replace: bool = False,
) -> Loaded:
    """Write rows to a reference table's topic.

    Args:
        bootstrap: addresses of the cluster.
        security: librdkafka settings to log in.
        topic: from ``names.reference``.
        key: the table's key fields.
        rows: values of its schema; of two with one key the later wins.
        encoder: of its schema.
        replace: delete keys that are not among the rows.

    Returns:
        How many rows were written and deleted.

    Raises:
        SchemaError: CH0204 or CH0206, a row does not fit; nothing was written.
        HostError: CH0801, Kafka did not take them; loading again is safe.
    """
    wanted = {encode_key([row.get(name) for name in key]): encoder.encode(row) for row in rows}
    require_listener(bootstrap)
    gone: set[bytes] = set()
    if replace:
        for delivery in read_topic(bootstrap, security, topic):
            if delivery.key is not None and delivery.key not in wanted:
                (gone.discard if delivery.value is None else gone.add)(delivery.key)
    producer = Producer(client_settings(bootstrap, security, None))
    failures: list[str] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failures.append(str(error))

    for row_key, value in [*wanted.items(), *((one, None) for one in sorted(gone))]:
        while True:
            try:
                producer.produce(topic, value, row_key, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(QUEUE_WAIT_S)
    left = producer.flush(DELIVERY_S_MAX)
    if left or failures:
        reason = failures[0] if failures else "no answer in time"
        raise HostError(
            f"{left + len(failures)} rows did not reach {topic}: {reason}",
            code="CH0801",
            where=bootstrap,
            hint="load again; rows that arrived are only written once more",
        )
    return Loaded(len(wanted), len(gone))
