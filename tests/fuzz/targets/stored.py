"""What choreo reads back from Kafka and its stores: keys, rows, the journal, timers, parked events, the inbox; and what
a schema registry answers. Others can write there, so a coded error is the worst that may come of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Final

import httpx

from choreo.codec.keys import encode_key, key_text, key_values
from choreo.codec.schema import Schema
from choreo.codec.wire import Encoder
from choreo.errors import ChoreoError, DecodeError, EngineError, SchemaError
from choreo.kernel.packed import ID_BYTES_MAX, pack, unpack
from choreo.kernel.values import Checkpoint, Delivery, Envelope, Failure, ParkedRow, Settlement, TimerRow
from choreo.runtime.builtin_schemas import builtin_id
from choreo.runtime.records import InternalRecords
from choreo.runtime.registry_http import HttpRegistry
from tests.codec.shapes import COLOUR, FLIGHT, logical, record
from tests.fuzz.avro_bytes import Liar
from tests.fuzz.changes import BINARY, TEXT, Cursor, changed, changing
from tests.fuzz.target import Change, Check, Target, promised

# -- keys --------------------------------------------------------------------------------------------------------------

_KEYED: Final = record(
    "Keyed", ("s", "string"), ("n", "long"), ("i", "int"), ("u", logical("string", "uuid")), ("e", COLOUR)
)
_FIELDS: Final = {one.name: one for one in _KEYED.root.fields}
KEYS: Final = tuple([_FIELDS[name] for name in names] for names in ("s", "n", "i", "u", "e", "sn", "nu", "ues"))


def check_key(data: bytes) -> None:
    """Any key is an entity's name or refused; the fields that it fills make the same key again."""
    try:
        text = key_text(data)
    except DecodeError as error:
        promised(error.code == "CH0206", str(error))
        return
    promised(text.encode() == data, "another entity")
    for fields in KEYS:
        try:
            values = key_values(text, fields)
        except DecodeError as error:
            promised(error.code == "CH0206" and len(str(error)) < 1_000, str(error))
            continue
        same = encode_key([values[one.name] for one in fields]).decode()
        promised(same == text or same.lower() == text.lower(), f"{values} is another entity than {text!r}")


KEY_SEEDS: Final = (
    *(b"N14228", b"-7", b"0", b"c0ffee00-0000-4000-8000-000000000001", b"red", "é😀".encode()),
    *(
        b'["N1",7]',
        b'[7,"c0ffee00-0000-4000-8000-000000000001"]',
        b'["c0ffee00-0000-4000-8000-000000000001","red","x"]',
    ),
)
KEY_WORDS: Final = (
    *TEXT,
    b'["',
    b'",',
    b"]",
    b" ",
    b"[",
    b"null",
    b"1.0",
    b"9223372036854775807",
    b"\\u00e9",
    b"\\/",
    b'"',
)


# -- rows --------------------------------------------------------------------------------------------------------------


def check_row(data: bytes) -> None:
    """A row comes out of its stored form as it went in, whatever the id of the event that shaped it."""
    cursor = Cursor(data)
    event_id = cursor.take(cursor.byte() * 2).decode("utf-8", errors="replace")
    value = cursor.rest()
    seen, row = unpack(pack(event_id, value))
    promised(row == value, "the row")
    promised(seen == event_id.encode()[:ID_BYTES_MAX].decode(errors="replace"), "the event's id")


_RECORDS: Final = InternalRecords()


def _delivery(value: bytes | None = b"\0\0\0\3\xe8x", key: bytes | None = b"N1") -> Delivery:
    return Delivery("flights", 3, 4711, 1_700_000_000_000, key, value, (("ce_id", b"e1"), ("x", b"\xff")))


_ENVELOPE: Final = Envelope("e" * 32, "t.Flight", 1, "c", "", 2, "", "", "")
_CHECKPOINT: Final = Checkpoint("flights", 3, 7, ((9, 11), (20, 2**40)), 5, 6, "topic")
_TIMER: Final = TimerRow("N1", "alarm", 99, "t" * 32, _ENVELOPE)
_PARKED: Final = ParkedRow("N1", 4, "CH0312", "look", 5, "e1", _delivery())
_SETTLEMENT: Final = Settlement("redrive", "N1", -1, "anna", "fixed", _delivery(None, None))


