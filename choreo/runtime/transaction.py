"""One burst as one Kafka transaction, and what each way of failing means."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from choreo.errors import EngineError
from choreo.kernel.burst import OffsetCommit
from choreo.kernel.values import OutRecord
from choreo.runtime.kafka_config import SOCKET_TIMEOUT_MS, TRANSACTION_TIMEOUT_MS

FLUSH_TIMEOUT_S: Final = 20.0
"""Longer than a transaction may last (TRANSACTION_TIMEOUT_MS): after it, the coordinator has aborted."""
CALL_TIMEOUT_S: Final = 10.0
CALL_ATTEMPTS_MAX: Final = 3
"""A call that timed out or is retriable is made again this often; then its result counts as unknown."""
OVERDUE_S: Final = 3.0
"""A call that takes so much longer than its own timeout is taken never to return: send_offsets_to_transaction does not
when the group's coordinator dies meanwhile (measured on librdkafka 2.16.1; its issues 5456 and 5511)."""


class Result(Enum):
    """How a transaction ended."""

    COMMITTED = "committed"
    ABORTED = "aborted"  # surely not committed; the same outcomes may go again
    REBALANCING = "rebalancing"  # as ABORTED, after the rebalance callbacks have run
    REFUSED = "refused"  # a record can never be accepted
    DISPLACED = "displaced"  # as ABORTED, but the group gave this member's place away, to whomever
    FENCED = "fenced"  # a newer worker has this identity
    UNKNOWN = "unknown"  # may or may not have been committed, or the client is broken


class Ended(NamedTuple):
    result: Result
    error: KafkaError | None


# One table decides. Codes that are not here are judged by librdkafka's own flags, see `judge`.
_REBALANCING: Final = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}
_FENCED: Final = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
_REFUSED: Final = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.INVALID_MSG,
    KafkaError.POLICY_VIOLATION,
}
_GAVE_UP: Final = {KafkaError._FATAL, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}
# They say that the client stopped, not why (measured: a fenced producer's records come back as purged, and produce()
# answers _FATAL without its fatal flag). The next call on the producer names the reason.

PARTITION_UA: Final = -1
"""The partitioner decides."""
Report = Callable[[KafkaError | None, Message], None]
"""What becomes of a record: an error, or the message with its place."""

_METADATA_PREFIX: Final = b"CGMDv2:"
"""librdkafka's form of the group metadata: prefix, generation as a native 32-bit integer, then group, member id and
instance, each ended by a zero byte."""


def is_member(metadata: bytes) -> bool:
    """Whether group metadata speaks for a member. Without a generation or a member id it must not be sent: to a group
    that is empty at that moment the broker accepts it like an administrator's commit, fencing nobody (measured).

    Raises:
        EngineError: librdkafka's form is not the one known here.
    """
    if not metadata.startswith(_METADATA_PREFIX):
        raise EngineError(f"group metadata of an unknown form: {metadata[:16]!r}")
    at = len(_METADATA_PREFIX)
    generation = int.from_bytes(metadata[at : at + 4], sys.byteorder, signed=True)
    _, member_id, *_ = metadata[at + 4 :].split(b"\0")
    return generation >= 0 and bool(member_id)


def judge(error: KafkaError, *, delivery: KafkaError | None = None) -> Result:
    """What a failed call means for the burst. ``delivery``: first error a delivery report named."""
    if error.code() in _FENCED:
        return Result.FENCED
    if error.code() == KafkaError.FENCED_INSTANCE_ID:
        return Result.DISPLACED
    if delivery is not None and delivery.code() in _REFUSED:
        return Result.REFUSED
    if error.code() in _REFUSED:
        return Result.REFUSED
    if error.fatal():
        return Result.UNKNOWN
    if error.code() in _REBALANCING:
        return Result.REBALANCING
    if error.txn_requires_abort():
        return Result.ABORTED
    return Result.UNKNOWN


