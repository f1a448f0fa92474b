"""Names of groups and internal topics (public: users see them in Kafka). Underscores become dashes."""

from __future__ import annotations


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def group(topology: str, agent: str) -> str:
    """Consumer group of an agent; no version in it, so that a deploy continues where the last one stopped."""
    return f"{_dashed(topology)}.{_dashed(agent)}"


def transactional_id(topology: str, agent: str, instance: str) -> str:
    return owner(group(topology, agent), instance)


def owner(group_name: str, instance: str) -> str:
    """Transactional id of a member of a group."""
    return f"{group_name}.{_dashed(instance)}"


def changelog(topology: str, agent: str, table: str) -> str:
    return f"{group(topology, agent)}.changelog.{_dashed(table)}"


def journal(topology: str, agent: str) -> str:
    """Checkpoints and per-entity engine state (later: call records)."""
    return f"{group(topology, agent)}.journal"


def timers(topology: str, agent: str) -> str:
    return f"{group(topology, agent)}.timers"


def parked(topology: str, agent: str) -> str:
    return f"{group(topology, agent)}.parked"


def dead_letters(topology: str, agent: str) -> str:
    return f"{group(topology, agent)}.dead-letters"


def settled(topology: str, agent: str) -> str:
    """The agent's own inbox: what a person or a tool settled for it (retry, drop, re-drive)."""
    return f"{group(topology, agent)}.settled"


def decisions(topology: str) -> str:
    return f"{_dashed(topology)}.decisions"


def reference(topology: str, table: str) -> str:
    """Topic of a reference table, written by ``choreo load``."""
    return f"{_dashed(topology)}.reference.{_dashed(table)}"