def check_checkpoint(data: bytes) -> None:
    try:
        entry = _RECORDS.journal_entry(b'["checkpoint","flights"]', data)
    except ChoreoError as error:
        promised(isinstance(error, DecodeError | EngineError), error)
        return
    promised(isinstance(entry, Checkpoint), entry)
    if isinstance(entry, Checkpoint):
        again = _RECORDS.journal_entry(b'["checkpoint","flights"]', _RECORDS.encode_checkpoint(entry))
        promised(again == entry, "read, written, read")


def check_entity(data: bytes) -> None:
    try:
        _RECORDS.journal_entry(b'["entity","N1"]', data)
    except DecodeError as error:
        promised(error.code in ("CH0201", "CH0205"), str(error))


def check_journal_key(data: bytes) -> None:
    """A key of the journal that choreo did not write."""
    try:
        _RECORDS.journal_entry(data, None)
    except EngineError as error:
        promised(len(str(error)) < 1_000, "the error is as long as the input")


def check_timer(data: bytes) -> None:
    try:
        timer = _RECORDS.timer(data)
    except DecodeError as error:
        promised(error.code in ("CH0201", "CH0205"), str(error))
        return
    promised(_RECORDS.timer(_RECORDS.encode_timer(timer)) == timer, "read, written, read")


def check_parked(data: bytes) -> None:
    try:
        row = _RECORDS.parked(data)
    except DecodeError as error:
        promised(error.code in ("CH0201", "CH0205"), str(error))
        return
    promised(_RECORDS.parked(_RECORDS.encode_parked(row)) == row, "read, written, read")


def check_settlement(data: bytes) -> None:
    """The inbox is open to people: whatever lies there is a settlement or a dead letter."""
    found = _RECORDS.settlement(_delivery(data))
    if isinstance(found, Failure):
        promised(found.code in ("CH0201", "CH0205") and not found.retry, found)
        return
    promised(_RECORDS.settlement(_delivery(_RECORDS.encode_settlement(found))) == found, "read, written, read")


def _change_of(schema: Schema, schema_id: int) -> Change:
    """Messages with the record's own id; now and then another one's, or damage to the header."""
    header = b"\0" + schema_id.to_bytes(4, "big")

    def change(seed: bytes, chance: Random) -> bytes:
        kind = chance.random()
        if kind < 0.6:
            return seed[:5] + changed(seed[5:], chance, BINARY)
        if kind < 0.95:
            return header + Liar(chance, chance.choice((0.0, 0.02, 0.1))).value(schema.root)
        return changed(seed, chance, BINARY)

    return change


def _record_target(name: str, check: Check, seeds: tuple[bytes, ...]) -> Target:
    schema_id, schema = builtin_id(name.capitalize())
    return Target(f"records/{name}", check, seeds, _change_of(schema, schema_id), FOUND.get(name, ()))


# -- a registry's answers ----------------------------------------------------------------------------------------------

SPLIT: Final = b"\n%%%%\n"
ASKING: Final[tuple[Callable[[HttpRegistry], object], ...]] = (
    lambda registry: registry.schema_by_id(1),
    lambda registry: registry.versions("flights-value"),
    lambda registry: registry.id_for("flights-value", FLIGHT),
    lambda registry: registry.register("flights-value", FLIGHT),
    lambda registry: registry.subjects(),
)


def check_registry(data: bytes) -> None:
    """Answers of what may not be a registry at all: the first byte of each says which status it has."""
    answers = data.split(SPLIT)[:20]

    def answer(request: httpx.Request) -> httpx.Response:
        body = answers.pop(0) if answers else b""
        status = (200, 200, 200, 200, 201, 301, 400, 401, 404, 409, 422, 429, 500)[body[0] % 13] if body else 200
        return httpx.Response(status, content=body[1:])

    for ask in ASKING:
        answers = data.split(SPLIT)[:20]
        registry = HttpRegistry("http://registry", sleep=lambda _: None, transport=httpx.MockTransport(answer))
        try:
            ask(registry)
        except SchemaError as error:
            promised(error.code in ("CH0202", "CH0203", "CH0205", "CH0207"), str(error))
        finally:
            registry.close()


