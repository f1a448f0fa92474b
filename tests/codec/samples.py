"""Values of any schema from a seeded source of chance, and damage to their bytes."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from choreo.codec.types import Array, Enum, Fixed, Logical, Map, Primitive, Record, Type, Union

_START = datetime(1970, 1, 1, tzinfo=UTC)


def sample(node: Type, chance: random.Random, depth: int = 0) -> Any:
    """A value of the type."""
    match node:
        case Primitive(logical=logical) | Fixed(logical=logical) if logical is not None:
            return _logical(logical, chance)
        case Primitive(name=name):
            return _primitive(name, chance)
        case Fixed(size=size):
            return chance.randbytes(size)
        case Enum(symbols=symbols):
            return chance.choice(symbols)
        case Array(items=items):
            return [sample(items, chance, depth + 1) for _ in range(chance.randrange(4) if depth < 4 else 0)]
        case Map(values=values):
            count = chance.randrange(4) if depth < 4 else 0
            return {f"k{number}": sample(values, chance, depth + 1) for number in range(count)}
        case Union(branches=branches):
            plain = [one for one in branches if not isinstance(one, Record)]
            branch = chance.choice(branches if depth < 4 or not plain else plain)
            value = sample(branch, chance, depth + 1)
            return (branch.name, value) if isinstance(branch, Record) and node.records > 1 else value
        case Record(fields=fields):
            return {one.name: sample(one.type, chance, depth + 1) for one in fields}


def _primitive(name: str, chance: random.Random) -> Any:
    match name:
        case "null":
            return None
        case "boolean":
            return chance.random() < 0.5
        case "int":
            return chance.choice([0, -1, chance.randint(-(2**31), 2**31 - 1)])
        case "long":
            return chance.choice([0, -1, chance.randint(-(2**63), 2**63 - 1)])
        case "float" | "double":
            return chance.choice([0.0, -1.5, 0.25 * chance.randrange(1_000)])
        case "bytes":
            return chance.randbytes(chance.randrange(12))
    return "".join(chance.choices("abc é😀", k=chance.randrange(9)))


def _logical(logical: Logical, chance: random.Random) -> Any:
    micros = chance.randrange(2_000_000_000) * 1_000_000
    match logical.name:
        case "date":
            return date.fromordinal(chance.randrange(1, 3_000_000))
        case "uuid":
            return UUID(int=chance.getrandbits(128))
        case "decimal":
            top = 10**logical.precision - 1
            return Decimal(chance.randint(-top, top)).scaleb(-logical.scale)
        case "time-millis" | "time-micros":
            return time(chance.randrange(24), chance.randrange(60), chance.randrange(60))
    at = _START + timedelta(microseconds=micros)
    return at.replace(tzinfo=None) if logical.name.startswith("local-") else at


def damaged(chance: random.Random, source: bytes, start: int = 5) -> bytes:
    """The bytes with one to three changes after ``start``."""
    data = bytearray(source)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(start, len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[place:place] = chance.randbytes(chance.randrange(1, 4))
            case 1:
                del data[place : place + chance.randrange(1, 4)]
            case 2 if place < len(data):
                data[place] ^= 1 << chance.randrange(8)
            case _:
                data[place : place + 1] = chance.choice([b"\xff", b"\x80", b"\x00", b"\xff" * 9 + b"\x01"])
    return bytes(data)
