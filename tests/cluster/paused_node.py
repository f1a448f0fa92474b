"""What a node answers that was paused and does not know yet that others lead: asked plainly, and as a restore asks.

``python -m tests.cluster.paused_node ROUNDS`` prints both, round by round: why restores write before they read
(choreo/DESIGN.md 30).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import NewTopic, OffsetSpec
from rich.console import Console

from choreo.errors import HostError
from choreo.runtime import kafka_config
from choreo.runtime.barrier import Mark, written_ends
from choreo.runtime.broker import EmbeddedCluster, Node
from choreo.runtime.committer import Committer
from choreo.runtime.group_offsets import GroupOffsets
from choreo.runtime.log_ends import log_ends
from tests.chaos import reader
from tests.cluster import metadata
from tests.cluster.faults import SETTINGS

T = TypeVar("T")

DEAD_S: Final = 9.5
"""After so long the controllers take a node for dead; others lead."""
PATIENCE_S: Final = 60.0
CALL_S: Final = 5.0
COMMIT_S: Final = 3 * CALL_S + 1.0
"""librdkafka's send_offsets_to_transaction may never return once a coordinator went, whatever its timeout."""
IN_THE_SOCKET_S: Final = 2.0
"""Until the questions wait in the paused node's socket: it answers them first when it wakes up."""


class Answers(NamedTuple):
    """Of the woken node, beside what was true."""

    committed: int
    offset: int  # asked plainly
    marked_offset: int  # asked until a mark shows
    end: int
    log_end: int  # asked plainly
    written_end: int  # after a record that was acknowledged

    @property
    def plain_is_old(self) -> bool:
        return self.offset < self.committed or self.log_end < self.end

    @property
    def restore_is_right(self) -> bool:
        return self.marked_offset == self.committed and self.written_end > self.end


class Work:
    """A group that commits offsets in transactions, and the log that the transactions fill."""

    def __init__(self, cluster: EmbeddedCluster, name: str) -> None:
        self.cluster, self.name, self.committed = cluster, name, 0
        admin = metadata.admin(cluster)
        for made in admin.create_topics([NewTopic(name, 1, 3), NewTopic(f"{name}.mark", 1, 3)]).values():
            made.result(20)
        cluster.wait_in_sync()
        settings = kafka_config.group_consumer(
            cluster.bootstrap, {}, group=name, instance="w0", session_timeout_ms=45_000
        )
        self.member = Consumer({**settings, "auto.offset.reset": "earliest", "log_level": 0})
        self.member.subscribe([name])
        _until(self._joined)
        self._producer = self._new_producer()

    def settings(self, bootstrap: str, transactional_id: str) -> kafka_config.Settings:
        return {**kafka_config.transactional_producer(bootstrap, {}, transactional_id=transactional_id), "log_level": 0}

    def _joined(self) -> bool:
        self.member.poll(0.2)
        return bool(self.member.assignment())

    def _new_producer(self) -> Producer:
        producer = Producer(self.settings(self.cluster.bootstrap, self.name))
        producer.init_transactions(PATIENCE_S)
        return producer

    def commit(self, times: int) -> None:
        for _ in range(times):
            self.committed += 1
            _until(self._commit)

    def _commit(self) -> bool:
        self.member.poll(0.05)
        committer: Committer[bool] = Committer("commit")
        committer.start(self._transaction)
        try:
            done = committer.result(COMMIT_S) is not None
        except KafkaException:  # a node went; whether it was committed does not matter, it is done again
            done = False
        committer.abandon()
        if not done:
            self._producer = self._new_producer()
        return done

    def _transaction(self) -> bool:
        self._producer.begin_transaction()
        self._producer.produce(self.name, str(self.committed), partition=0)
        self._producer.flush(CALL_S)
        offset = TopicPartition(self.name, 0, self.committed)
        self._producer.send_offsets_to_transaction([offset], self.member.consumer_group_metadata(), CALL_S)
        self._producer.commit_transaction(CALL_S)
        return True

    def leave(self, mark: Mark) -> None:
        """Until the group's true coordinator shows it."""
        with _offsets(self.cluster.bootstrap, self.name) as group:

            def shown() -> bool:
                mark.leave(lambda places: self.member.commit(offsets=places, asynchronous=True))
                self.member.poll(0.2)
                found = group.ask(mark.places, 5.0)
                return found is not None and mark.stands_in(found)

            _until(shown)


def ask_a_woken_node(work: Work, node: Node, text: str) -> Answers:
    """Pauses a node until others lead, goes on, and asks it for offsets and ends in the moment it wakes up."""
    work.commit(5)
    node.pause()
    time.sleep(DEAD_S)
    work.commit(5)
    mark = Mark([TopicPartition(f"{work.name}.mark", 0)], text)
    work.leave(mark)
    place = (work.name, 0)
    with ThreadPoolExecutor(4) as threads:
        offset = threads.submit(_offset, node.bootstrap, work.name, None)
        marked = threads.submit(_offset, node.bootstrap, work.name, mark)
        end = threads.submit(
            lambda: log_ends(node.bootstrap, {}, [place], OffsetSpec.latest(), patience_s=PATIENCE_S)[place]
        )
        written = threads.submit(_written_end, work, node)
        true_end = reader.ends(work.cluster.bootstrap, work.name)[0]
        time.sleep(IN_THE_SOCKET_S)
        node.resume()
        return Answers(work.committed, offset.result(), marked.result(), true_end, end.result(), written.result())


def _offset(bootstrap: str, group: str, mark: Mark | None) -> int:
    with _offsets(bootstrap, group) as client:

        def answer() -> list[TopicPartition] | None:
            marks = [] if mark is None else mark.places
            try:
                found = client.ask([TopicPartition(group, 0), *marks], 30.0)
            except HostError:
                return None
            return found if found is not None and (mark is None or mark.stands_in(found[1:])) else None

        return int(_until(answer)[0].offset)


def _written_end(work: Work, node: Node) -> int:
    def written() -> dict[tuple[str, int], int] | None:
        settings = work.settings(node.bootstrap, f"{work.name}:restore")
        try:
            return written_ends(settings, node.bootstrap, [(work.name, 0)])
        except HostError:
            return None

    return _until(written)[work.name, 0]


@contextmanager
def _offsets(bootstrap: str, group: str) -> Iterator[GroupOffsets]:
    client = GroupOffsets(bootstrap, {}, group, stable=True)
    try:
        yield client
    finally:
        client.close()


def _until(ask: Callable[[], T | None]) -> T:
    """The first answer that says something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := ask()):
        assert time.monotonic() < deadline, "the cluster does not come back"
        time.sleep(0.05)
    return answer


def leader_of(work: Work, number: int) -> Node:
    """In turn the node that has the group's offsets and the one that has the log."""
    if number % 2 == 0:
        return metadata.coordinator(work.cluster, metadata.OFFSETS_TOPIC, work.name)
    return metadata.leader(work.cluster, work.name, 0)


def main() -> int:
    rounds, right = int(sys.argv[1]), True
    console = Console(stderr=True)
    with EmbeddedCluster(settings=SETTINGS) as cluster:
        work = Work(cluster, "paused")
        for number in range(rounds):
            answers = ask_a_woken_node(work, leader_of(work, number), f"round {number}")
            right = right and answers.restore_is_right
            console.print(number, answers, "OLD" if answers.plain_is_old else "", highlight=False)
            cluster.wait_in_sync()
        work.member.close()
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