def kafka_error(error: KafkaException | SystemError) -> KafkaError:
    """What a call on the producer failed with.

    For a fatal error confluent-kafka sets a Python exception and then still runs the delivery reports of the same call,
    which Python answers with SystemError; the error that says what happened is its cause (measured: a producer fenced
    with records in flight).
    """
    cause: BaseException | None = error
    while isinstance(cause, SystemError):  # one around another for each delivery report
        cause = cause.__cause__
    if cause is None:  # also seen: no exception at all; the next call on the producer names the reason
        return KafkaError(KafkaError._FATAL, "the client ended a call without an exception")
    if not isinstance(cause, KafkaException):
        raise error
    found: KafkaError = cause.args[0]
    return found


def produce(producer: Producer, records: Iterable[OutRecord], report: Report) -> None:
    """Hands records to the client.

    Every record has a report, if only for its error: without one the flush of a fenced producer was seen to wait for
    its whole timeout, or to end with no exception at all.
    """
    send = producer.produce
    for topic, partition, key, value, headers in records:
        while True:
            try:
                send(
                    topic,
                    value,
                    key,
                    PARTITION_UA if partition is None else partition,
                    report,
                    headers=headers if type(headers) is list else list(headers),
                )
                break
            except BufferError:
                # bounded by message.timeout.ms: each queued message leaves the queue by then
                producer.poll(0.1)


