"""Kafka's clients in memory: what confluent-kafka's consumer, producer and admin client do, as the runtime uses them.

They stand on a ``MemoryBus`` and a ``Group`` and belong to one ``Process``. Whatever they do is a fault point; a seeded
world lets them fail in the ways that were seen on a real broker. Behaviour was taken from measurements, which
``choreo/runtime/session.py``, ``transaction.py`` and ``restore.py`` name where they rely on them.
"""

from __future__ import annotations

import struct
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import OffsetSpec

from choreo.errors import FencedSignal
from choreo.kernel.burst import OffsetCommit
from choreo.kernel.values import Delivery, OutRecord
from choreo.runtime.unowned import LOOK_TIMEOUT_S
from choreo.testing.bus import Committed, MemoryProducer
from tests.kernel.cluster import GROUP, Metadata
from tests.kernel.fakes import CHANGELOG, DEAD, DECISIONS, OUT, REJECTED
from tests.kernel.places import JOURNAL, PARKED, TIMERS

if TYPE_CHECKING:
    from tests.kernel.cluster import Member
    from tests.kernel.process import Point, Process

PARTITION_UA: Final = -1
Place = tuple[str, int]
Report = Callable[[KafkaError | None, Any], None]

EARLY = 0.3
"""How often a record is in the log before it has to be."""
_PREFIX: Final = b"CGMDv2:"
_EOF: Final = KafkaError(KafkaError._PARTITION_EOF, "end of partition")
_READING: Final = {
    CHANGELOG: "restore rows",
    JOURNAL: "restore journal",
    TIMERS: "restore timers",
    PARKED: "restore parked",
}
COMMIT_FAULTS: Final = (
    "commit aborted",
    "commit unknown, not committed",
    "commit unknown, committed",
    "commit acknowledged late",
    "commit fails for good, committed",
    "commit fails for good, not committed",
)


def timed_out(what: str) -> KafkaException:
    """What a call is answered with when the broker's answer was lost: it may be made again."""
    return KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{what} timed out", False, True, False))


def must_abort(code: int, what: str) -> KafkaException:
    return KafkaException(KafkaError(code, what, False, False, True))


def fatal(code: int, what: str) -> KafkaException:
    return KafkaException(KafkaError(code, what, True, False, False))


class Message:
    """A record, or an error in its place."""

    __slots__ = ("_delivery", "_error")

    def __init__(self, delivery: Delivery, error: KafkaError | None = None) -> None:
        self._delivery = delivery
        self._error = error

    def error(self) -> KafkaError | None:
        return self._error

    def topic(self) -> str:
        return self._delivery.topic

    def partition(self) -> int:
        return self._delivery.partition

    def offset(self) -> int:
        return self._delivery.offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self._delivery.timestamp_ms

    def key(self) -> bytes | None:
        return self._delivery.key

    def value(self) -> bytes | None:
        return self._delivery.value

    def headers(self) -> list[tuple[str, bytes]] | None:
        return list(self._delivery.headers) or None


def _message_of_error(error: KafkaError, topic: str = "", partition: int = -1, offset: int = -1) -> Message:
    return Message(Delivery(topic, partition, offset, 0, None, None, ()), error)


