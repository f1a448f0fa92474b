"""Message keys: UTF-8 text that every language makes alike.

A key of one field is its text: strings as they are, integers in decimal, UUIDs in lower case. A key of several fields
is a compact JSON array. The text is also the entity's name everywhere: in rows, decisions, commands.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

from choreo.codec.types import Enum, Field, Primitive
from choreo.errors import DecodeError, SchemaError


def encode_key(parts: Sequence[object]) -> bytes:
    """Key bytes of the values of the key fields, in order.

    Raises:
        SchemaError: CH0206, a part is missing or of a type that keys don't have.
    """
    if len(parts) == 1:
        part = parts[0]
        text = part if type(part) is str else str(_plain(part))
    elif not parts:
        raise SchemaError("a key has at least one field", code="CH0206")
    else:
        text = _compact([_plain(part) for part in parts])
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise SchemaError(f"the key {text!r} is not valid Unicode text", code="CH0206") from None


def key_text(key: bytes | None, where: str | None = None) -> str:
    """The entity that a message key names.

    Raises:
        DecodeError: CH0206, no key, or bytes that are not UTF-8.
    """
    if key is None:
        raise DecodeError("the record has no key", code="CH0206", where=where, hint="the producer must set one")
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise DecodeError(f"the key {key[:40]!r} is not UTF-8 text", code="CH0206", where=where) from None


def key_values(text: str, fields: Sequence[Field]) -> dict[str, object]:
    """The key fields' values from the entity's text, as their schema types them: what a new row is filled with.

    Only the text that ``encode_key`` makes of them is taken (a UUID also in upper case): two entities with the same
    key fields would be two rows that say the same of themselves.

    Raises:
        DecodeError: CH0206, the text does not fit the fields.
    """
    if len(fields) == 1:
        return {fields[0].name: _typed(text, fields[0], text)}
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        parts = None
    if not isinstance(parts, list) or len(parts) != len(fields):
        names = ", ".join(field.name for field in fields)
        raise DecodeError(f"the key {text[:80]!r} is not a JSON array of {names}", code="CH0206")
    values = {field.name: _typed(part, field, text) for field, part in zip(fields, parts, strict=True)}
    if _compact(parts) != text:
        raise DecodeError(
            f"the key {text[:80]!r} is not compact JSON", code="CH0206", hint="write it without spaces and escapes"
        )
    return values


def _compact(parts: list[object]) -> str:
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def _plain(part: object) -> str | int:
    if isinstance(part, str):
        return str(part)
    if isinstance(part, int) and not isinstance(part, bool):
        return int(part)
    if isinstance(part, UUID):
        return str(part)
    seen = "nothing" if part is None else f"a {type(part).__name__}"
    raise SchemaError(f"a key field holds {seen}; keys are strings, integers and UUIDs", code="CH0206")


def _typed(part: object, field: Field, key: str) -> object:
    node = field.type
    if isinstance(node, Primitive):
        if node.name in ("int", "long") and node.logical is None:
            if isinstance(part, int) and not isinstance(part, bool):
                return part
            # Only the text that encode_key makes: "007" or "+7" would be another entity with the same number.
            if isinstance(part, str) and len(part) <= 20 and part.removeprefix("-").isdecimal():
                number = int(part)
                if str(number) == part:
                    return number
        elif isinstance(part, str):
            if node.logical is None and node.name == "string":
                return part
            if node.logical is not None and node.logical.name == "uuid":
                try:
                    found = UUID(part)
                except ValueError:
                    raise DecodeError(f"the key {key[:80]!r}: {field.name} is not a UUID", code="CH0206") from None
                if str(found) == part.lower():  # Python also reads braces, URNs and dashes anywhere
                    return found
                raise DecodeError(f"the key {key[:80]!r}: {field.name} is not written as {found}", code="CH0206")
    elif isinstance(node, Enum) and part in node.symbols:
        return part
    raise DecodeError(f"the key {key[:80]!r} does not fit the field {field.name}", code="CH0206")
