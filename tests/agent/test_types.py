"""mypy --strict catches a wrong tool argument, a wrong answer type, a wrong handler and a wrong row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

SOURCE = """\
from datetime import datetime

from choreo.agent.context import Context
from choreo.agent.definition import AgentDefinition
from choreo.agent.record import Record
from choreo.agent.tool import tool


class Flight(Record):
    number: str


class Plane(Record):
    seats: int = 0


app = AgentDefinition("a")


@tool(effect="read")
async def weather_at(airport: str, *, hours: int = 1) -> float:
    return 1.0


@tool(effect="pure")
def doubled(n: int) -> int:
    return 2 * n


@app.on(Flight)
async def fine(event: Flight, ctx: Context) -> None:
    good: float = await ctx.call(weather_at, "JFK", hours=2)
    also: int = await ctx.call(doubled, 3)
    direct: int = doubled(also)
    ctx.row(Plane).seats += int(good) + direct
    plane = ctx.lookup(Plane, "N1")
    seats: int = plane.seats if plane is not None else 0
    ctx.timer("close", at=ctx.meta.time)
    identity: str = ctx.emit(Plane(seats=seats))


@app.on_timer("close")
async def close(ctx: Context) -> None:
    ctx.park("late")


async def wrong(event: Flight, ctx: Context) -> None:
    await ctx.call(weather_at, 7)  # WRONG arg-type
    await ctx.call(weather_at, "JFK", days=2)  # WRONG call-arg
    text: str = await ctx.call(doubled, 3)  # WRONG arg-type
    ctx.row(Plane).wings = 2  # WRONG attr-defined
    ctx.lookup(Plane, "N1").seats  # WRONG union-attr
    ctx.emit("text")  # WRONG arg-type
    ctx.timer("close", at=3)  # WRONG arg-type


@app.on(Flight)  # WRONG arg-type
async def other(event: Plane, ctx: Context) -> None: ...


@tool(effect="often")  # WRONG arg-type
def never() -> None: ...
"""


@pytest.mark.slow
def test_the_public_types_catch_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "agent.py"
    file.write_text(SOURCE)
    config = Path(__file__).parents[2] / "pyproject.toml"
    output, errors, _ = api.run(
        ["--strict", "--config-file", str(config), "--cache-dir", str(tmp_path / "cache"), str(file)]
    )
    assert not errors
    seen = {
        (int(line), code)
        for line, code in re.findall(r"agent\.py:(\d+): error: .*\[([a-z-]+)\]$", output, re.MULTILINE)
    }
    expected = {
        (number, line.split("# WRONG ")[1]) for number, line in enumerate(SOURCE.splitlines(), 1) if "# WRONG " in line
    }
    assert seen == expected, output