def _answers(*bodies: object) -> bytes:
    return SPLIT.join(b"\0" + json.dumps(one).encode() for one in bodies)


_ENTRY: Final = {"id": 1, "version": 1, "subject": "flights-value", "schema": FLIGHT.text}
_REFERRING: Final = {
    **_ENTRY,
    "schema": json.dumps({"type": "record", "name": "t.R", "fields": [{"name": "f", "type": "t.Flight"}]}),
    "references": [{"name": "t.Flight", "subject": "flights", "version": 1}],
}
REGISTRY_SEEDS: Final = (
    _answers(_ENTRY),
    _answers([1], _ENTRY),
    _answers([1, 2], _ENTRY, {**_ENTRY, "id": 2}),
    _answers(_REFERRING, _ENTRY),
    _answers({"error_code": 40401, "message": "not found"}),
    _answers(["flights-value", "x"]),
    _answers({"id": 7}),
)
REGISTRY_WORDS: Final = (
    *TEXT,
    *(
        SPLIT,
        SPLIT + b"\0",
        b'"references":',
        b'"schemaType": "JSON",',
        b'"id":',
        b'"version":',
        b'"schema":',
        b"{}",
        b"[1]",
    ),
    *(b"1.5", b'"1"', b"[null]", b'[{"subject": 1}]', b'[{"subject": "a", "version": 1}]', b"\x08", b"\x05", b"1e400"),
)

# Inputs that broke a promise once.
FOUND: Final[dict[str, tuple[bytes, ...]]] = {
    "keys": (
        b"--5",
        b"{C0FFEE00000040008000000000000001}",
        b"urn:uuid:c0ffee00-0000-4000-8000-000000000001",
        b"c0ffee00-0000---4000-8000-000000000001",
        b"0" + b"\n" * 31,
        b'["N1", 7]',
        b'["\\u00e9",7]',
        b'["\\ud800",7]',
        b'["N1",' + b"9" * 5_000 + b"]",
    ),
    "journal_key": (b"[" * 3_000,),
    "checkpoint": (b"\0\0\0\0\1\x00\x90d\xf0\xa0\x02\x02\xba\xdd\x01\x00\xfe\xfa\x01\xb6\x9c\x03\x00",),
    "registry": (
        b'\0["flights-value", "x"]',
        b"\0" + b"[" * 3_000,
        *(
            b'\0{"id": 1, "schema": "{}", "references": ' + one
            for one in (
                b"7}",
                b"[7]}",
                b'[{"subject": "a"}]}',
                b'[{"version": 1}]}',
                b'[{"subject": "a", "version": 1}]}',
            )
        ),
        b'\0{"id": 1, "schema": "{}", "references": [{"subject": "a", "version": 1}]}' + SPLIT + b"\0[1]",
        b'\0{"id": 1, "schema": "{}", "references": [{"subject": "\\ud800", "version": 1}]}',
        b"\0[" + b"9" * 300 + b"]",
    ),
}


def targets() -> list[Target]:
    records = _RECORDS
    entity = Encoder(*builtin_id("Entity")).encode({"sequence": 3, "seen": [{"event_id": "e", "timestamp_ms": 1}]})
    journal_keys = (b'["checkpoint","flights"]', b'["entity","N1"]', b'["call","N1","x"]')
    return [
        Target("keys", check_key, KEY_SEEDS, changing(KEY_WORDS), FOUND.get("keys", ()), share=4),
        Target("rows", check_row, (b"\x10" + b"e" * 32 + b"row", b"", b"\xff" * 600), changing(BINARY)),
        Target(
            "records/journal_key",
            check_journal_key,
            journal_keys,
            changing(KEY_WORDS),
            FOUND.get("journal_key", ()),
        ),
        _record_target("checkpoint", check_checkpoint, (records.encode_checkpoint(_CHECKPOINT),)),
        _record_target("entity", check_entity, (entity,)),
        _record_target("timer", check_timer, (records.encode_timer(_TIMER),)),
        _record_target("parked", check_parked, (records.encode_parked(_PARKED),)),
        _record_target("settlement", check_settlement, (records.encode_settlement(_SETTLEMENT),)),
        # five requests and a client each
        Target("registry", check_registry, REGISTRY_SEEDS, changing(REGISTRY_WORDS), FOUND.get("registry", ()), 0.2),
    ]
