"""One decision told as a story: which events, through which agents, how long each took."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from choreo.agent.record import Record
from choreo.cli._demo.history import History, Link, Told

LINE_CHARS_MAX: Final = 100


def story(
    history: History, event_id: str, sentence: Callable[[Record], str], clock: Callable[[datetime], str]
) -> list[str]:
    """Lines of text, the event that began it first.

    Args:
        history: what the run left behind.
        event_id: the event to explain.
        sentence: what an event says.
        clock: how a moment reads.
    """
    chain = history.chain(event_id)
    lines: list[str] = []
    for position, link in enumerate(chain):
        lines.extend(_link(history, link, chain[position - 1] if position else None, sentence, clock))
    return lines


def _link(
    history: History,
    link: Link,
    before: Link | None,
    sentence: Callable[[Record], str],
    clock: Callable[[datetime], str],
) -> list[str]:
    lines: list[str] = []
    if before is not None and before.made is not None:
        made = before.made
        wall_ms = link.event.timestamp_ms - before.event.timestamp_ms
        woken = f", when its timer {made.timer} fired" if made.kind == "timer" else ""
        lines.append(f"    → {made.agent}{woken}, {wall_ms} ms later")
        for known in before.remembered:
            lines += _wrapped(f"it remembered: {_told(history, known, sentence, clock)}", "      ")
    place = f"[{link.event.topic}/{link.event.partition}/{link.event.offset}]"
    lines += _wrapped(f"{_told(history, link.event, sentence, clock)} {place}", "  ")
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        LINE_CHARS_MAX,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _told(history: History, event: Told, sentence: Callable[[Record], str], clock: Callable[[datetime], str]) -> str:
    moment = clock(datetime.fromtimestamp(event.time_ms / 1000, UTC))
    return f"{moment} {sentence(history.value(event))}"