class MemoryConsumer:
    """A consumer that is assigned by hand (``assign``), or by its group (``subscribe``)."""

    def __init__(self, process: Process, settings: Mapping[str, Any]) -> None:
        self.process = process
        self.world = process.world
        self.instance: str | None = settings.get("group.instance.id")
        self.isolation: str = settings["isolation.level"]
        self.member: Member | None = None
        self.positions: dict[Place, int] = {}
        self.paused: set[Place] = set()
        self.in_callback = False
        self.closed = False
        self._callbacks: dict[str, Callable[[Any, list[TopicPartition]], None]] | None = None
        self._topic = ""
        self._leaving = False
        self._fetched: deque[Message] = deque()
        self._ended: dict[Place, int] = {}
        self._on_commit: Callable[[KafkaError | None, list[TopicPartition]], None] = settings.get(
            "on_commit", lambda error, places: None
        )

    # -- group ---------------------------------------------------------------------------------------------------------

    def subscribe(self, topics: list[str], **callbacks: Callable[[Any, list[TopicPartition]], None]) -> None:
        with self.process.point("subscribe"):
            self._topic = topics[0]
            self._callbacks = callbacks
            self.process.consumer = self

    def unsubscribe(self) -> None:
        """Leaves its group, once the callbacks have run in the next poll."""
        with self.process.point("unsubscribe"):
            self.world.note("joins again", self.instance)
            self._leaving = True

    def memberid(self) -> str:
        return "" if self.member is None else member_name(self.instance or "", self.member.member_id)

    def committed(self, wanted: list[TopicPartition], timeout_s: float) -> list[SimpleNamespace]:
        """What a restore asks first. Offsets that a transaction may still change get no answer, at read_committed."""
        with self.process.point("restore offsets"):
            self.process.switch()
            if self.world.strikes("coordinator moves", 0.1):
                raise KafkaException(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, "loading"))
            known = self.world.group.known()
            if self.world.strikes("coordinator behind", 0.2):  # it was paused and does not know that others lead
                known = self.world.chance.choice([*self.world.known_earlier, known])
            unstable = any((one.topic, one.partition) in known.unstable for one in wanted)
            if self.world.strikes("cluster away", 0.03) or (self.isolation == "read_committed" and unstable):
                self.world.pass_s(timeout_s)
                raise timed_out("committed")
            return [self._committed(one, known.offsets) for one in wanted]

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        """As a member of the group, in no transaction: what a restore marks its places with."""
        assert asynchronous
        with self.process.point("restore marks"):
            self.process.switch()
            error = None
            if self.world.strikes("coordinator moves", 0.1):
                error = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, "loading")
            elif self.member is None or not self.world.group.knows(self.member):
                error = KafkaError(KafkaError.UNKNOWN_MEMBER_ID, "unknown")
            else:
                for one in offsets:
                    place = (GROUP, one.topic, one.partition)
                    self.world.bus._offsets[place] = Committed(one.offset, one.metadata or "")
            self._on_commit(error, offsets)

    def _committed(self, one: TopicPartition, known: Mapping[tuple[str, str, int], Committed]) -> SimpleNamespace:
        committed = known.get((GROUP, one.topic, one.partition))
        return SimpleNamespace(
            topic=one.topic,
            partition=one.partition,
            offset=-1001 if committed is None else committed.offset,
            metadata="" if committed is None else committed.metadata,
            error=None,
        )

    def consumer_group_metadata(self) -> bytes:
        with self.process.point("group metadata"):
            member = self.member
            known = member is not None and self.world.group.knows(member)
            heard = not self.world.restless or self.world.chances(0.5)  # its client of what the group did
            if member is None or (not known and heard):
                generation, member_id = -1, ""
            else:
                generation, member_id = member.generation, str(member.member_id)
            fields = (GROUP.encode(), member_id.encode(), (self.instance or "").encode(), b"")
            return _PREFIX + generation.to_bytes(4, sys.byteorder, signed=True) + b"\0".join(fields)

    def _serve(self) -> Message | None:
        """The group's news: joins, and runs the callbacks. An error if the group wants nothing of this member."""
        callbacks, group = self._callbacks, self.world.group
        if callbacks is None:
            return None
        assert self.instance is not None
        if self._leaving and self.member is not None:
            if self.member.owned:
                self._call("revoke", self.member.owned)
            if group.knows(self.member):
                group.expire(self.instance)
            self.member = None
        self._leaving = False
        if self.member is None:
            self.member = group.join(self.instance)
        member = self.member
        if group.displaced(member):
            self.world.note("displaced", self.instance)
            return _fenced_instance()
        if not group.knows(member):
            self.world.note("lost", self.instance)
            self._call("lost", member.owned)
            self.member = member = group.join(self.instance)
        group.heartbeat(member)
        if not self.world.chances(0.2):  # the callbacks may come later than the answer of the group
            self._serve_assignment(callbacks, member)
        return None

    def _serve_assignment(self, callbacks: Any, member: Member) -> None:
        group = self.world.group
        assigned = group.assignment(member)
        if assigned is None:
            return
        gone = member.owned - assigned
        if gone:
            self._call("revoke", gone)
            if self.world.strikes("dies giving up", 0.5):
                self.process.crash_wanted = True
                self.process.switch()
            member.owned -= gone
            if group.knows(member):
                group.rebalance()
        new = assigned - member.owned
        member.owned |= new
        self._call("assign", new)
        if self.world.repeats_callbacks:
            self._call("assign", new)

    def _call(self, name: str, numbers: Iterable[int]) -> None:
        assert self._callbacks is not None
        self.in_callback = True
        try:
            with self.process.point(f"{name} callback"):
                self._callbacks[f"on_{name}"](self, [TopicPartition(self._topic, number) for number in sorted(numbers)])
        finally:
            self.in_callback = False

    # -- assignment ----------------------------------------------------------------------------------------------------

    def assign(self, places: list[TopicPartition]) -> None:
        with self.process.point("restore open"):
            self._start(places)

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        if not places:
            return
        with self.process.point("fetch start"):
            if self.world.strikes("assignment refused", 0.2):
                raise KafkaException(KafkaError(KafkaError._STATE, "not now"))
            self._start(places)

    def _start(self, places: list[TopicPartition]) -> None:
        for one in places:
            place = (one.topic, one.partition)
            if place in self.positions:
                raise KafkaException(KafkaError(KafkaError._CONFLICT, f"{place} is assigned already"))
            self.positions[place] = one.offset
            if self._callbacks is not None and self.world.chances(0.2):
                self.positions[place] = self.world.chance.randint(0, one.offset)
                self.world.note("read again")

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        with self.process.point("fetch end"):
            gone = {(one.topic, one.partition) for one in places}
            if not gone <= set(self.positions):
                raise KafkaException(KafkaError(KafkaError._INVALID_ARG, "not assigned"))
            for place in gone:
                del self.positions[place]
                self._ended.pop(place, None)
            self._fetched = deque(one for one in self._fetched if (one.topic(), one.partition()) not in gone)

    def pause(self, places: list[TopicPartition]) -> None:
        if self._callbacks is None:  # the restore's reader is done with one
            self._pause(places)
            return
        with self.process.point("pause fetch"):
            self._pause(places)

    def _pause(self, places: list[TopicPartition]) -> None:
        for one in places:
            place = (one.topic, one.partition)
            if place not in self.positions:
                raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION, f"{place} is not assigned"))
            self.paused.add(place)
        kept: deque[Message] = deque()
        for message in self._fetched:  # what was fetched before is fetched again
            place = (message.topic(), message.partition())
            if place not in self.paused:
                kept.append(message)
                continue
            self.positions[place] = min(self.positions[place], message.offset())
            self._ended.pop(place, None)
        self._fetched = kept

    def resume(self, places: list[TopicPartition]) -> None:
        with self.process.point("resume fetch"):
            for one in places:
                self.paused.discard((one.topic, one.partition))
                self._ended.pop((one.topic, one.partition), None)  # as librdkafka, which says so anew (measured)

    # -- records -------------------------------------------------------------------------------------------------------

    def poll(self, timeout_s: float) -> Message | None:
        if self._callbacks is None:
            return self._poll_reader(timeout_s)
        self.process.at("poll", "before")
        self.process.switch()
        message = self._one()
        if message is None and timeout_s > 0:
            self.world.pass_s(timeout_s)
            self.process.switch()
            message = self._one()
        if message is not None:
            self._note_error(message)
        self.process.at("poll", "after")
        return message

    def _one(self) -> Message | None:
        error = self._serve() or self._fault()
        if error is not None:
            return error
        if not self._fetched:
            self._fetch()
        return self._fetched.popleft() if self._fetched else None

    def _fault(self) -> Message | None:
        world = self.world
        if world.strikes("consumer error", 0.05):
            return _message_of_error(KafkaError(KafkaError._TRANSPORT, "broker away"))
        if world.strikes("consumer broken", 0.02):
            return _message_of_error(KafkaError(KafkaError._FATAL, "consumer broken", True))
        if world.strikes("displaced by nobody", 0.02):
            return _fenced_instance()
        return None

    def _note_error(self, message: Message) -> None:
        error = message.error()
        if error is not None and error is not _EOF:
            with self.process.point("consumer error"):
                pass

    def _poll_reader(self, timeout_s: float) -> Message | None:
        self.process.switch()
        if not self._fetched:
            self._fetch()
        if not self._fetched:
            self.world.pass_s(timeout_s)
            return None
        return self._handed(self._fetched.popleft())

    def consume(self, most: int, timeout_s: float) -> list[Message]:
        if self.world.chances(0.5):
            self._fetch()
        found: list[Message] = []
        while self._fetched and len(found) < most:
            message = self._fetched.popleft()
            found.append(message if self._callbacks is not None else self._handed(message))
        return found

    def _handed(self, message: Message) -> Message:
        """A record of the restore's reader."""
        name = "restore topic end" if message.error() is not None else _READING[message.topic()]
        with self.process.point(name):
            return message

    def _fetch(self) -> None:
        world = self.world
        for place, position in self.positions.items():
            if place in self.paused or place in self.world.slow:
                continue
            topic, number = place
            found, after = world.bus.read(topic, number, position, committed_only=self.isolation == "read_committed")
            if self._callbacks is None and world.strikes("reader behind", 0.2):  # of a node that leads no more
                after = max(position, after - world.chance.randint(1, 3))
                found = [one for one in found if one.offset < after]
            most = world.chance.choice((1, 5, 1_000)) if world.restless else 1_000
            if len(found) > most:
                found, after = found[:most], found[most].offset
                self._fetched.extend(map(Message, found))
            else:
                self._fetched.extend(map(Message, found))
                if self._ended.get(place) != after:
                    self._ended[place] = after
                    self._fetched.append(_message_of_error(_EOF, topic, number, after))
            self.positions[place] = after

    def has_read(self, place: Place) -> bool:
        return not self._fetched and self.positions.get(place, -1) >= self.world.bus.end_offset(*place)

    def close(self) -> None:
        """A static member does not leave its group, but its callbacks run."""
        if self._callbacks is None:
            self.process.alive()
            self.closed = True
            return
        with self.process.point("leave"):
            if self.member is not None and self.world.group.knows(self.member) and self.member.owned:
                self._call("revoke", self.member.owned)
            self.closed = True
            self.process.consumer = None


