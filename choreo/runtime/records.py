"""choreo's own records, between kernel values and the bytes in internal topics.

Keys of internal topics are compact JSON arrays: ``["checkpoint", topic]`` and ``["entity", entity]`` in the journal,
``[entity, name]`` for timers, ``[entity, number]`` for parked events. Changelog rows are keyed by the entity itself.
Every record carries its explicit partition: the number of the input partition, never the partitioner's choice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final

from choreo.codec.wire import Decoder, Encoder
from choreo.errors import ChoreoError, DecodeError, EngineError
from choreo.kernel.burst import Burst
from choreo.kernel.envelope import row_provenance
from choreo.kernel.packed import ID_BYTES_MAX, LENGTHS, pack
from choreo.kernel.values import (
    Checkpoint,
    Delivery,
    EntityState,
    Envelope,
    Failure,
    OutRecord,
    ParkedRow,
    Settlement,
    TimerRow,
)
from choreo.runtime.builtin_schemas import builtin_id, builtin_lock

_CHECKPOINT: Final = "checkpoint"
_ENTITY: Final = "entity"


_as_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Made once: ``json.dumps`` with options makes an encoder for each call."""


def _key(*parts: object) -> bytes:
    return _as_json(parts).encode()


def _encoder(name: str) -> Encoder:
    return Encoder(*builtin_id(name))


def _decoder(name: str) -> Decoder:
    return Decoder(builtin_id(name)[1], builtin_lock().schema)


def original(delivery: Delivery) -> dict[str, Any]:
    """A delivery as the Avro record ``choreo.Original``."""
    value = delivery._asdict()
    value["headers"] = [{"name": name, "value": content} for name, content in delivery.headers]
    return value


def delivery_of(value: Mapping[str, Any]) -> Delivery:
    """The delivery that a ``choreo.Original`` keeps."""
    headers = tuple((header["name"], header["value"]) for header in value["headers"])
    return Delivery(**{**value, "headers": headers})


