"""A plan as text for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from choreo.codec.types import short_name
from choreo.topology.fields import duration_text
from choreo.topology.plan import (
    AddPartitions,
    AlterTopicConfig,
    CreateTopic,
    Notice,
    Plan,
    Refused,
    RegisterSchema,
    Stage,
)

_KIND: Final[dict[type[Stage], str]] = {
    Refused: "refused",
    RegisterSchema: "register-schema",
    CreateTopic: "create-topic",
    AddPartitions: "add-partitions",
    AlterTopicConfig: "alter-topic-config",
    Notice: "notice",
}


def plan_text(plan: Plan) -> str:
    """A plan in lines: ``+`` new, ``~`` changed, ``!`` refused, ``·`` to know."""
    lines = [f"{plan.topology} ({plan.file})", ""]
    for stage in plan.stages:
        lines += [f"  {line}" for line in stage_lines(stage)]
    if plan.stages:
        lines.append("")
    return "\n".join([*lines, summary(plan)])


def stage_lines(stage: Stage) -> Iterator[str]:
    """One stage: a line, and further indented lines where there is more to say."""
    if isinstance(stage, RegisterSchema):
        yield f"+ schema {stage.subject}: {short_name(stage.schema.full_name)}, version {stage.version}"
    elif isinstance(stage, CreateTopic):
        yield f"+ topic  {stage.topic}: {_count(stage.partitions, 'partition')}, {_kept(stage)}"
    elif isinstance(stage, AddPartitions):
        yield f"~ topic  {stage.topic}: {stage.before} → {stage.after} partitions"
    elif isinstance(stage, AlterTopicConfig):
        for name, (before, after) in stage.changes.items():
            yield f"~ topic  {stage.topic}: {name} {_value(name, before)} → {_value(name, after)}"
        if stage.warning is not None:
            yield f"         {stage.warning}"
    elif isinstance(stage, Refused):
        yield f"! {stage.target}: {stage.reason}"
        yield f"         {stage.code} {stage.where} ({stage.hint})"
    else:
        yield f"· {stage.target}: {stage.message} ({stage.hint})"


def summary(plan: Plan) -> str:
    """One line: what would happen."""
    if not plan.drift:
        return f"nothing to do: {_count(plan.unchanged, 'topic')} and schemas are as the file says"
    counts = {kind: sum(type(stage) is kind for stage in plan.stages) for kind in _KIND}
    changed = len({one.target for one in plan.changes if isinstance(one, AddPartitions | AlterTopicConfig)})
    parts = [
        (counts[RegisterSchema], f"{_count(counts[RegisterSchema], 'schema')} to register"),
        (counts[CreateTopic], f"{_count(counts[CreateTopic], 'topic')} to create"),
        (changed, f"{changed} to change"),
        (plan.unchanged, f"{plan.unchanged} as they should be"),
        (counts[Refused], f"{counts[Refused]} refused, so that nothing is done"),
    ]
    return ", ".join(text for number, text in parts if number)


def plan_json(plan: Plan) -> dict[str, object]:
    """A plan as JSON values."""
    return {
        "topology": plan.topology,
        "file": plan.file,
        "drift": plan.drift,
        "refused": len(plan.refused),
        "unchanged": plan.unchanged,
        "stages": [stage_json(stage) for stage in plan.stages],
    }


def stage_json(stage: Stage) -> dict[str, object]:
    """A stage as JSON values: ``stage`` names its kind, ``target`` what it is about."""
    found: dict[str, object] = {"stage": _KIND[type(stage)], "target": stage.target}
    if isinstance(stage, RegisterSchema):
        more: dict[str, object] = {"schema": stage.schema.full_name, "version": stage.version}
    elif isinstance(stage, CreateTopic):
        more = {
            "partitions": stage.partitions,
            "replication": stage.replication,
            "purpose": stage.purpose,
            "config": dict(stage.config),
        }
    elif isinstance(stage, AddPartitions):
        more = {"before": stage.before, "after": stage.after}
    elif isinstance(stage, AlterTopicConfig):
        changes = {name: {"before": before, "after": after} for name, (before, after) in stage.changes.items()}
        more = {"changes": changes, "warning": stage.warning}
    elif isinstance(stage, Refused):
        more = {"code": stage.code, "where": stage.where, "reason": stage.reason, "hint": stage.hint}
    else:
        more = {"message": stage.message, "hint": stage.hint}
    return {**found, **more}


def _kept(stage: CreateTopic) -> str:
    policy = stage.config.get("cleanup.policy", "delete")
    retention = stage.config.get("retention.ms")
    kept = "" if retention is None else "for ever" if retention == "-1" else duration_text(int(retention))
    words = {"compact": "compacted", "delete": f"kept {kept}"}.get(policy, f"compacted and kept {kept}")
    return words if stage.purpose == "events" else f"{words}, {stage.purpose}"


def _value(name: str, value: str | None) -> str:
    if value is None:
        return "(unset)"
    if name.endswith(".ms") and value.isdigit():
        return duration_text(int(value))
    return "for ever" if name == "retention.ms" and value == "-1" else value


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
