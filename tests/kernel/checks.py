"""What the log of a simulated world at rest must say."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from choreo.kernel.envelope import parse_headers, row_provenance
from choreo.kernel.packed import pack, unpack
from choreo.kernel.partitioner import murmur2_partition
from choreo.kernel.progress import Snapshot
from choreo.kernel.values import Delivery, Envelope, ParkedRow, TimerRow
from choreo.runtime.records import InternalRecords
from choreo.testing.bus import MemoryBus
from tests.kernel.fakes import CHANGELOG, DECISIONS, MORE, OUT, chained, count_and_chain
from tests.kernel.places import PARKED, TIMERS

if TYPE_CHECKING:
    from tests.kernel.world import World

_RECORDS: Final = InternalRecords()

EVENT_STEP_MS: Final = 100_000_000
"""Between the event times of two inputs: so much more than the wall clock of a run moves, even when it jumps, that
until the end only event time fires timers."""
CLOCK_JUMP_MS: Final = 3_600_000


class Broken(AssertionError):
    """A promise that a world did not keep."""


@dataclass(frozen=True)
class Sent:
    """One input record that became visible."""

    delivery: Delivery
    envelope: Envelope
    entity: str | None  # None: its key cannot be used
    words: tuple[str, ...]


class Folded:
    """What the state topics of one partition number say, read from their beginning."""

    def __init__(self, bus: MemoryBus, number: int) -> None:
        self.rows: dict[str, bytes] = {}
        self.timers: dict[bytes, TimerRow] = {}
        self.parked: dict[bytes, ParkedRow] = {}
        for one in bus.read(CHANGELOG, number, 0)[0]:
            assert one.key is not None
            if one.value is None:
                self.rows.pop(one.key.decode(), None)
            else:
                self.rows[one.key.decode()] = pack(row_provenance(one.headers) or "", one.value)
        for one in bus.read(TIMERS, number, 0)[0]:
            assert one.key is not None
            if one.value is None:
                self.timers.pop(one.key, None)
            else:
                self.timers[one.key] = _RECORDS.timer(one.value)
        for one in bus.read(PARKED, number, 0)[0]:
            assert one.key is not None
            if one.value is None:
                self.parked.pop(one.key, None)
            else:
                self.parked[one.key] = _RECORDS.parked(one.value)


class Checks:
    """Reads the log of a world at rest."""

    def __init__(self, world: World) -> None:
        self.world = world
        outputs = [json.loads(one.value or b"") for one in world.bus.read(OUT, 0, 0)[0]]
        self.outs = [told for told in outputs if "of" not in told]
        self.more = [told for told in outputs if "of" in told]
        self.dead = world.dead_letters()
        self.decisions = [json.loads(one.value or b"") for one in world.bus.read(DECISIONS, 0, 0)[0]]
        self.inputs = self._inputs()

    def all(self) -> None:
        self.every_input_ends_once()
        self.outputs_of_a_step_come_together()
        self.entities_in_order()
        self.rows_are_the_folds()
        self.timers_once()
        self.timers_in_event_time()
        self.decisions_are_numbered()
        self.offsets_are_at_the_end()
        self.duplicates_have_one_effect()

    def _inputs(self) -> dict[tuple[str, int, int], Sent]:
        world = self.world
        found: dict[tuple[str, int, int], Sent] = {}
        for topic in world.plan.inputs[:-1]:
            for number in range(world.plan.partitions):
                for one in world.bus.read(topic.name, number, 0)[0]:
                    entity: str | None = None
                    if one.key is not None and one.key != b"\xff\xfe":
                        entity = one.key.decode()
                        if murmur2_partition(one.key, world.plan.partitions) != number:
                            entity = None
                    words = tuple((one.value or b"").decode().split())
                    found[topic.name, number, one.offset] = Sent(one, parse_headers(one, topic), entity, words)
        return found

    def every_input_ends_once(self) -> None:
        ends: Counter[tuple[str, int, int]] = Counter()
        for told in (*self.outs, *self.dead):
            if told["source"] is not None:
                ends[tuple(told["source"])] += 1
        for status, _, _, source in self.decisions:
            if status == "duplicate":
                ends[tuple(source)] += 1
        for place, sent in self.inputs.items():
            expected = 1 + self.world.redrives[place]
            if ends[place] != expected:
                raise Broken(f"{place} {sent.entity} {sent.words}: {ends[place]} ends, expected {expected}")
        if set(ends) - set(self.inputs):
            raise Broken(f"ends of input that nobody sent: {set(ends) - set(self.inputs)}")
        letters = {tuple(told["source"]) for told in self.dead if told["source"] is not None}
        for place, sent in self.inputs.items():
            if sent.entity is None and place not in letters:
                raise Broken(f"{place} has an unusable key and is no dead letter")

    def outputs_of_a_step_come_together(self) -> None:
        expected = Counter({(told["id"], number): 1 for told in self.outs for number in range(told["more"])})
        found = Counter((told["of"], told["number"]) for told in self.more)
        if found != expected:
            raise Broken(f"of {MORE} further records of a step: {found}, expected {expected}")

    def entities_in_order(self) -> None:
        """Outputs of an entity follow its inputs' offsets, except what a person sent again."""
        last: dict[tuple[str, str], int] = {}
        again = {place for place, count in self.world.redrives.items() if count}
        for told in self.outs:
            if told["source"] is None or tuple(told["source"]) in again:
                continue
            topic, _, offset = told["source"]
            if offset <= last.get((told["entity"], topic), -1):
                raise Broken(f"{told['entity']}: {topic} offset {offset} after {last[told['entity'], topic]}")
            last[told["entity"], topic] = offset

    def rows_are_the_folds(self) -> None:
        world = self.world
        rows: dict[str, tuple[int, str, str]] = {}
        for told in self.outs:
            entity = told["entity"]
            count, chain, provenance = rows.get(entity, (0, "", ""))
            if (told["provenance"] or "") != provenance:
                raise Broken(f"{entity}: row before {told['id']} came from {told['provenance']}, not {provenance}")
            if told["plain"]:
                continue
            if not told["chain"]:
                rows.pop(entity, None)
                continue
            expected = (count + 1, chained(chain, told["id"]), told["id"])
            if (told["count"], told["chain"]) != expected[:2]:
                raise Broken(f"{entity}: {told['id']} counted {told['count']}, expected {expected[0]}")
            rows[entity] = expected
        for number in range(world.plan.partitions):
            folded = Folded(world.bus, number).rows
            expected_rows = {
                entity: row
                for entity, row in rows.items()
                if murmur2_partition(entity.encode(), world.plan.partitions) == number
            }
            unpacked = {
                entity: (*count_and_chain(unpack(packed)[1]), unpack(packed)[0]) for entity, packed in folded.items()
            }
            if unpacked != expected_rows:
                raise Broken(f"changelog {number} holds {unpacked}, expected {expected_rows}")
            owner = next(worker for worker in world.workers.values() if number in worker.owned)
            if owner.rows(number) != folded:
                raise Broken(f"store of partition {number} differs from its changelog")

    def timers_once(self) -> None:
        dead = [told["timer"] for told in self.dead if told["timer"] is not None]
        alive: dict[str, str] = {}
        fired: set[str] = set()
        for told in self.outs:
            entity = told["entity"]
            if told["fired"] is not None:
                timer_id = told["fired"][0]
                if timer_id in fired:
                    raise Broken(f"timer {timer_id} of {entity} fired twice")
                fired.add(timer_id)
                if alive.pop(entity, None) != timer_id:
                    raise Broken(f"timer {timer_id} of {entity} fired, but was not set")
            if told["cancel"]:
                alive.pop(entity, None)
            for timer_id, _ in told["set"]:
                alive[entity] = timer_id
        if dead:
            raise Broken(f"timers in dead letters: {dead}")
        if alive:
            raise Broken(f"timers never fired: {alive}")
        for number in range(self.world.plan.partitions):
            left = Folded(self.world.bus, number).timers
            if left:
                raise Broken(f"timers left in their topic: {left}")

    def timers_in_event_time(self) -> None:
        """No timer fires ahead of an earlier event of its entity, whatever crashed in between."""
        world = self.world
        if not world.plan.single_topic or any("park" in sent.words for sent in self.inputs.values()):
            return
        reached: dict[int, int] = {}
        clock: dict[tuple[str, int, int], int] = {}
        for place, sent in sorted(self.inputs.items(), key=lambda item: item[0]):
            reached[place[1]] = max(reached.get(place[1], 0), sent.envelope.time_ms)
            clock[place] = reached[place[1]]
        fired: dict[str, int] = {}
        for told in self.outs:
            if told["fired"] is not None:
                fired[told["entity"]] = max(fired.get(told["entity"], 0), told["fired"][1])
            elif not world.redrives[tuple(told["source"])]:
                at_ms = fired.get(told["entity"], 0)
                if at_ms > clock[tuple(told["source"])] + EVENT_STEP_MS // 2 - CLOCK_JUMP_MS * 2:
                    raise Broken(f"{told['entity']}: a timer at {at_ms} fired before {told['source']}")

    def decisions_are_numbered(self) -> None:
        last: Counter[str] = Counter()
        for status, entity, sequence, source in self.decisions:
            if not entity or (source is not None and self.inputs[tuple(source)].entity is None):
                continue
            if sequence != last[entity] + 1:
                raise Broken(f"{entity}: decision {sequence} ({status}) after {last[entity]}")
            last[entity] = sequence

    def offsets_are_at_the_end(self) -> None:
        world = self.world
        for topic in world.input_names:
            for number in range(world.plan.partitions):
                snapshot, _ = world.group.committed(topic, number)
                end = world.bus.end_offset(topic, number)
                if snapshot != Snapshot(end, ()):
                    raise Broken(f"{topic}/{number} ends at {end}, committed is {snapshot}")

    def duplicates_have_one_effect(self) -> None:
        world = self.world
        effects: Counter[tuple[str, str]] = Counter()
        for told in self.outs:
            if told["source"] is None:
                continue
            sent = self.inputs[tuple(told["source"])]
            if world.topic(told["source"][0]).dedupe_ms is not None:
                effects[told["entity"], sent.envelope.event_id] += 1
        more = {who: count for who, count in effects.items() if count > 1}
        if more:
            raise Broken(f"events handled more than once: {more}")
