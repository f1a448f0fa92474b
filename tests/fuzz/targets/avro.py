"""Avro bytes of every schema: choreo's own, the project's, all kinds of types, and pairs of versions.

Any bytes give a value or a DecodeError that names its place. What was read is a value of the schema: it can be written,
and reads back the same, whatever wrote the bytes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any, Final

from fastavro import schemaless_reader

from choreo.codec.schema import Schema, SchemaSet
from choreo.codec.wire import Decoder, Encoder
from choreo.errors import DecodeError, SchemaError
from choreo.runtime.builtin_schemas import builtin_schemas, library_texts
from tests.codec.samples import sample
from tests.codec.shapes import FLIGHT, SCHEMAS, record
from tests.codec.test_evolution import READABLE, UNREADABLE
from tests.fuzz.avro_bytes import Liar
from tests.fuzz.changes import BINARY, changed
from tests.fuzz.target import Check, Target, promised, promised_equal

ROOT: Final = Path(__file__).parents[3]
ID: Final = 1000
HEADER: Final = b"\x00\x00\x00\x03\xe8"
WHERE: Final = "flights/3/4711"
SAMPLES: Final = 12
# Records in unions with other records are (name, value): return_record_name, its override, unicode errors, other names.
NAMING: Final = (True, True, "strict", False)

# Bytes that broke a promise once, by target; without the header.
FOUND: Final[dict[str, tuple[bytes, ...]]] = {}


@cache
def project_schemas() -> tuple[Schema, ...]:
    """Every record schema of the repository's project."""
    texts = {file.name: file.read_text("utf-8") for file in sorted((ROOT / "schemas").glob("*.avsc"))}
    return tuple(SchemaSet.load(texts, library_texts()))


def lookup_of(writer: Schema) -> Callable[[int], Schema]:
    """A registry with one schema."""

    def lookup(schema_id: int) -> Schema:
        if schema_id != ID:
            raise SchemaError(f"no schema has the id {schema_id}", code="CH0205")
        return writer

    return lookup


def check_of(writer: Schema, reader: Schema) -> Check:
    """The promise of reading messages of one schema as another; the input is a message without its header."""
    decoder = Decoder(reader, lookup_of(writer))
    again = Decoder(reader, lookup_of(reader))
    encoder = Encoder(ID, reader)
    parsed: Any = writer.parsed
    same = writer == reader

    def check(data: bytes) -> None:
        try:
            value = decoder.decode(HEADER + data, WHERE)
        except DecodeError as error:
            promised(error.where == WHERE, "the error does not name the message")
            promised(error.code in ("CH0201", "CH0205") and error.retry == "never", str(error))
            promised(len(str(error)) < 1_000, "the error is as long as the input")
            return
        if same:  # another reader's opinion; between versions Avro leaves too much open to have one
            seen = schemaless_reader(BytesIO(data), parsed, None, *NAMING)
            promised_equal(value, seen, "but it is")
        written = encoder.encode(value)
        read = again.decode(written, WHERE)
        promised_equal(value, read, "then")
        promised(encoder.encode(read) == written, "the same value was written in two ways")

    return check


def whole_message(schema: Schema) -> Check:
    """The promise about the header: the input is a whole message, of any schema id."""
    decoder = Decoder(schema, lookup_of(schema))

    def check(data: bytes) -> None:
        try:
            decoder.decode(data, WHERE)
        except DecodeError as error:
            promised(error.where == WHERE and error.code in ("CH0201", "CH0205"), str(error))

    return check


def valid(schema: Schema, chance: Random) -> bytes:
    """A valid message without its header."""
    while True:
        try:
            return Encoder(ID, schema).encode(sample(schema.root, chance))[len(HEADER) :]
        except SchemaError as error:  # a value by chance may be outside a decimal's or a date's range
            promised(error.code == "CH0204", str(error))


def seeds_of(schema: Schema) -> tuple[bytes, ...]:
    chance = Random(schema.full_name)
    return tuple(valid(schema, chance) for _ in range(SAMPLES))


def change_of(schema: Schema) -> Callable[[bytes, Random], bytes]:
    """Damage to a valid message, a message of a writer that lies, or bytes by chance."""

    def change(seed: bytes, chance: Random) -> bytes:
        kind = chance.random()
        if kind < 0.5:
            return changed(seed, chance, BINARY)
        if kind < 0.95:
            return Liar(chance, chance.choice((0.0, 0.02, 0.1, 0.3))).value(schema.root)
        return chance.randbytes(chance.randrange(80))

    return change


def one_of_many(name: str, checks: Sequence[Check], schemas: Sequence[Schema], share: int) -> Target:
    """A target for many schemas: the first byte of an input chooses one."""
    seeds = tuple(bytes([number]) + one for number, schema in enumerate(schemas) for one in seeds_of(schema)[:3])

    def check(data: bytes) -> None:
        if data:
            checks[data[0] % len(checks)](data[1:])

    def change(seed: bytes, chance: Random) -> bytes:
        number = chance.randrange(len(schemas))
        return bytes([number]) + change_of(schemas[number])(valid(schemas[number], chance), chance)

    return Target(name, check, seeds, change, FOUND.get(name, ()), share=share)


def targets() -> list[Target]:
    found = [
        Target(
            f"avro/{schema.full_name}",
            check_of(schema, schema),
            seeds_of(schema),
            change_of(schema),
            FOUND.get(schema.full_name, ()),
        )
        for schema in (*builtin_schemas(), *project_schemas())
    ]
    shapes = [*SCHEMAS.values(), FLIGHT]
    assert len(shapes) < 256
    found.append(one_of_many("avro/shapes", [check_of(one, one) for one in shapes], shapes, len(shapes)))
    cases = (READABLE | UNREADABLE).values()
    pairs = [(record("R", ("f", old)), record("R", ("f", new))) for old, _, new, _ in cases]
    checks = [check_of(writer, reader) for writer, reader in pairs]
    found.append(one_of_many("avro/versions", checks, [writer for writer, _ in pairs], len(pairs)))
    messages = tuple(HEADER + one for one in seeds_of(FLIGHT))
    found.append(
        Target(
            "avro/messages",
            whole_message(FLIGHT),
            messages,
            lambda seed, chance: changed(seed, chance, BINARY),
            share=4,
        )
    )
    return found
