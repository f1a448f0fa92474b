"""choreo's own schemas, read from the package: the records it writes, and ``choreo.Window`` for rows.

Their ids are fixed, below those of users' schemas, and stand in ``records/registry.lock.json`` like those of any
project: they are the same on every cluster, and a reader needs no registry for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

from choreo.codec.schema import Schema, SchemaSet
from choreo.codec.source import WINDOW_NAME
from choreo.codec.types import short_name
from choreo.runtime.registry_lock import Lock

# Records that are messages or rows, and so have an id; the others are only parts of them.
RECORD_NAMES = ("Checkpoint", "Entity", "Timer", "Parked", "DeadLetter", "Settlement", "Decision")


@cache
def builtin_schemas() -> SchemaSet:
    """Schemas of ``choreo/records``."""
    files = resources.files("choreo.records")
    return SchemaSet.load(
        {file.name: file.read_text("utf-8") for file in files.iterdir() if file.name.endswith(".avsc")}
    )


def library_texts() -> Mapping[str, str]:
    """Texts that users' schemas may refer to: ``library`` of ``SchemaSet.load``."""
    name = f"{short_name(WINDOW_NAME)}.avsc"
    return {f"choreo/records/{name}": resources.files("choreo.records").joinpath(name).read_text("utf-8")}


@cache
def builtin_lock() -> Lock:
    """The fixed ids: subjects are the records' full names."""
    return Lock.parse(
        resources.files("choreo.records").joinpath("registry.lock.json").read_text("utf-8"),
        "choreo/records/registry.lock.json",
    )


def builtin_id(name: str) -> tuple[int, Schema]:
    """Newest fixed id and schema of one of choreo's records, by short name."""
    latest = builtin_lock().versions(f"choreo.{name}")[-1]
    return latest.schema_id, builtin_lock().schema(latest.schema_id)
