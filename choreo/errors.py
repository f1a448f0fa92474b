"""Every public error: a stable code, whose fault it is, and whether trying again can help.

The two questions an operator asks of an error are *whose fault is it* and *may we retry*. Both are answered by
attributes, never by parsing the text. The text itself says what was seen, what was expected, where, and what to do.

Code areas: 01 topology, 02 schema, 03 engine, 04 effects, 05 policy, 06 models, 07 replay and lineage, 08 environment.
"""

from __future__ import annotations

from typing import Final, Literal

Retry = Literal["never", "backoff"]
Fault = Literal["user", "environment", "choreo"]

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
EXIT_DRIFT: Final = 2
EXIT_USAGE: Final = 64
EXIT_UNREACHABLE: Final = 69

# One line for each code, written for the person who meets it. docs/errors.md is generated from this table; a code that
# is not in it cannot be raised. Each area has a section of its own: add codes inside the section, never reuse one.
CATALOGUE: Final[dict[str, str]] = {
    # -- 01 topology -------------------------------------------------------------------------------------------------
    "CH0101": "The topology file cannot be read as YAML.",
    "CH0102": "A field of the topology file is unknown, missing or of the wrong type.",
    "CH0103": "The agent or table used in code is not what the topology declares.",
    "CH0104": "The topology file's format version is missing, or is not one that this choreo reads.",
    "CH0105": "A `${VARIABLE}` of the topology file is not set or not written right.",
    "CH0106": "A planned change of a topic would tear state from its events, or lose data; plan and apply refuse it.",
    "CH0110": "An agent or a flow names a topic that is not declared.",
    "CH0111": "An agent names a table that is not declared.",
    "CH0112": "An agent names a tool or a model that is not declared.",
    "CH0113": "A topic, a table or an answer has a schema that no .avsc file defines.",
    "CH0114": "A name is not written the way its kind is.",
    "CH0115": "A name belongs to choreo or to Kafka.",
    "CH0116": "Two names become the same name in Kafka.",
    "CH0117": "An internal topic's name would be longer than Kafka allows.",
    "CH0118": "Two agents have the same module.",
    "CH0120": "Nobody reads or writes a topic.",
    "CH0121": "Agents read a topic that nobody writes.",
    "CH0122": "An agent can never get an event.",
    "CH0123": "Agents form a circle without a hop limit.",
    "CH0124": "An agent writes a topic that it reads, without a hop limit.",
    "CH0125": "An agent reads nothing.",
    "CH0126": "An agent writes to an external topic.",
    "CH0127": "A table, a tool or a model is declared and no agent uses it.",
    "CH0128": "A flow promises a result that no chain of agents leads to.",
    "CH0129": "A flow contradicts itself or owes nothing.",
    "CH0130": "A key names a field that the schema does not have.",
    "CH0131": "A key field may be null or has a type that keys don't have.",
    "CH0132": "The inputs of one agent have different numbers of partitions.",
    "CH0133": "The inputs of one agent are keyed by different kinds of things.",
    "CH0134": "A table's key is of another kind than the key of the agent's inputs.",
    "CH0135": "Two agents keep the same table.",
    "CH0136": "A row's schema has a field that is neither key nor has a default.",
    "CH0137": "A window in a row is configured in a way that cannot work.",
    "CH0138": "A window is in an event.",
    "CH0139": "A table says something that has no effect on its kind.",
    "CH0140": "A dedupe window is longer than the topic keeps events.",
    "CH0141": "An input keeps events for less than an hour.",
    "CH0142": "An agent reads a compacted topic.",
    "CH0143": "A topic has a dedupe window, and nobody applies it.",
    "CH0144": "A topic takes records that do not fit into the engine's transactions.",
    "CH0145": "An agent wants more entities in flight than progress can be kept of.",
    "CH0146": "An agent with a single input says how long inputs wait for each other.",
    "CH0150": "An autonomous agent has a blind tool.",
    "CH0151": "An agent's constraints and its level of autonomy do not match.",
    "CH0152": "A plain Faust agent takes part, at Faust's weaker guarantee.",
    "CH0153": "A plain Faust agent has settings that only choreo's engine knows.",
    "CH0154": "An agent writes no decision records: its steps cannot be explained afterwards.",
    "CH0155": "A react agent lacks its model, its prompt or its answer.",
    "CH0156": "A Python tool does not say which function it is.",
    "CH0157": "The file declares something that this version checks but does not run.",
    "CH0158": "Topics would have two replicas.",
    # -- 02 schema ---------------------------------------------------------------------------------------------------
    "CH0201": "Bytes could not be decoded as the declared Avro record.",
    "CH0202": "A schema file is not valid Avro, or names a type that no file defines.",
    "CH0203": "A schema change is not compatible with what the topic already holds.",
    "CH0204": "A value does not fit its Avro schema.",
    "CH0205": "The schema registry does not know this schema or id.",
    "CH0206": "A message key is missing, or is not what the topic declares.",
    "CH0207": "The schema registry cannot be reached, or refuses the request.",
    "CH0208": "A schema cannot be expressed as a Python class.",
    # -- 03 engine ---------------------------------------------------------------------------------------------------
    "CH0301": "An event lies on another partition than its key belongs to.",
    "CH0302": "An event went through more hops than its agent allows.",
    "CH0303": "A step failed, and trying again cannot help.",
    "CH0304": "A step kept failing until its retries were used up.",
    "CH0305": "A record is larger than its topic accepts.",
    "CH0306": "This worker was replaced: by a newer one with its instance name, or by the heir of its partitions.",
    "CH0307": "A partition cannot be restored: committed offsets are missing or wrong, or the topic was made again.",
    "CH0308": "Input is gone before it was read: deleted by retention, or with its topic.",
    "CH0309": "An invariant of the engine was broken; this is a defect in choreo.",
    "CH0310": "A handler awaited something other than its context.",
    "CH0311": "A handler used a topic, table, timer or tool that the topology does not declare for its agent.",
    "CH0312": "An event was parked: a person has to look at it.",
    "CH0313": "An entity has too many parked events.",
    "CH0314": "An event arrived that no handler of the agent takes.",
    # -- 04 effects --------------------------------------------------------------------------------------------------
    "CH0401": "A tool call failed.",
    "CH0402": "A tool call took longer than its timeout.",
    "CH0403": "A tool's effect class does not allow this kind of call.",
    # -- 05 policy ---------------------------------------------------------------------------------------------------
    # -- 06 models ---------------------------------------------------------------------------------------------------
    # -- 07 replay and lineage ---------------------------------------------------------------------------------------
    # -- 08 environment ----------------------------------------------------------------------------------------------
    "CH0801": "The Kafka cluster cannot be reached.",
    "CH0802": "A port is already in use.",
    "CH0803": "The embedded Kafka could not be downloaded or started.",
    "CH0804": "A file or directory is missing or cannot be used.",
    "CH0805": "A topic of the topology does not exist on the cluster, or differs from the file.",
    "CH0806": "A setting or environment variable has a value that cannot be used.",
    "CH0807": "The command was called with arguments that it does not take.",
    "CH0808": "A worker process kept crashing.",
    "CH0809": "What the command is about does not exist, or is not in a state for it.",
}


