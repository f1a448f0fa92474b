"""A topology as large as a company's, made by rule: agents in columns, every topic with a record of its own.

Column after column a parcel goes the same way: the first agent of a column reads what comes from outside, each other
agent reads what the one before it in its column wrote and what the one before it in the neighbouring column wrote, and
keeps a table. All inputs of an agent have one key, as they must.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

NAME: Final = "parcels"
ROWS: Final = 5
"""Agents of a column: 500 agents are 100 columns."""


def topology(agents: int) -> str:
    """The YAML text: ``agents`` agents, twice as many topics, a table for each agent.

    Raises:
        ValueError: not a multiple of ``ROWS``, or fewer than two columns.
    """
    columns, rest = divmod(agents, ROWS)
    if rest or columns < 2:
        raise ValueError(f"a multiple of {ROWS} from {2 * ROWS} on is wanted, saw {agents}")
    topics: list[str] = []
    tables: list[str] = []
    lines: list[str] = []
    for column in range(columns):
        topics.append(f"  in-{column:03}: {{schema: In{column:03}, key: parcel_id, ingress: true}}")
        for row in range(ROWS):
            place = f"{column:03}_{row}"
            reads = [f"in-{column:03}"]
            if row:
                reads = [f"on-{column:03}-{row - 1}", f"aside-{(column - 1) % columns:03}-{row - 1}"]
            # the last row's agents have no reader for what goes aside
            writes = [f"{kind}-{column:03}-{row}" for kind in ("on", "aside")[: 1 if row == ROWS - 1 else 2]]
            topics += [f"  {name}: {{schema: {record_name(name)}, key: parcel_id}}" for name in writes]
            tables.append(f"  kept_{place}: {{schema: Kept{column:03}{row}, key: parcel_id}}")
            lines += [
                f"  agent_{place}:",
                f"    reads: [{', '.join(reads)}]",
                f"    writes: [{', '.join(writes)}]",
                f"    tables: [kept_{place}]",
            ]
    # one partition each: how many there are makes no difference to lint and plan, but 16,000 of them are more than one
    # small broker can open in minutes
    head = ["choreo: 1", f"topology: {NAME}", "owner: logistics", "defaults: {partitions: 1}"]
    return "\n".join([*head, "topics:", *topics, "tables:", *tables, "agents:", *lines]) + "\n"


def record_name(topic: str) -> str:
    """``on-012-3`` → ``On0123``."""
    return "".join(part.capitalize() for part in topic.split("-"))


def schemas(agents: int) -> dict[str, str]:
    """File name → text: an Avro record for each topic and table of ``topology(agents)``."""
    columns = agents // ROWS
    names = [f"In{column:03}" for column in range(columns)]
    for column in range(columns):
        for row in range(ROWS):
            names += [f"{kind}{column:03}{row}" for kind in ("On", "Aside")[: 1 if row == ROWS - 1 else 2]]
    files = {name: _record(name, _EVENT_FIELDS) for name in names}
    files |= {name: _record(name, _ROW_FIELDS) for name in (f"Kept{n // ROWS:03}{n % ROWS}" for n in range(agents))}
    return {f"{name}.avsc": text for name, text in files.items()}


def write(folder: Path, agents: int) -> None:
    """Makes a project of it: ``topologies/parcels.yaml`` and ``schemas/*.avsc``."""
    for name in ("topologies", "schemas", "agents"):
        (folder / name).mkdir(parents=True)
    (folder / "topologies" / f"{NAME}.yaml").write_text(topology(agents), "utf-8")
    for name, text in schemas(agents).items():
        (folder / "schemas" / name).write_text(text, "utf-8")


def _record(name: str, fields: list[dict[str, Any]]) -> str:
    return json.dumps({"type": "record", "name": name, "namespace": NAME, "fields": fields}, indent=2)


_EVENT_FIELDS: Final[list[dict[str, Any]]] = [
    {"name": "parcel_id", "type": "string"},
    {"name": "depot", "type": "string", "doc": "Where it was seen last."},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "weight_grams", "type": "int"},
    {"name": "fragile", "type": "boolean"},
    {"name": "customer", "type": ["null", "string"], "default": None},
    {"name": "minutes", "type": "int", "doc": "Until it arrives."},
]
_ROW_FIELDS: Final[list[dict[str, Any]]] = [
    {"name": "parcel_id", "type": "string"},
    {"name": "depot", "type": "string", "default": ""},
    {"name": "scans", "type": "int", "default": 0},
    {"name": "late_minutes", "type": "int", "default": 0},
    {"name": "customer", "type": ["null", "string"], "default": None},
]
