"""A topology as one HTML page with an inline SVG: no script, no font, no request.

Layers from left to right: a node stands one layer behind the first of its sources that reaches it (breadth first from
what comes from outside), so that arrows of circles point back. Within a layer nodes are ordered by where their
neighbours stand, twice, which removes most crossings in graphs of this size.
"""

from __future__ import annotations

from html import escape
from typing import Final

from choreo.topology.graph import Edge, Graph, Node, graph
from choreo.topology.model import Topology

WIDTH: Final = 190
HEIGHT: Final = 44
GAP_X: Final = 70
GAP_Y: Final = 18
MARGIN: Final = 24
# Longer names are cut in the box and whole in its tooltip.
LABEL_CHARS: Final = 24

Place = tuple[float, float]


def page(topology: Topology) -> str:
    """A complete HTML document."""
    found = graph(topology)
    places = _places(found)
    right = max((x for x, _ in places.values()), default=0) + WIDTH + MARGIN
    bottom = max((y for _, y in places.values()), default=0) + HEIGHT + MARGIN
    title = escape(topology.name)
    owner = f" · {escape(topology.owner)}" if topology.owner else ""
    shapes = [_arrow(edge, places) for edge in found.edges] + [_box(node, *places[node.key]) for node in found.nodes]
    return _PAGE.format(title=title, owner=owner, width=right, height=bottom, shapes="\n".join(shapes))


def _places(found: Graph) -> dict[str, Place]:
    layers = _layers(found)
    neighbours: dict[str, list[str]] = {node.key: [] for node in found.nodes}
    for edge in found.edges:
        neighbours[edge.source].append(edge.target)
        neighbours[edge.target].append(edge.source)
    rows = {key: float(index) for layer in layers for index, key in enumerate(layer)}
    for _ in range(2):
        for layer in layers:
            layer.sort(key=lambda key: _mean([rows[other] for other in neighbours[key]], rows[key]))
            rows.update({key: float(index) for index, key in enumerate(layer)})
    return {
        key: (MARGIN + column * (WIDTH + GAP_X), MARGIN + index * (HEIGHT + GAP_Y))
        for column, layer in enumerate(layers)
        for index, key in enumerate(layer)
    }


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _layers(found: Graph) -> list[list[str]]:
    """Keys by layer. Nodes of a closed circle begin where the first of them stands in the file."""
    following: dict[str, list[str]] = {node.key: [] for node in found.nodes}
    entered = set()
    for edge in found.edges:
        following[edge.source].append(edge.target)
        entered.add(edge.target)
    depth: dict[str, int] = {}
    for start in [*(node.key for node in found.nodes if node.key not in entered), *following]:
        if start in depth:
            continue
        depth[start] = 0
        queue = [start]
        for key in queue:
            for other in following[key]:
                if other not in depth:
                    depth[other] = depth[key] + 1
                    queue.append(other)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for key, number in depth.items():
        layers[number].append(key)
    return layers


def _arrow(edge: Edge, places: dict[str, Place]) -> str:
    (x1, y1), (x2, y2) = places[edge.source], places[edge.target]
    back = x2 <= x1
    start, end = (x1, x2 + WIDTH) if back else (x1 + WIDTH, x2)
    bend = GAP_X * (-1 if back else 1)
    y1, y2 = y1 + HEIGHT / 2, y2 + HEIGHT / 2
    if x1 == x2:
        start, end, bend = x1 + WIDTH, x2 + WIDTH, GAP_X
    path = (
        f"M{start},{y1:.0f} C{start + bend},{y1:.0f} {end - bend if x1 != x2 else end + bend},{y2:.0f} {end},{y2:.0f}"
    )
    marker = "" if edge.kind == "keeps" else ' marker-end="url(#arrow)"'
    return f'<path class="{edge.kind.replace(" ", "-")}" d="{path}"{marker}><title>{escape(edge.kind)}</title></path>'


def _box(node: Node, x: float, y: float) -> str:
    radius = {"topic": HEIGHT / 2, "agent": 4, "table": 12}[node.kind]
    note = f'<text class="note" x="{x + WIDTH / 2}" y="{y + 33}">{escape(_cut(node.note))}</text>' if node.note else ""
    return (
        f'<g class="{node.kind}"><title>{escape(node.kind)} {escape(node.name)} {escape(node.note)}</title>'
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="{radius}"/>'
        f'<text x="{x + WIDTH / 2}" y="{y + (20 if node.note else 27)}">{escape(_cut(node.name))}</text>{note}</g>'
    )


def _cut(label: str) -> str:
    return label if len(label) <= LABEL_CHARS else label[: LABEL_CHARS - 1] + "…"


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<title>{title}</title>
<style>
body {{ font: 15px system-ui, sans-serif; margin: 24px; color: #111; background: #fff; }}
svg {{ max-width: 100%; height: auto; font: 13px system-ui, sans-serif; }}
text {{ text-anchor: middle; fill: #111; }}
.note {{ font-size: 10px; fill: #475569; }}
rect {{ stroke-width: 1.2; }}
.agent rect {{ fill: #dbeafe; stroke: #1d4ed8; }}
.topic rect {{ fill: #f8fafc; stroke: #64748b; }}
.table rect {{ fill: #fef9c3; stroke: #a16207; }}
path {{ fill: none; stroke: #64748b; stroke-width: 1.2; }}
.keeps, .looks-up {{ stroke-dasharray: 4 3; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>agents are boxes, topics are round, tables are yellow{owner}</p>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img">
<title>{title}</title>
<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0,0 L8,4 L0,8 z" style="fill:#64748b;stroke:none"/></marker></defs>
{shapes}
</svg>
</body>
</html>
"""
