"""Which registry a project uses: the committed lock file, or an HTTP registry by its URL."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from choreo.codec.schema import Schema
from choreo.ports import Registry
from choreo.runtime.registry_file import LOCK_NAME, FileRegistry


def open_registry(address: str, schemas_dir: Path, known: Iterable[Schema] = ()) -> Registry:
    """The registry at an address.

    Args:
        address: ``file``, or the base URL of a Confluent-compatible registry.
        schemas_dir: directory of the `.avsc` files; the lock file lies in it.
        known: the project's schemas, where they were parsed already.
    """
    if address == "file":
        return FileRegistry(schemas_dir / LOCK_NAME, known)
    from choreo.runtime.registry_http import HttpRegistry

    return HttpRegistry(address)


def value_subject(topic: str) -> str:
    """The subject under which a topic's value schemas are registered (Confluent's TopicNameStrategy)."""
    return f"{topic}-value"
