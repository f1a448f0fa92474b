"""How far a run is, on stderr: a bar for the feed, a count for each agent."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from choreo.cli._output import console


class TerminalProgress:
    """Shows a run to whoever watches; silent where stderr is no terminal."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console(),
            transient=True,
        )
        self._feed = self._bars.add_task("events fed", total=None, visible=False)
        self._agents: dict[str, object] = {}
        self._text = self._bars.add_task("", total=None)

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def phase(self, text: str) -> None:
        """What is going on."""
        self._bars.update(self._text, description=text)

    def fed(self, done: int, total: int) -> None:
        self._bars.update(self._feed, completed=done, total=total, visible=True)

    def decided(self, by_agent: Mapping[str, int], undecided: int) -> None:
        """Decisions by agent, and how many records wait for one."""
        counts = ", ".join(f"{agent} {count:,}" for agent, count in sorted(by_agent.items()))
        self._bars.update(self._text, description=f"decided: {counts}; {undecided:,} wait")
