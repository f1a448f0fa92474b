"""Arguments and answers of tool calls as JSON text, for decision records."""

from __future__ import annotations

import dataclasses
import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from choreo.agent.record import Record

JSON_CHARS_MAX: Final = 65_536
"""Longest argument list or answer of a call that a decision keeps; a larger one is cut and marked as cut."""
CUT_CHARS: Final = 1_000


def as_json(value: object) -> str:
    """A value as compact JSON text, for people and for replay; what JSON doesn't have becomes text."""
    try:
        text = json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"), skipkeys=True)
    except (ValueError, RecursionError):  # it contains itself
        text = json.dumps(repr(value)[:CUT_CHARS], ensure_ascii=False)
    if len(text) > JSON_CHARS_MAX:
        text = json.dumps({"cut": text[:CUT_CHARS], "chars": len(text)}, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()


def _plain(value: object) -> Any:
    match value:
        case Record():
            return value.model_dump(mode="json")
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case UUID() | Decimal():
            return str(value)
        case set() | frozenset():
            return sorted(value, key=repr)
        case bytes():
            return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return repr(value)[:CUT_CHARS]
