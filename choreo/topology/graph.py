"""Who talks to whom: a topology as a graph, and the graph as Mermaid, text and JSON values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from choreo.topology.model import Agent, Topology

NodeKind = Literal["topic", "agent", "table"]
EdgeKind = Literal["reads", "writes", "keeps", "looks up"]


@dataclass(frozen=True, slots=True)
class Node:
    """A topic, an agent or a table. ``note``: what matters about it in a few words."""

    key: str  # unique and safe in every format: a letter, digits
    kind: NodeKind
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow in the direction in which things go; ``source`` and ``target`` are keys of nodes."""

    source: str
    target: str
    kind: EdgeKind


@dataclass(frozen=True, slots=True)
class Graph:
    name: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def graph(topology: Topology) -> Graph:
    """The graph of a topology; names that nothing declares are left out."""
    topics = {
        name: Node(f"t{number}", "topic", name, _topic_note(topology, name))
        for number, name in enumerate(topology.topics)
    }
    agents = {
        agent.name: Node(f"a{number}", "agent", agent.name, _agent_note(agent))
        for number, agent in enumerate(topology.agents.values())
    }
    tables = {
        table.name: Node(f"s{number}", "table", table.name, "reference" if table.reference else table.store)
        for number, table in enumerate(topology.tables.values())
    }
    edges: list[Edge] = []
    for agent in topology.agents.values():
        own = agents[agent.name].key
        edges += [Edge(topics[name].key, own, "reads") for name in agent.reads if name in topics]
        edges += [Edge(own, topics[name].key, "writes") for name in agent.writes if name in topics]
        for name in agent.tables:
            if name in tables:
                looked_up = topology.tables[name].reference
                edges.append(
                    Edge(tables[name].key, own, "looks up") if looked_up else Edge(own, tables[name].key, "keeps")
                )
    return Graph(topology.name, (*topics.values(), *agents.values(), *tables.values()), tuple(edges))


def _topic_note(topology: Topology, name: str) -> str:
    topic = topology.topics[name]
    origin = "external" if topic.external else "ingress" if topic.ingress else ""
    return ", ".join(part for part in (topic.schema, f"by {' and '.join(topic.key)}", origin) if part)


def _agent_note(agent: Agent) -> str:
    parts = [] if agent.kind == "handlers" else [agent.kind]
    level = agent.autonomy.get("level")
    return ", ".join([*parts, *([str(level)] if level else [])])


def mermaid(topology: Topology) -> str:
    """A Mermaid flowchart: agents are boxes, topics rounded, tables cylinders."""
    found = graph(topology)
    lines = ["flowchart LR"]
    shapes = {"topic": '(["{}"])', "agent": '["{}"]', "table": '[("{}")]'}
    for node in found.nodes:
        label = node.name if not node.note else f"{node.name}<br/><small>{node.note}</small>"
        lines.append(f"  {node.key}{shapes[node.kind].format(label.replace(chr(34), '&quot;'))}")
    arrows = {"reads": "-->", "writes": "-->", "keeps": "-.-", "looks up": "-.->"}
    lines += [f"  {edge.source} {arrows[edge.kind]} {edge.target}" for edge in found.edges]
    lines.append("  classDef agent fill:#dbeafe,stroke:#1d4ed8,color:#111")
    lines.append("  classDef topic fill:#f8fafc,stroke:#64748b,color:#111")
    lines.append("  classDef table fill:#fef9c3,stroke:#a16207,color:#111")
    for kind in ("agent", "topic", "table"):
        keys = [node.key for node in found.nodes if node.kind == kind]
        if keys:
            lines.append(f"  class {','.join(keys)} {kind}")
    return "\n".join(lines)


def text(topology: Topology) -> str:
    """Agents with their edges, one after the other, and for each output who hears it."""
    readers: dict[str, list[str]] = {}
    writers: dict[str, list[str]] = {}
    for agent in topology.agents.values():
        for name in agent.reads:
            readers.setdefault(name, []).append(agent.name)
        for name in agent.writes:
            writers.setdefault(name, []).append(agent.name)
    lines = [topology.name]
    for agent in topology.agents.values():
        note = _agent_note(agent)
        lines += ["", f"{agent.name}{f' ({note})' if note else ''}"]
        for name in agent.reads:
            lines.append(f"  ← {name}  from {_listed(writers.get(name), 'outside')}")
        for name in agent.writes:
            lines.append(f"  → {name}  to {_listed(readers.get(name), 'outside')}")
        for name in agent.tables:
            reference = name in topology.tables and topology.tables[name].reference
            lines.append(f"  {'?' if reference else '⌂'} {name}{'  (reference)' if reference else ''}")
    return "\n".join(lines)


def _listed(names: list[str] | None, nobody: str) -> str:
    return ", ".join(names) if names else nobody


def graph_json(topology: Topology) -> dict[str, object]:
    """The graph as JSON values; edges name their ends as ``kind:name``."""
    found = graph(topology)
    names = {node.key: f"{node.kind}:{node.name}" for node in found.nodes}
    return {
        "topology": found.name,
        "nodes": [{"id": names[one.key], "kind": one.kind, "name": one.name, "note": one.note} for one in found.nodes],
        "edges": [{"from": names[one.source], "to": names[one.target], "kind": one.kind} for one in found.edges],
    }
