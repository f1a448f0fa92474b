"""What a demo has to offer: a package ``demos/<name>/`` whose ``demo()`` returns something of this shape.

A demo knows its domain: where events come from, what they mean in a sentence, which figures matter. It does not know
Kafka, processes or exactly-once; `choreo demo` does, and knows no domain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from choreo.agent.record import Record
from choreo.cli._demo.history import History


class Fact(Protocol):
    """One event from outside."""

    @property
    def at(self) -> datetime: ...  # event time
    @property
    def topic(self) -> str: ...
    @property
    def event(self) -> Record: ...


class Figures(Protocol):
    """What a run amounts to in the domain's own terms."""

    @property
    def values(self) -> Mapping[str, float | int | None]: ...  # for --json; None: cannot be said yet
    @property
    def lines(self) -> Sequence[str]: ...  # for people


class Demo(Protocol):
    """One world."""

    title: str
    topology: str  # file, from the project root
    answers: str  # the topic that it is all about

    def facts(self, *, events: int, seed: int) -> Iterable[Fact]:
        """The first ``events`` events in the order in which they became known."""
        ...

    def references(self) -> Mapping[str, Iterable[Record]]:
        """Rows of the reference tables, by table."""
        ...

    def figures(self, history: History) -> Figures:
        """The domain's figures, from what lies on the topics."""
        ...

    def worth_telling(self, history: History) -> Sequence[str]:
        """Ids of the events (about three) whose stories a person should hear."""
        ...

    def sentence(self, event: Record) -> str:
        """What an event says, in one sentence without a full stop."""
        ...

    def clock(self, moment: datetime) -> str:
        """A moment as the people of this world read it off the wall."""
        ...
