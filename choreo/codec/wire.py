"""Values ↔ bytes in the Confluent wire format, version 0: a zero byte, the schema id (4 bytes, big endian), Avro.

The work is fastavro's; this module adds what it leaves open: the envelope, limits (``limits``), evolution with correct
defaults (``evolve``), values that do not fit (``fit``), and one kind of error in each direction.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

from fastavro import schemaless_reader
from fastavro.read import SchemaResolutionError

from choreo.codec.depth import is_recursive, too_deep
from choreo.codec.evolve import Convert, UnresolvableError, converter
from choreo.codec.fit import fitted, quick_checks, read_checks
from choreo.codec.limits import Scan, scanner
from choreo.codec.schema import Schema
from choreo.codec.writing import write_whole, writer
from choreo.errors import ChoreoError, DecodeError, SchemaError

MAGIC: Final = 0
HEADER_BYTES: Final = 5
# Distinct (writer, reader) pairs and schemas a process meets: a few per topic it touches. The bound only stops a stream
# of made-up ids from growing the caches.
_CACHE_MAX: Final = 4_096

# What fastavro raises for bytes that are not the schema's (read off its source); anything else is a defect and passes.
_MALFORMED: Final = (
    EOFError,
    ValueError,  # includes UnicodeDecodeError
    LookupError,  # a union or enum index outside its list
    ArithmeticError,  # OverflowError of dates, decimal.InvalidOperation
    SchemaResolutionError,
    decimal.DecimalException,
)
# What fastavro and the quick checks raise for values that are not the schema's.
_MISFIT: Final = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)


class Encoder:
    """Writes values of one schema under one id. Make one per topic and keep it."""

    __slots__ = ("_checks", "_header", "_recursive", "_scan", "_write", "schema", "schema_id", "unchecked_bytes")

    def __init__(self, schema_id: int, schema: Schema) -> None:
        if not 0 <= schema_id < 2**31:
            raise SchemaError(f"a schema id lies between 0 and 2³¹-1, saw {schema_id}", code="CH0205")
        self.schema = schema
        self.schema_id = schema_id
        self._header: Final = bytes([MAGIC]) + schema_id.to_bytes(4, "big")
        self._write: Final = writer(self._header, schema.parsed)
        self._checks: Final = quick_checks(schema)
        self._scan: Final[Scan] = scanner(schema)
        self.unchecked_bytes: Final = self._scan.unchecked_bytes  # shorter values are within every limit
        self._recursive: Final = is_recursive(schema.root)

    def encode(self, value: Mapping[str, object]) -> bytes:
        """Bytes of a value.

        Raises:
            SchemaError: CH0204 with the field at fault.
        """
        if self._recursive and too_deep(value):
            raise self._too_deep()
        try:
            for name, check in self._checks:
                if not check(value[name]):
                    data = self._carefully(value)
                    break
            else:
                data = self._write(value)
        except _MISFIT:
            data = self._carefully(value)  # what is wrong, if anything, is found with care
        except RecursionError:
            raise self._too_deep() from None
        if len(data) > self.unchecked_bytes:
            try:
                self._scan(data, HEADER_BYTES)  # the limits that every reader applies
            except DecodeError as error:
                raise SchemaError(
                    f"a value of {self.schema.full_name} is too large: {error.message}", code="CH0204"
                ) from None
        return data

    def _carefully(self, value: Mapping[str, object]) -> bytes:
        """Bytes of a value that has to be completed or made plain first; the error if it does not fit at all."""
        try:
            complete = fitted(self.schema, value)
        except RecursionError:
            raise self._too_deep() from None
        try:
            return write_whole(self._header, self.schema.parsed, branches_named=True)(complete)
        except _MISFIT as error:
            raise SchemaError(f"a value does not fit {self.schema.full_name}: {error}", code="CH0204") from None

    def _too_deep(self) -> SchemaError:
        return SchemaError(f"a value of {self.schema.full_name} is nested too deeply", code="CH0204")


@lru_cache(maxsize=_CACHE_MAX)
def _encoder(schema_id: int, schema: Schema) -> Encoder:
    return Encoder(schema_id, schema)


def encode(schema_id: int, schema: Schema, value: Mapping[str, object]) -> bytes:
    """Bytes of one value of ``schema``, announced as ``schema_id``.

    Raises:
        SchemaError: CH0204, the value does not fit; the message names the field.
    """
    return _encoder(schema_id, schema).encode(value)


def split(data: bytes, where: str | None = None) -> tuple[int, memoryview]:
    """The writer's schema id and the Avro bytes.

    Raises:
        DecodeError: CH0201, too short or not this wire format.
    """
    return _writer_id(data, where), memoryview(data)[HEADER_BYTES:]


def _writer_id(data: bytes, where: str | None) -> int:
    if len(data) < HEADER_BYTES:
        raise DecodeError(f"{len(data)} bytes are too few for a message with a schema id", where=where)
    if data[0] != MAGIC:
        raise DecodeError(
            f"the first byte is {data[0]:#04x}, not the 0x00 of the Confluent wire format",
            where=where,
            hint="the producer must write Avro with a schema id",
        )
    return int.from_bytes(data[1:HEADER_BYTES], "big")


class _Plan:
    """How bytes of one writer become values of one reader."""

    __slots__ = ("checks", "convert", "name", "naming", "parsed", "scan", "unchecked_bytes")

    def __init__(self, writer: Schema, reader: Schema) -> None:
        self.parsed: Any = writer.parsed
        self.name = writer.full_name
        self.scan: Scan = scanner(writer)
        self.unchecked_bytes = self.scan.unchecked_bytes
        self.convert: Convert | None = None if writer == reader else converter(writer, reader)
        self.checks = read_checks(writer)
        # Arguments of schemaless_reader: return_record_name, …_override, handle_unicode_errors, return_named_type.
        # A converter wants every named branch of a union named; a caller only where several are records.
        self.naming = (True, True, "strict", False) if self.convert is None else (False, False, "strict", True)


@lru_cache(maxsize=_CACHE_MAX)
def _plan(writer: Schema, reader: Schema) -> _Plan:
    return _Plan(writer, reader)


class Decoder:
    """Reads messages of any writer as values of one reader schema.

    Args:
        reader: what the caller wants.
        lookup: schema of a writer's id (a registry's ``schema_by_id``); called once per id.
    """

    __slots__ = ("_lookup", "_plans", "reader")

    def __init__(self, reader: Schema, lookup: Callable[[int], Schema]) -> None:
        self.reader = reader
        self._lookup = lookup
        self._plans: dict[bytes, _Plan] = {}  # by the first five bytes of a message

    def decode(self, data: bytes, where: str | None = None) -> dict[str, Any]:
        """The value that ``data`` carries.

        Args:
            data: a whole message value.
            where: ``topic/partition/offset``, for the error.

        Raises:
            DecodeError: CH0201, whatever is wrong with the bytes, within bounded time and memory. CH0205 where the
                registry does not know the writer's id.
        """
        plan = self._plans.get(data[:HEADER_BYTES]) or self._plan(data, where)
        size = len(data)
        if size > plan.unchecked_bytes:
            plan.scan(data, HEADER_BYTES, where)
        stream = BytesIO(data)
        stream.seek(HEADER_BYTES)
        try:
            value: dict[str, Any] = schemaless_reader(stream, plan.parsed, None, *plan.naming)
            if stream.tell() != size:
                left = size - stream.tell()
                raise DecodeError(f"{left} bytes are left over after the {plan.name}", where=where)
            for name, check in plan.checks:
                if not check(value[name]):
                    raise DecodeError(f"{plan.name}.{name} holds a number outside its schema's range", where=where)
            return value if plan.convert is None else plan.convert(value)
        except UnresolvableError as error:
            raise DecodeError(
                f"a {plan.name} cannot be read as {self.reader.full_name}: {error}", where=where
            ) from None
        except _MALFORMED as error:
            plan.scan(data, HEADER_BYTES, where)  # says more precisely what is wrong with the structure
            reason = str(error)[:200] or type(error).__name__
            if isinstance(error, OverflowError):
                reason = "a date or time lies outside the years 1 to 9999"
            raise DecodeError(f"the bytes are not a {plan.name}: {reason}", where=where) from None

    def _plan(self, data: bytes, where: str | None) -> _Plan:
        writer_id = _writer_id(data, where)
        try:
            plan = _plan(self._lookup(writer_id), self.reader)
        except ChoreoError as error:
            if error.retry != "never":
                raise  # the registry cannot be reached: the bytes are not at fault
            raise DecodeError(
                f"the writer's schema {writer_id} cannot be used: {error.message}",
                code="CH0205" if error.code == "CH0205" else "CH0201",
                where=where,
                hint=error.hint,
            ) from None
        if len(self._plans) >= _CACHE_MAX:
            self._plans.clear()
        self._plans[data[:HEADER_BYTES]] = plan
        return plan
