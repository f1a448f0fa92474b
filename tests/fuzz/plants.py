"""Defects to plant where inputs are read. Each must be found by as many cases as ``make test`` runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn
from uuid import UUID

import pytest

import choreo.codec.keys as keys
import choreo.kernel.envelope as envelope
import choreo.kernel.progress as progress
import choreo.runtime.json_values as json_values
import choreo.topology.fields as fields
import choreo.topology.nodes as nodes
from choreo.codec.wire import Decoder
from choreo.kernel.progress import Ranges
from choreo.topology.nodes import Node


class Plant(NamedTuple):
    """A defect, a target that meets it, and what the report then says."""

    target: str
    shown: str
    put: Callable[[pytest.MonkeyPatch], None]


Decode = Callable[[bytes, str | None], Any]

PLANTS: dict[str, Plant] = {}


def plant(target: str, shown: str) -> Callable[[Callable[[pytest.MonkeyPatch], None]], None]:
    def put_down(put: Callable[[pytest.MonkeyPatch], None]) -> None:
        PLANTS[put.__name__.replace("_", " ")] = Plant(target, shown, put)

    return put_down


def decoding(patch: pytest.MonkeyPatch, faulty: Callable[[Decode, bytes, str | None], Any]) -> None:
    """Puts a function around ``Decoder.decode``."""
    honest = Decoder.decode

    def decode(self: Decoder, data: bytes, where: str | None = None) -> Any:
        return faulty(lambda data, where: honest(self, data, where), data, where)

    patch.setattr(Decoder, "decode", decode)


def _missing(data: bytes) -> NoReturn:
    raise KeyError(data[:10])


@plant("avro/supply.FlightDeparted", "KeyError")
def a_decoder_stumbles_over_one_byte(patch: pytest.MonkeyPatch) -> None:
    def faulty(decode: Decode, data: bytes, where: str | None) -> Any:
        return decode(data, where) if b"\x80" not in data else _missing(data)

    decoding(patch, faulty)


@plant("avro/messages", "IndexError")
def an_id_is_an_index_into_a_list(patch: pytest.MonkeyPatch) -> None:
    def faulty(decode: Decode, data: bytes, where: str | None) -> Any:
        return decode(data, where) if data[4:5] <= b"\xf0" else [][data[4]]

    decoding(patch, faulty)


@plant("avro/choreo.Entity", "memory: [0-9]+ MiB")
def a_count_is_believed(patch: pytest.MonkeyPatch) -> None:
    """Allocates what a block claims before it looks at the bytes. Capped, for the sake of this machine."""

    def faulty(decode: Decode, data: bytes, where: str | None) -> Any:
        claimed = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data[6:14]))
        room = bytes(min(claimed, 80 * 2**20))
        return decode(data, where) if room is not None else None

    decoding(patch, faulty)


@plant("avro/supply.ShipmentFile", "does not name the message")
def an_error_forgets_its_place(patch: pytest.MonkeyPatch) -> None:
    decoding(patch, lambda decode, data, where: decode(data, None))


@plant("avro/choreo.Entity", "but it is")
def a_number_loses_its_sign(patch: pytest.MonkeyPatch) -> None:
    """Written and read again it is the same: only another reader can tell."""

    def faulty(decode: Decode, data: bytes, where: str | None) -> Any:
        value = decode(data, where)
        return {**value, "sequence": abs(value["sequence"])}

    decoding(patch, faulty)


@plant("headers", "UnicodeDecodeError")
def headers_of_bad_utf8_raise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(envelope, "_identifier", lambda value: value.decode() if value else "")
    patch.setattr(envelope, "_type", envelope._type.__wrapped__)  # its cache would outlive the defect


@plant("headers", "BrokenPromiseError")
def baggage_has_no_bound(patch: pytest.MonkeyPatch) -> None:
    honest = envelope._text
    patch.setattr(envelope, "_text", lambda value, bytes_max: honest(value, 10**9))


@plant("metadata/read", "KeyError")
def metadata_of_another_program_raises_anything(patch: pytest.MonkeyPatch) -> None:
    honest = progress._decode_runs

    def decode(low: int, data: bytes) -> Ranges:
        try:
            return honest(low, data)
        except ValueError as error:
            raise KeyError(low) from error

    patch.setattr(progress, "_decode_runs", decode)


@plant("metadata/written", "BrokenPromiseError")
def progress_is_one_too_far(patch: pytest.MonkeyPatch) -> None:
    honest = progress._decode_bitset

    def decode(low: int, data: bytes) -> Ranges:
        ranges = honest(low, data)
        return (*ranges[:-1], (ranges[-1][0], ranges[-1][1] + 1)) if len(ranges) > 2 else ranges

    patch.setattr(progress, "_decode_bitset", decode)


@plant("topology", "AttributeError")
def a_list_is_taken_for_a_scalar(patch: pytest.MonkeyPatch) -> None:
    def is_null(node: Node) -> bool:
        return node.text in ("", "~", "null")  # type: ignore[union-attr]

    patch.setattr(fields, "is_null", is_null)


@plant("topology", "KeyError")
def an_unknown_alias_ends_in_a_key_error(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(nodes._Composer, "_aliased", lambda self, anchor: self._anchors[anchor])


@plant("keys", "is another entity")
def a_key_with_zeros_is_the_same_entity(patch: pytest.MonkeyPatch) -> None:
    honest = keys._typed

    def typed(part: Any, field: Any, key: str) -> object:
        return honest(part.lstrip("0") or "0" if isinstance(part, str) and part.isdigit() else part, field, key)

    patch.setattr(keys, "_typed", typed)


@plant("send/json", "ValueError")
def a_bad_uuid_is_a_value_error(patch: pytest.MonkeyPatch) -> None:
    def logical(node: Any, logical: Any, value: Any, path: str, where: str | None) -> object:
        return UUID(value) if logical.name == "uuid" else value

    patch.setattr(json_values, "_logical", logical)
