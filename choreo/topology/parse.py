"""From the text of a topology file to a frozen ``Topology``, or to a list of everything that is wrong with it.

Three passes, each of which reports all it finds: YAML to nodes with positions (``nodes``), nodes to plain values by the
field table (``spec``), values to the model. What only makes sense between several declarations is a lint (``lints``).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from choreo.topology import spec
from choreo.topology.fields import ABSENT, INVALID, Path, Reading, Section, is_null, seen
from choreo.topology.model import (
    Agent,
    Audit,
    Cluster,
    Compatibility,
    Flow,
    Limits,
    Model,
    Position,
    StoreKind,
    Table,
    Tool,
    Topic,
    Topology,
)
from choreo.topology.nodes import Mapping, Scalar, merged, read_nodes
from choreo.topology.problems import Lint, in_order

Made = TypeVar("Made")
Values = MappingType[str, object]

_COMPATIBILITIES: Final[MappingType[str, Compatibility]] = {
    "BACKWARD": "BACKWARD",
    "FORWARD": "FORWARD",
    "FULL": "FULL",
    "NONE": "NONE",
}
_STORES: Final[MappingType[str, StoreKind]] = {"memory": "memory", "rocksdb": "rocksdb"}
_AUDITS: Final[MappingType[str, Audit]] = {"full": "full", "brief": "brief", "off": "off"}


class Parsed(NamedTuple):
    """A topology, or why there is none. Without errors among the problems there is always a topology."""

    topology: Topology | None
    problems: list[Lint]


def parse(
    text: str,
    file: str,
    *,
    overlay: tuple[str, str] | None = None,
    env: MappingType[str, str] | None = None,
) -> Parsed:
    """Parse a topology file.

    Args:
        text: the YAML text.
        file: its name, for positions.
        overlay: text and name of a second file that is laid over the first (``x.prod.yaml``).
        env: variables that ``${NAME}`` may use; no others exist.
    """
    node, problems = read_nodes(text, file)
    if overlay is not None:
        over, more = read_nodes(*overlay)
        problems = [*problems, *more]
        node = merged(node, over) if node is not None and over is not None else None
    if node is None:
        return Parsed(None, in_order(problems))
    reading = Reading(env or {}, problems)
    reading.positions[()] = Position(file, 1, 1)
    if not _version_is_right(node, reading):
        return Parsed(None, in_order(reading.problems))
    values = spec.FILE.read(node, (), reading)
    failed = values is INVALID or any(one.severity == "error" for one in reading.problems)
    if failed or not isinstance(values, dict):
        return Parsed(None, in_order(reading.problems))
    return Parsed(_topology(values, file, reading.positions), in_order(reading.problems))


def _version_is_right(node: Mapping, reading: Reading) -> bool:
    """Whether this is a file of ours at all: a newer format would only produce a page of misleading problems."""
    wanted = spec.FORMAT_VERSION
    entry = node.entries.get("choreo")
    if entry is None or is_null(entry.value):
        message, position = "the file does not say which format it has", node.position
    elif isinstance(entry.value, Scalar) and entry.value.plain and entry.value.text == str(wanted):
        return True
    else:
        message, position = f"`choreo:` is {seen(entry.value)}", entry.value.position
    newer = "a newer choreo may read it" if entry is not None else f"begin the file with `choreo: {wanted}`"
    reading.report("CH0104", position, message, f"choreo: {wanted}", newer)
    return False


def _topology(values: Values, file: str, positions: MappingType[Path, Position]) -> Topology:
    defaults = _section(values, "defaults", spec.DEFAULTS)
    cluster = _section(values, "cluster", spec.CLUSTER)
    place = _Places(positions)

    def each(section: str, make: Callable[[str, Values, Position], Made]) -> dict[str, Made]:
        found = values.get(section, {})
        assert isinstance(found, dict), "a section of entries is a dict"
        return {name: make(name, one, place(section, name)) for name, one in found.items()}

    return Topology(
        name=_text(values, "topology"),
        owner=_text(values, "owner"),
        file=file,
        cluster=Cluster(
            _optional_text(cluster, "bootstrap"),
            _text(cluster, "schema_registry").rstrip("/"),
            {name: str(value) for name, value in _mapping(cluster, "security").items()},
            _optional_integer(cluster, "replication"),
        ),
        topics=each("topics", lambda name, one, at: _topic(name, one, at, defaults)),
        tables=each("tables", _table),
        agents=each("agents", _agent),
        tools=each("tools", _tool),
        models=each("models", _model),
        flows=each("flows", _flow),
        positions=positions,
    )


@dataclass(frozen=True, slots=True)
class _Places:
    positions: MappingType[Path, Position]

    def __call__(self, *path: str | int) -> Position:
        return self.positions[path]


def _topic(name: str, values: Values, position: Position, defaults: Values) -> Topic:
    compact = _flag(values, "compact")
    retention = defaults["retention"] if "retention" not in values and not compact else values.get("retention")
    assert retention is None or isinstance(retention, int), "a retention is milliseconds or None"
    dedupe = _mapping(values, "dedupe")
    merged_values = {**defaults, **values}
    return Topic(
        name=name,
        schema=_text(values, "schema"),
        key=_names(values, "key"),
        partitions=_integer(merged_values, "partitions"),
        retention_ms=retention,
        position=position,
        compact=compact,
        external=_flag(values, "external"),
        ingress=_flag(values, "ingress"),
        dedupe_ms=_optional_integer(dedupe, "window"),
        compatibility=_COMPATIBILITIES[_text(merged_values, "compatibility")],
        message_bytes_max=_integer(merged_values, "message_bytes_max"),
    )


def _table(name: str, values: Values, position: Position) -> Table:
    return Table(
        name=name,
        schema=_text(values, "schema"),
        key=_names(values, "key"),
        position=position,
        store=_STORES[_text(values, "store")],
        reference=_flag(values, "reference"),
        partitions=_integer(values, "partitions"),
    )


def _tool(name: str, values: Values, position: Position) -> Tool:
    return Tool(
        name=name,
        kind=_text(values, "kind"),
        function=_optional_text(values, "function"),
        effect=_text(values, "effect"),
        timeout_ms=_integer(values, "timeout"),
        position=position,
    )


def _model(name: str, values: Values, position: Position) -> Model:
    settings = {key: value for key, value in values.items() if key != "provider"}
    return Model(name=name, provider=_text(values, "provider"), position=position, settings=settings)


def _agent(name: str, values: Values, position: Position) -> Agent:
    kind = _text(values, "kind")
    start = _text(values, "start")
    return Agent(
        name=name,
        app=_optional_text(values, "app") or f"agents.{name}",
        kind="react" if kind == "react" else "faust" if kind == "faust" else "handlers",
        position=position,
        reads=_names(values, "reads"),
        writes=_names(values, "writes"),
        tables=_names(values, "tables"),
        tools=_names(values, "tools"),
        start="latest" if start == "latest" else "earliest",
        limits=_limits(_section(values, "limits", spec.LIMITS)),
        audit=_AUDITS[_text(values, "audit")],
        autonomy=_mapping(values, "autonomy"),
        model=_optional_text(values, "model"),
        prompt=_optional_text(values, "prompt"),
        answer=_optional_text(values, "answer"),
        version=_integer(values, "version"),
    )


def _limits(values: Values) -> Limits:
    return Limits(
        in_flight=_integer(values, "in_flight"),
        hops=_integer(values, "hops"),
        merge_wait_ms=_integer(values, "merge_wait"),
        retries=_integer(values, "retries"),
        retry_backoff_ms=_integer(values, "retry_backoff"),
        steps=_optional_integer(values, "steps"),
        tokens=_optional_integer(values, "tokens"),
        deadline_ms=_optional_integer(values, "deadline"),
    )


def _flow(name: str, values: Values, position: Position) -> Flow:
    return Flow(
        name=name,
        source=_text(values, "from"),
        to=_text(values, "to"),
        position=position,
        when=_optional_text(values, "when"),
        within_ms=_optional_integer(values, "within"),
        exactly=_optional_integer(values, "exactly"),
        at_most=_optional_integer(values, "at_most"),
    )


# What a field holds was checked by its kind; these say so to the type checker.


def _section(values: Values, name: str, section: Section) -> Values:
    """A section's values; one that the file leaves out has its fields' defaults."""
    found = values.get(name)
    if found is None:
        return {one.name: one.default for one in section.fields if one.default is not ABSENT}
    assert isinstance(found, dict), f"{name} is a section"
    return found


def _mapping(values: Values, name: str) -> Values:
    found = values.get(name, {})
    assert isinstance(found, dict), f"{name} is a mapping"
    return found


def _text(values: Values, name: str) -> str:
    found = values[name]
    assert isinstance(found, str), f"{name} is text"
    return found


def _optional_text(values: Values, name: str) -> str | None:
    return _text(values, name) if name in values else None


def _integer(values: Values, name: str) -> int:
    found = values[name]
    assert isinstance(found, int), f"{name} is a whole number"
    return found


def _optional_integer(values: Values, name: str) -> int | None:
    return _integer(values, name) if name in values else None


def _flag(values: Values, name: str) -> bool:
    found = values[name]
    assert isinstance(found, bool), f"{name} is a flag"
    return found


def _names(values: Values, name: str) -> tuple[str, ...]:
    found = values[name]
    assert isinstance(found, tuple), f"{name} is a tuple of names"
    return found