def _fenced_instance() -> Message:
    return _message_of_error(
        KafkaError(KafkaError.FENCED_INSTANCE_ID, "Static consumer fenced by other consumer with same id", True)
    )


class MemoryTransactionalProducer:
    """A transactional producer. What ``produce`` takes reaches the log by ``flush`` at the latest."""

    def __init__(self, process: Process, settings: Mapping[str, Any]) -> None:
        self.process = process
        self.world = process.world
        self.id: str = settings["transactional.id"]
        self.state = "new"  # ready | open | abortable | broken
        self._memory: MemoryProducer | None = None
        self._queue: deque[tuple[OutRecord, Report | None]] = deque()
        self._reports: list[tuple[Report, KafkaError | None, Message]] = []
        self._why = (KafkaError.INVALID_TXN_STATE, "")
        self._commit_fault = ""
        self._lost_answers = 0
        self._restores = self.id == f"{process.owner}:restore"

    def _point(self, name: str) -> Point:
        return self.process.point("restore writes" if self._restores else name)

    # -- life ----------------------------------------------------------------------------------------------------------

    def init_transactions(self, timeout_s: float) -> None:
        own = self.id == self.process.owner
        with self._point("producer init" if own else "restore fences"):
            if not own and not self._restores:
                self.world.note("ends transaction of", self.id)
            if self.world.strikes("cluster away", 0.05):
                raise timed_out("init_transactions")
            self._memory = self.world.bus.producer(self.id)
            self.state = "ready"
        if own:
            self.process.producer = self

    @property
    def in_transaction(self) -> bool:
        return self.state in ("open", "abortable")

    def begin_transaction(self) -> None:
        with self._point("begin"):
            if self.state != "ready":
                raise fatal(KafkaError._STATE, f"begin_transaction in state {self.state}")
            assert self._memory is not None
            self._commit_fault, self._lost_answers = "", 0
            try:
                self._memory.begin()
            except FencedSignal:
                self.world.note("zombie begins")  # the client alone does not know yet
            self.state = "open"

    # -- records -------------------------------------------------------------------------------------------------------

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int = PARTITION_UA,
        on_delivery: Report | None = None,
        *,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        with self._point(_kind(topic, key, value)):
            if self.state == "broken":
                raise fatal(KafkaError._FATAL, "the client stopped")
            if self.state != "open" and self.state != "abortable":
                raise fatal(KafkaError._STATE, f"produce in state {self.state}")
            if self._queue and self.world.strikes("queue full", 0.05):
                raise BufferError("queue full")
            number = None if partition == PARTITION_UA else partition
            self._queue.append((OutRecord(topic, number, key, value, tuple(headers or ())), on_delivery))
        if self.world.chances(EARLY):
            self._append()

    def poll(self, timeout_s: float) -> int:
        self.process.switch()
        if self._queue:
            self._append()
        return self._report()

    def flush(self, timeout_s: float) -> int:
        with self._point("flush"):
            if self._queue and self.world.strikes("flush took too long", 0.1):
                self.world.pass_s(timeout_s)
                return len(self._queue)
            while self._queue:
                self._append()
            self._report()
        return 0

    def _append(self) -> None:
        """One queued record into the log, or its error into the reports."""
        record, report = self._queue[0]
        with self._point("append"):
            assert self._memory is not None
            error, number, offset = None, -1, -1
            if record.value == REJECTED:
                error = self._abortable(KafkaError.MSG_SIZE_TOO_LARGE, "refused")
            elif self.world.strikes("record not acknowledged", 0.02):
                error = self._abortable(KafkaError._MSG_TIMED_OUT, "no acknowledgement")
            else:
                try:
                    number, offset = self._memory.send(record, self.world.now_ms)
                except FencedSignal:
                    code = self.world.chance.choice(
                        (KafkaError._PURGE_INFLIGHT, KafkaError._PURGE_QUEUE, KafkaError.INVALID_PRODUCER_EPOCH)
                    )
                    error = KafkaError(code, "purged")
                    self.state = "broken"
            self._queue.popleft()
            if report is not None:
                delivery = Delivery(record.topic, number, offset, 0, record.key, record.value, ())
                self._reports.append((report, error, Message(delivery)))

    def _abortable(self, code: int, what: str) -> KafkaError:
        """The transaction can only be aborted; each later call says why (librdkafka: commit_transaction)."""
        self.state = "abortable"
        self._why = (code, what)
        return KafkaError(code, what)

    def _report(self) -> int:
        reports, self._reports = self._reports, []
        for report, error, message in reports:
            report(error, message)
        return len(reports)

    # -- ends ----------------------------------------------------------------------------------------------------------

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], metadata: bytes, timeout_s: float) -> None:
        with self._point("send offsets"):
            self._may_go_on()
            world = self.world
            verdict = world.group.verdict(_sent(metadata))
            if verdict != "accepted":
                code = {
                    "rebalancing": KafkaError.ILLEGAL_GENERATION,
                    "unknown member": KafkaError.UNKNOWN_MEMBER_ID,
                    "displaced": KafkaError.FENCED_INSTANCE_ID,
                }[verdict]
                world.note(f"refused: {verdict}", self.process.instance)
                self._abortable(code, verdict)
                raise must_abort(code, verdict)
            if world.strikes("offsets not sent", 0.6):
                raise timed_out("send_offsets_to_transaction")
            if world.strikes("offsets refused", 0.6):
                self._abortable(KafkaError.COORDINATOR_NOT_AVAILABLE, "abort")
                raise must_abort(KafkaError.COORDINATOR_NOT_AVAILABLE, "abort")
            self._do(lambda memory: world.group.send_offsets(memory, [_commit(one) for one in offsets]))
            if world.strikes("dies committing", 1.0):
                world.group.expire(self.process.instance)
                self.process.crash_wanted = True
                self.process.switch()
            if world.strikes("offsets acknowledged late", 0.6):
                raise timed_out("send_offsets_to_transaction")

    def commit_transaction(self, timeout_s: float) -> None:
        with self._point("commit"):
            if self.state == "ready":  # it was, its answer got lost
                self._lose_answer()
                return
            self._may_go_on()
            if not self._commit_fault:
                self._commit_fault = self.world.commit_fault()
            fault = self._commit_fault
            if fault == "commit aborted":
                self._abortable(KafkaError.INVALID_TXN_STATE, "abort")
                raise must_abort(KafkaError.INVALID_TXN_STATE, "abort")
            if fault == "commit fails for good, not committed":
                self.state = "broken"
                raise fatal(KafkaError._FATAL, "the client stopped")
            if fault == "commit unknown, not committed":
                self.world.pass_s(timeout_s)
                raise timed_out("commit_transaction")
            self._do(self.world.commit)
            self.state = "ready"
            if fault == "commit fails for good, committed":
                self.state = "broken"
                raise fatal(KafkaError._FATAL, "the client stopped")
            if fault == "commit unknown, committed":
                self._lost_answers = 3
            elif fault == "commit acknowledged late":
                self._lost_answers = self.world.chance.randint(1, 2)
            self._lose_answer()

    def _lose_answer(self) -> None:
        if self._lost_answers:
            self._lost_answers -= 1
            self.world.pass_s(1.0)
            raise timed_out("commit_transaction")

    def abort_transaction(self, timeout_s: float) -> None:
        with self._point("abort"):
            if self.state == "broken":
                if self._is_fenced():
                    raise fatal(KafkaError._FENCED, "fenced")
                raise fatal(KafkaError._FATAL, "the client stopped")
            if self.state not in ("open", "abortable"):
                raise fatal(KafkaError._STATE, f"abort_transaction in state {self.state}")
            if self.world.strikes("abort not acknowledged", 0.3):
                raise timed_out("abort_transaction")
            self._do(lambda memory: memory.abort())
            self._queue.clear()
            self._reports.clear()
            self.state = "ready"

    def _may_go_on(self) -> None:
        if self.state == "abortable":
            raise must_abort(*self._why)
        if self.state == "broken":
            raise fatal(KafkaError._FENCED if self._is_fenced() else KafkaError._FATAL, "the client stopped")
        if self.state != "open":
            raise fatal(KafkaError._STATE, f"in state {self.state}")

    def _is_fenced(self) -> bool:
        return self._memory is not None and self._memory._fenced

    def _do(self, action: Callable[[MemoryProducer], Any]) -> None:
        assert self._memory is not None
        try:
            action(self._memory)
        except FencedSignal:
            self.state = "broken"
            error = fatal(KafkaError._FENCED, "fenced")
            if self.world.chances(0.3):  # confluent-kafka runs delivery reports while an exception is set (measured)
                raise SystemError("a delivery report ran with an exception set") from error
            raise error from None


