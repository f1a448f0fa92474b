"""All targets, by name."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache

from tests.fuzz.target import Target
from tests.fuzz.targets import avro, headers, metadata, project_files, stored, topology


@cache
def all_targets() -> dict[str, Target]:
    """Every target; names are unique."""
    found: dict[str, Target] = {}
    for module in (avro, headers, topology, metadata, project_files, stored):
        for target in module.targets():
            assert target.name not in found, f"two targets {target.name}"
            found[target.name] = target
    return found


def selected(patterns: str) -> list[Target]:
    """Targets whose name or area is one of the words, or matches one with ``*``; all for an empty text."""
    words = patterns.replace(",", " ").split() or ["*"]
    return [
        one for one in all_targets().values() if any(one.area == word or fnmatchcase(one.name, word) for word in words)
    ]
