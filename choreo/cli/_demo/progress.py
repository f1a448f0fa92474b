"""How far a run is, on stderr: what is going on, a bar for the feed, a line for each agent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from choreo.cli._output import console

_REFRESHES_PER_S: Final = 5.0
_BAR_CHARS: Final = 40


class TerminalProgress:
    """Shows a run to whoever watches; silent where stderr is no terminal."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._phase = ""
        self._fed = (0, 0)
        self._by_agent: Mapping[str, int] = {}
        self._undecided = 0
        self._live = Live(
            get_renderable=self._shown, console=console(), refresh_per_second=_REFRESHES_PER_S, transient=True
        )

    def __enter__(self) -> TerminalProgress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def phase(self, text: str) -> None:
        """What is going on."""
        self._phase = text

    def fed(self, done: int, total: int) -> None:
        self._fed = (done, total)

    def decided(self, by_agent: Mapping[str, int], undecided: int) -> None:
        """Decisions by agent, and how many pairs of a record and an agent wait for one."""
        self._by_agent, self._undecided = dict(by_agent), undecided

    def _shown(self) -> RenderableType:
        parts: list[RenderableType] = [Text(f"{time.monotonic() - self._started:5.1f} s  {self._phase}")]
        done, total = self._fed
        if total:
            line = Table.grid(padding=(0, 1))
            line.add_row("  events fed", ProgressBar(total, done, width=_BAR_CHARS), f"{done:,} of {total:,}")
            parts.append(line)
        if self._by_agent:
            agents = Table.grid(padding=(0, 1))
            agents.add_column()
            agents.add_column(justify="right")
            for agent, count in sorted(self._by_agent.items()):
                agents.add_row(f"  {agent}", f"{count:,} decisions")
            agents.add_row("  waiting", f"{self._undecided:,}")
            parts.append(agents)
        return Group(*parts)