def _kind(topic: str, key: bytes | None, value: bytes | None) -> str:
    if topic == OUT:
        return "produce output"
    if topic == DECISIONS:
        return "produce decision"
    if topic == DEAD:
        return "produce dead letter"
    if topic == CHANGELOG:
        return "produce row"
    if topic == TIMERS:
        return "produce timer deletion" if value is None else "produce timer"
    if topic == PARKED:
        return "produce parked deletion" if value is None else "produce parked row"
    assert topic == JOURNAL, f"nobody should write to {topic}"
    if key == b"probe":
        return "produce entity state"
    return "produce checkpoint" if key is not None and key.startswith(b'["checkpoint"') else "produce entity state"


def _sent(metadata: bytes) -> Metadata:
    at = len(_PREFIX)
    generation = int.from_bytes(metadata[at : at + 4], sys.byteorder, signed=True)
    _, member_id, instance, _ = metadata[at + 4 :].split(b"\0")
    return Metadata(instance.decode(), int(member_id or b"0"), generation)


def _commit(one: TopicPartition) -> OffsetCommit:
    return OffsetCommit(one.topic, one.partition, one.offset, one.metadata or "")


class Answered:
    """A future whose result is there."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def result(self, timeout: float | None = None) -> Any:
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result


class MemoryAdmin:
    """What a restore asks the cluster."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.world = process.world

    def list_offsets(
        self, wanted: Mapping[TopicPartition, OffsetSpec], *, isolation_level: IsolationLevel, request_timeout: float
    ) -> dict[TopicPartition, Answered]:
        earliest = all(type(spec) is type(OffsetSpec.earliest()) for spec in wanted.values())
        with self.process.point("restore starts" if earliest else "restore ends"):
            if self.world.strikes("leader moves", 0.05):
                error = KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION, "leader moved"))
                return {one: Answered(error) for one in wanted}
            behind = self.world.chance.randint(1, 5) if self.world.strikes("leader behind", 1.0) else 0
            return {one: Answered(self._offset(one, earliest, isolation_level, behind)) for one in wanted}

    def _offset(self, one: TopicPartition, earliest: bool, isolation: IsolationLevel, behind: int) -> SimpleNamespace:
        bus = self.world.bus
        if earliest:
            offset = 0
        elif isolation == IsolationLevel.READ_UNCOMMITTED:
            offset = bus.end_offset(one.topic, one.partition)
        else:
            offset = bus.read(one.topic, one.partition, 0)[1]
        return SimpleNamespace(offset=max(offset - behind, 0))

    def describe_topics(self, topics: TopicCollection, *, request_timeout: float) -> dict[str, Answered]:
        with self.process.point("look at the topics"):
            if self.world.strikes("cluster away", 0.05):
                raise timed_out("describe_topics")
            return {name: Answered(SimpleNamespace(topic_id=self.world.topic_id(name))) for name in topics.topic_names}

    def list_groups(self, group: str, timeout: float) -> list[SimpleNamespace]:
        restores = timeout > LOOK_TIMEOUT_S
        with self.process.point("restore asks the group" if restores else "look at the group"):
            if self.world.strikes("cluster away", 0.05):
                raise timed_out("list_groups")
            known = self.world.group
            members = [
                SimpleNamespace(
                    id=member_name(instance, member.member_id),
                    assignment=_assignment(self.world.input_names[0], numbers),
                )
                for instance, (member, numbers) in known.assigned().items()
            ]
            state = "Stable" if known.stable and members else "Empty" if not members else "PreparingRebalance"
            return [SimpleNamespace(state=state, members=members, error=None)]

    def list_topics(self, *, timeout: float) -> SimpleNamespace:
        return SimpleNamespace(topics=dict(self.world.bus.topics))


def member_name(instance: str, member_id: int) -> str:
    """As Kafka's coordinator makes it of an instance and a UUID."""
    return f"{instance}-{member_id:0>36}"


def _assignment(topic: str, numbers: Iterable[int]) -> bytes:
    """Kafka's ConsumerProtocolAssignment."""
    owned = sorted(numbers)
    if not owned:
        return struct.pack(">hi", 1, 0) + struct.pack(">i", 0)
    name = topic.encode()
    body = struct.pack(">hih", 1, 1, len(name)) + name + struct.pack(f">i{len(owned)}i", len(owned), *owned)
    return body + struct.pack(">i", 0)
