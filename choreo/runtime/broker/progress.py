"""What a first run shows while Kafka is being downloaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

# Called with what is going on, how many bytes of it are done, and how many there will be (0: not known).
Progress: TypeAlias = Callable[[str, int, int], None]


def silent(step: str, done_bytes: int, total_bytes: int) -> None:
    """Progress that nobody watches."""


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """A progress bar on stderr that appears with the first report and leaves nothing behind.

    Yields:
        The callback to hand to :class:`EmbeddedBroker`; it shows nothing if stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Bar(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=None, visible=False)

    def show(step: str, done_bytes: int, total_bytes: int) -> None:
        bar.start()
        bar.update(task, description=step, completed=done_bytes, total=total_bytes or None, visible=True)

    try:
        yield show
    finally:
        bar.stop()
