"""What could make the broker refuse a record, checked before its step may enter a transaction.

One refused record aborts a whole burst, innocent steps included, and leaves the producer unusable (measured: the next
transaction fails with OUT_OF_ORDER_SEQUENCE_NUMBER). So size and partition are checked while it is still one step's
own problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from choreo.kernel.values import Failure, Headers, Outcome, TopicFacts

BATCH_OVERHEAD_BYTES: Final = 256
"""Record batch header (61 bytes), record framing (up to 30), and room for both: Kafka's limit is on the batch."""
HEADERS_BYTES_MAX: Final = 16 * 1024
"""More than the headers of an event or row have that ``choreo.kernel.envelope`` wrote, the key aside: baggage 8,192,
tracestate 512, three ids and a type of 256 at most, the rest some hundred. Below a limit by this much nothing is
counted: counting the headers of one record costs as much as its key and value together."""


def record_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    size = len(key or b"") + len(value or b"") + BATCH_OVERHEAD_BYTES
    for name, content in headers:
        size += len(name) + len(content) + 6
    return size


def first_violation(
    outcome: Outcome, entity: str, facts: Mapping[str, TopicFacts], changelogs: Mapping[str, str]
) -> Failure | None:
    """The first record of an outcome that its topic would refuse, or None."""
    for record in outcome.emits:
        fact = facts[record.topic]
        if not _surely_fits(record.key, record.value, fact.message_bytes_max):
            size = record_bytes(record.key, record.value, record.headers)
            if size > fact.message_bytes_max:
                return _too_large(record.topic, size, fact)
        if record.partition is not None and not 0 <= record.partition < fact.partitions:
            return Failure(
                "CH0301",
                f"partition {record.partition} of topic {record.topic} does not exist; it has {fact.partitions}",
                "StepError",
                False,
                False,
                "",
            )
    for row in outcome.rows:
        topic = changelogs[row.table]
        fact, key = facts[topic], entity.encode()
        if not _surely_fits(key, row.value, fact.message_bytes_max):
            size = record_bytes(key, row.value, row.headers)
            if size > fact.message_bytes_max:
                return _too_large(topic, size, fact)
    return None


def _surely_fits(key: bytes | None, value: bytes | None, bytes_max: int) -> bool:
    """Whether the record fits with any headers; the key travels in them once more, as ``ce_subject``."""
    return 2 * len(key or b"") + len(value or b"") + HEADERS_BYTES_MAX <= bytes_max


def _too_large(topic: str, size: int, fact: TopicFacts) -> Failure:
    return Failure(
        "CH0305",
        f"a record of {size} bytes for topic {topic}, which accepts {fact.message_bytes_max}",
        "StepError",
        False,
        False,
        "",
    )