class ChoreoError(Exception):
    """An error with a stable code.

    Args:
        message: what was seen and what was expected.
        code: key of ``CATALOGUE``.
        where: place in a file (``path:line:column``) or in Kafka (``topic/partition/offset key=…``).
        hint: the next thing to do.
        retry: whether the same attempt may succeed later.
        in_doubt: whether an effect on the outside world may have happened.
        fault: who has to act.
    """

    default_code: str = "CH0309"
    default_fault: Fault = "user"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        where: str | None = None,
        hint: str | None = None,
        retry: Retry = "never",
        in_doubt: bool = False,
        fault: Fault | None = None,
    ) -> None:
        self.code: str = code or self.default_code
        if self.code not in CATALOGUE:
            raise AssertionError(f"error code {self.code!r} is not in the catalogue")
        self.message = message
        self.where = where
        self.hint = hint
        self.retry: Retry = retry
        self.in_doubt = in_doubt
        self.fault: Fault = fault or self.default_fault
        super().__init__(message)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.code} {place}{self.message}{hint}"

    @property
    def exit_code(self) -> int:
        """Exit code of a command that ends with this error."""
        special = {"CH0207": EXIT_UNREACHABLE, "CH0801": EXIT_UNREACHABLE, "CH0807": EXIT_USAGE}
        return special.get(self.code, EXIT_REFUSED)


class TopologyError(ChoreoError):
    """The declared topology cannot be used."""

    default_code = "CH0102"


class UndeclaredError(ChoreoError):
    """Code used an edge, table, timer or tool that the topology does not declare."""

    default_code = "CH0311"


class SchemaError(ChoreoError):
    """A schema cannot be used."""

    default_code = "CH0202"


class DecodeError(ChoreoError):
    """Bytes are not the declared Avro record."""

    default_code = "CH0201"


class EngineError(ChoreoError):
    """The step engine stopped at something it may not decide alone."""

    default_code = "CH0309"
    default_fault: Fault = "choreo"


class StepError(ChoreoError):
    """A step failed; the event becomes a dead letter or is tried again."""

    default_code = "CH0303"


class ToolError(ChoreoError):
    """A tool call failed."""

    default_code = "CH0401"
    default_fault: Fault = "environment"


class HostError(ChoreoError):
    """The machine, the network or a setting is not as needed."""

    default_code = "CH0804"
    default_fault: Fault = "environment"


class Signal(BaseException):
    """Base of what user code must not catch."""


class ParkSignal(Signal):
    """Raised by ``ctx.park``: the step ends and its event waits for a person."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class FencedSignal(Signal):
    """A newer worker took over this worker's identity; the only thing left is to exit."""