class Transaction:
    """Runs bursts on one producer: begun in the engine thread, finished in the committer's, never both at once.

    Guarantee: after ``COMMITTED`` all records and offsets are visible to read_committed readers; after ``ABORTED`` and
    ``REBALANCING`` none ever will be.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._delivery_error: KafkaError | None = None
        self._metadata = b""
        self._started_s = 0.0
        self._took_s = 0.0
        self._returns_by_s = math.inf  # when the call under way has to be back
        self.ends: dict[tuple[str, int], int] = {}  # next changelog offset by (topic, partition), of this burst

    def note_delivery(self, error: KafkaError | None, message: Message) -> None:
        """Delivery report: called from produce, poll and flush, in whichever thread does that."""
        if error is not None:
            self._note_error(error, message)
            return
        key = (message.topic(), message.partition())
        self.ends[key] = message.offset() + 1

    def begin(self, records: Iterable[OutRecord], reported: Iterable[OutRecord], consumer: Consumer) -> Ended | None:
        """Begins a transaction and produces ``records`` and ``reported`` (of whose partitions the ends are wanted).

        To be called in the thread that serves the rebalance callbacks, right after the burst was made of owned
        partitions, and the callbacks have to wait for ``finish``: the group metadata is read here, and between the two
        nothing may have rejoined.

        Returns:
            None: go on with ``finish``. Otherwise how it ended already.
        """
        metadata = consumer.consumer_group_metadata()
        if not is_member(metadata):
            return Ended(Result.REBALANCING, None)  # the group is lost; the callback that says so comes with a poll
        self._metadata = metadata
        self._started_s = time.monotonic()
        self._delivery_error = None
        self.ends = {}
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            return Ended(judge(error.args[0]), error.args[0])
        try:
            produce(self._producer, records, self._note_error)
            self._produce_reported(reported)
        except (KafkaException, SystemError) as error:
            return self._abort(kafka_error(error))
        return None

    def finish(self, offsets: list[OffsetCommit]) -> Ended:
        """Waits for the records, sends the offsets, commits. May run in another thread than ``begin``."""
        ended = self._finish(offsets)
        self._took_s = time.monotonic() - self._started_s
        if ended.result is Result.FENCED and self._took_s >= TRANSACTION_TIMEOUT_MS / 1_000:
            # the coordinator ends a transaction that took too long by the same fence that a newer producer brings
            return Ended(Result.UNKNOWN, ended.error)
        return ended

    def _finish(self, offsets: list[OffsetCommit]) -> Ended:
        try:
            self._returns_by_s = time.monotonic() + FLUSH_TIMEOUT_S
            left = self._producer.flush(FLUSH_TIMEOUT_S)
            self._returns_by_s = math.inf
            if left or self._delivery_error is not None:
                return self._abort(self._delivery_error)
            self._repeat(
                lambda: self._producer.send_offsets_to_transaction(
                    [TopicPartition(o.topic, o.partition, o.offset, o.metadata) for o in offsets],
                    self._metadata,
                    CALL_TIMEOUT_S,
                )
            )
            self._repeat(lambda: self._producer.commit_transaction(CALL_TIMEOUT_S))
        except (KafkaException, SystemError) as error:
            return self._abort(kafka_error(error))
        return Ended(Result.COMMITTED, None)

    @property
    def worn(self) -> bool:
        """Whether the producer must not be used again after ``finish``: a request may have been made twice.

        librdkafka says nothing of it, but it takes its socket timeout. The first request may still be on its way: an
        end of this transaction that arrives within the next one ends that, half made (seen on Kafka 4.3.1; KIP-890
        mends it for clients that speak its second version). A new producer's epoch refuses it.
        """
        return self._took_s >= SOCKET_TIMEOUT_MS / 1_000

    @property
    def overdue(self) -> bool:
        """Whether ``finish`` hangs in a call that ignores its timeout. May be asked from another thread."""
        return time.monotonic() > self._returns_by_s + OVERDUE_S

    def probe(self, topic: str) -> Result:
        """Asks the coordinator whether this producer is still the newest of its id. Leaves nothing behind.

        Args:
            topic: one that may be written; what goes there is aborted.

        Returns:
            ABORTED: it is; FENCED: a newer one was made; anything else: the question got no answer.
        """
        refused: list[KafkaError] = []

        def note(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                refused.append(error)

        try:
            self._producer.begin_transaction()
            self._producer.produce(topic, partition=0, key=b"probe", on_delivery=note)
            self._producer.flush(CALL_TIMEOUT_S)
        except (KafkaException, SystemError) as error:
            return judge(kafka_error(error))
        if any(judge(error) is Result.FENCED for error in refused):
            return Result.FENCED
        return self._abort(None).result

    def _note_error(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._delivery_error is None:
            self._delivery_error = error

    def _produce_reported(self, records: Iterable[OutRecord]) -> None:
        """Only of the last record of each topic and partition the offset is noted: it is the highest."""
        last: dict[tuple[str, int | None], OutRecord] = {}
        for record in records:
            place = (record.topic, record.partition)
            if (earlier := last.get(place)) is not None:
                produce(self._producer, (earlier,), self._note_error)
            last[place] = record
        produce(self._producer, last.values(), self.note_delivery)

    def _repeat(self, call: Any) -> None:
        for attempt in range(1, CALL_ATTEMPTS_MAX + 1):
            self._returns_by_s = time.monotonic() + CALL_TIMEOUT_S
            try:
                call()
                return
            except (KafkaException, SystemError) as error:
                if not kafka_error(error).retriable() or attempt == CALL_ATTEMPTS_MAX:
                    raise
            finally:
                self._returns_by_s = math.inf

    def _abort(self, error: KafkaError | None) -> Ended:
        result = Result.ABORTED if error is None else judge(error, delivery=self._delivery_error)
        if error is not None and error.code() in _GAVE_UP:
            result = Result.UNKNOWN  # the client forgot the transaction; aborting says why, and whether it was fenced
        elif result in (Result.FENCED, Result.UNKNOWN):
            return Ended(result, error)
        try:
            self._repeat(lambda: self._producer.abort_transaction(CALL_TIMEOUT_S))
        except (KafkaException, SystemError) as failed:
            after = kafka_error(failed)
            return Ended(Result.FENCED if judge(after) is Result.FENCED else Result.UNKNOWN, after)
        return Ended(result, error)
