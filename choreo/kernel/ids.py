"""Ids that derive from what caused them, so that a re-run, a replay and a take-over give the same ones.

Every id is a prefix of SHA-256 over a compact JSON array (UTF-8, no spaces, nothing escaped that need not be): any
language can compute it, and no two kinds of id share an array shape. One digest serves a step for two ids: its first 32
digits are the id of the first event that the step emits, its last 16 the id of the step's span.

Source: CloudEvents 1.0 (``id`` is unique within ``source``); W3C Trace Context level 1 (ids are lower-case hex, not
all zeros).
"""

from __future__ import annotations

from hashlib import sha256
from json.encoder import encode_basestring as _quoted
from typing import Final

EVENT_ID_CHARS: Final = 32
TRACE_ID_CHARS: Final = 32
SPAN_ID_CHARS: Final = 16

_HEX: Final = frozenset("0123456789abcdef")
_NO_TRACE: Final = "0" * TRACE_ID_CHARS
_NO_SPAN: Final = "0" * SPAN_ID_CHARS


def event_id(topology: str, agent: str, parent_id: str, n: int) -> str:
    """Id of the ``n``-th event (from 0) that an agent emits because of the event ``parent_id``."""
    return Identity(topology, agent).event_id(parent_id, n)


def timer_id(topology: str, agent: str, parent_id: str, name: str) -> str:
    """Id of the firing of a timer that the step of ``parent_id`` set."""
    return Identity(topology, agent).timer_id(parent_id, name)


def root_id(cluster_id: str, topic_id: str, partition: int, offset: int) -> str:
    """Id of an event that came without one. The topic's id is part of it: offsets repeat when a topic is recreated."""
    return _digest(f"[{_quoted(cluster_id)},{_quoted(topic_id)},{partition},{offset}]")[:EVENT_ID_CHARS]


def trace_id(correlation_id: str) -> str:
    """Trace id of a chain of events that no trace context came with: its correlation id where that has the form of a
    trace id (as every root id has), otherwise a digest of it."""
    if len(correlation_id) == TRACE_ID_CHARS and is_hex(correlation_id) and correlation_id != _NO_TRACE:
        return correlation_id
    return _digest(f"[{_quoted(correlation_id)}]")[:TRACE_ID_CHARS]


def is_hex(text: str) -> bool:
    """Whether all characters are lower-case hexadecimal digits."""
    return _HEX.issuperset(text)


class Identity:
    """One agent of one topology: the part of its ids that never changes, built once."""

    __slots__ = ("_prefix", "agent", "source", "topology")

    def __init__(self, topology: str, agent: str) -> None:
        self.topology = topology
        self.agent = agent
        self.source = f"/choreo/{topology}/{agent}"
        self._prefix = f"[{_quoted(topology)},{_quoted(agent)},"

    def step_ids(self, parent_id: str) -> tuple[str, str]:
        """Id of the first event of the step that ``parent_id`` triggers, and id of the step's span: of one digest."""
        digest = sha256(f"{self._prefix}{_quoted(parent_id)},0]".encode()).hexdigest()
        span = digest[-SPAN_ID_CHARS:]
        return digest[:EVENT_ID_CHARS], span if span != _NO_SPAN else _NO_SPAN[:-1] + "1"

    def event_id(self, parent_id: str, n: int) -> str:
        """See ``event_id``."""
        return sha256(f"{self._prefix}{_quoted(parent_id)},{n}]".encode()).hexdigest()[:EVENT_ID_CHARS]

    def timer_id(self, parent_id: str, name: str) -> str:
        """See ``timer_id``."""
        return _digest(f'{self._prefix}{_quoted(parent_id)},"timer",{_quoted(name)}]')[:EVENT_ID_CHARS]

    def decision_id(self, parent_id: str, sequence: int) -> str:
        """Id of the decision that the step of ``parent_id`` makes; an event that comes back leads to another one."""
        return _digest(f'{self._prefix}{_quoted(parent_id)},"decision",{sequence}]')[:EVENT_ID_CHARS]

    def dead_letter_id(self, parent_id: str, sequence: int) -> str:
        """Id of the dead letter of the event ``parent_id``."""
        return _digest(f'{self._prefix}{_quoted(parent_id)},"dead-letter",{sequence}]')[:EVENT_ID_CHARS]

    def span_id(self, parent_id: str) -> str:
        """Id of the span of the step that ``parent_id`` triggers."""
        return self.step_ids(parent_id)[1]


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
