"""How deep a value is nested, found without recursion.

fastavro writes a nested value by C recursion that no limit stops: a value of a recursive schema that is nested some
thousand levels deep, or contains itself, ends the process. So values of recursive schemas are measured first.
"""

from __future__ import annotations

from typing import Final

from choreo.codec.types import Type, children, records_of

CONTAINERS_MAX: Final = 1_000
"""Dicts, lists and tuples inside each other: 64 levels of a recursive record (``limits.DEPTH_MAX``, applied exactly
afterwards) with up to 15 containers between two of them. Each costs the C stack a few hundred bytes of its 8 MiB."""


def is_recursive(root: Type) -> bool:
    """Whether a type contains itself."""
    return any(
        any(inner is record for child in children(record) for inner in records_of(child)) for record in records_of(root)
    )


def too_deep(value: object) -> bool:
    """Whether containers are nested more than ``CONTAINERS_MAX`` levels deep; a value that contains itself is."""
    level: list[object] = [value]
    for _ in range(CONTAINERS_MAX):
        inner: dict[int, object] = {}  # by identity: what many share is looked at once a level
        for node in level:
            if isinstance(node, dict):
                inner.update((id(one), one) for one in node.values() if isinstance(one, dict | list | tuple))
            elif isinstance(node, list | tuple):
                inner.update((id(one), one) for one in node if isinstance(one, dict | list | tuple))
        if not inner:
            return False
        level = list(inner.values())
    return True
