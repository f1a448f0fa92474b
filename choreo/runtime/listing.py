"""What ``faust -A … agents`` and ``… tables`` show of an agent whose steps run in choreo's engine.

Faust's commands list what is in ``app.agents`` and ``app.tables``. Entries here have the attributes those commands read
and nothing else: Faust never starts them, because an app of ``kind: handlers`` boots without Faust's consumer.
"""

from __future__ import annotations

from typing import NoReturn

from choreo.errors import UndeclaredError
from choreo.runtime.site import Site
from choreo.topology.model import Table


class _Channel:
    """Where a listed agent reads."""

    def __init__(self, topics: tuple[str, ...]) -> None:
        self._topics = topics

    def get_topic_name(self) -> str:
        return ", ".join(self._topics)


class ListedAgent:
    """One row of ``faust agents``."""

    def __init__(self, site: Site) -> None:
        agent = site.agent
        self.name = agent.name
        self.channel = _Channel(agent.reads)
        writes = ", ".join(agent.writes) or "nothing"
        self.help = f"writes {writes}; {agent.kind} of {site.topology.name}, group {site.group}"


class ListedTable:
    """One row of ``faust tables``."""

    def __init__(self, site: Site, table: Table) -> None:
        self.name = table.name
        self._agent = site.agent.name
        kind = "reference table, read-only" if table.reference else f"one row per {', '.join(table.key)}, {table.store}"
        self.help = f"{table.schema}: {kind}"

    def reset_state(self) -> NoReturn:
        """``faust reset`` would drop local rows behind the engine's back."""
        raise UndeclaredError(
            f"table {self.name!r} belongs to choreo's engine, which restores it from its changelog at every start",
            code="CH0103",
            hint=f"to make the agent start from nothing: `choreo agent reset {self._agent}`",
        )