class InternalRecords:
    """Encodes bursts for the internal topics and decodes what a restore reads there."""

    def __init__(self) -> None:
        self._write_checkpoint = _encoder("Checkpoint")
        self._write_entity = _encoder("Entity")
        self._write_timer = _encoder("Timer")
        self._write_parked = _encoder("Parked")
        self._write_settlement = _encoder("Settlement")
        self._read_checkpoint = _decoder("Checkpoint")
        self._read_entity = _decoder("Entity")
        self._read_timer = _decoder("Timer")
        self._read_parked = _decoder("Parked")
        self._read_settlement = _decoder("Settlement")

    # -- bursts --------------------------------------------------------------------------------------------------------

    def produced(
        self, burst: Burst, *, changelogs: Mapping[str, str], journal: str, timers: str, parked: str
    ) -> tuple[list[OutRecord], list[OutRecord]]:
        """All records of a burst; second, the changelog rows, whose offsets stores want to know."""
        plain = list(burst.records)
        rows = [
            OutRecord(changelogs[table], number, entity.encode(), row.value, row.headers)
            for (number, table, entity), (row, _) in burst.rows.items()
        ]
        for (number, entity), state in burst.states.items():
            plain.append(OutRecord(journal, number, _key(_ENTITY, entity), self._entity(state), ()))
        for (number, entity, name), timer in burst.timers.items():
            value = None if timer is None else self.encode_timer(timer)
            plain.append(OutRecord(timers, number, _key(entity, name), value, ()))
        for (number, entity, parked_number), row in burst.parked.items():
            value = None if row is None else self.encode_parked(row)
            plain.append(OutRecord(parked, number, _key(entity, parked_number), value, ()))
        for checkpoint in burst.checkpoints:
            key = _key(_CHECKPOINT, checkpoint.topic)
            plain.append(OutRecord(journal, checkpoint.partition, key, self.encode_checkpoint(checkpoint), ()))
        return plain, rows

    def encode_checkpoint(self, checkpoint: Checkpoint) -> bytes:
        value = checkpoint._asdict()
        value["done"] = [edge for pair in checkpoint.done for edge in pair]
        return self._write_checkpoint.encode(value)

    def _entity(self, state: EntityState) -> bytes:
        seen = [{"event_id": event_id, "timestamp_ms": at_ms} for event_id, at_ms in state.seen]
        return self._write_entity.encode({"sequence": state.sequence, "seen": seen})

    def encode_timer(self, timer: TimerRow) -> bytes:
        value = timer._asdict()
        value["origin"] = timer.origin._asdict()
        return self._write_timer.encode(value)

    def encode_parked(self, row: ParkedRow) -> bytes:
        value = row._asdict()
        value["delivery"] = original(row.delivery)
        return self._write_parked.encode(value)

    def encode_settlement(self, settlement: Settlement) -> bytes:
        """For the command line: a record of an agent's inbox, keyed by the entity."""
        value = settlement._asdict()
        value["delivery"] = None if settlement.delivery is None else original(settlement.delivery)
        return self._write_settlement.encode(value)

    # -- restore -------------------------------------------------------------------------------------------------------

    def packed_rows(self, messages: Iterable[Any]) -> list[tuple[str, bytes | None]]:
        """Entities and the stored form of changelog records (confluent-kafka messages); None for a tombstone.

        Written for speed, a restore spends its time here: ids that choreo made go from header to row as bytes.
        """
        rows: list[tuple[str, bytes | None]] = []
        for message in messages:
            value = message.value()
            if value is None:
                rows.append((message.key().decode(), None))
                continue
            headers = message.headers() or ()
            for name, event_id in headers:
                if name == "ce_causationid":
                    if event_id and len(event_id) <= ID_BYTES_MAX and event_id.isalnum():
                        packed = LENGTHS[len(event_id)] + event_id + value
                    else:  # from outside: it may be anything
                        packed = pack(row_provenance(headers) or "", value)
                    break
            else:
                packed = pack("", value)
            rows.append((message.key().decode(), packed))
        return rows

    def journal_entry(self, key: bytes, value: bytes | None) -> Checkpoint | tuple[str, EntityState]:
        kind, name = _parts(key)
        if value is None:
            return name, EntityState(0, ())
        if kind == _CHECKPOINT:
            fields = self._read_checkpoint.decode(value)
            edges = fields["done"]
            if len(edges) % 2 or any(before >= after for before, after in pairwise((fields["low"], *edges))):
                raise DecodeError(f"the checkpoint of {name} holds ranges that are none, above {fields['low']}")
            fields["done"] = tuple(zip(edges[::2], edges[1::2], strict=True))
            return Checkpoint(**fields)
        if kind == _ENTITY:
            fields = self._read_entity.decode(value)
            return name, EntityState(
                fields["sequence"], tuple((seen["event_id"], seen["timestamp_ms"]) for seen in fields["seen"])
            )
        raise EngineError(f"unknown record {key!r} in the journal", hint="it was written by a newer choreo")

    def timer(self, value: bytes) -> TimerRow:
        fields = self._read_timer.decode(value)
        fields["origin"] = Envelope(**fields["origin"])
        return TimerRow(**fields)

    def parked(self, value: bytes) -> ParkedRow:
        fields = self._read_parked.decode(value)
        fields["delivery"] = delivery_of(fields["delivery"])
        return ParkedRow(**fields)

    def settlement(self, delivery: Delivery) -> Settlement | Failure:
        """The record of an inbox message; anything else in that topic is a dead letter."""
        try:
            if delivery.value is None:
                raise DecodeError("an empty message in the agent's inbox, expected a choreo.Settlement")
            fields = self._read_settlement.decode(delivery.value)
        except ChoreoError as error:
            return Failure(error.code, error.message, type(error).__name__, False, False, "")
        if fields["delivery"] is not None:
            fields["delivery"] = delivery_of(fields["delivery"])
        return Settlement(**fields)


def _parts(key: bytes) -> tuple[str, str]:
    try:
        kind, name = json.loads(key)
        return str(kind), str(name)
    except (ValueError, TypeError, RecursionError) as error:
        raise EngineError(f"the journal holds a key that choreo did not write: {key[:80]!r}") from error
