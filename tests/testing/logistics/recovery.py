"""Per aircraft: a second risk in a row is rerouted."""

from __future__ import annotations

from types import SimpleNamespace

from choreo.agent.context import Context
from choreo.agent.definition import AgentDefinition
from tests.agent.world import DelayRisk, Rerouted, RiskCount

app = SimpleNamespace(definition=AgentDefinition("recovery"))


@app.definition.on(DelayRisk)
async def count(event: DelayRisk, ctx: Context) -> None:
    row = ctx.row(RiskCount)
    row.risks += 1
    if row.risks == 2:
        ctx.delete(RiskCount)
        ctx.emit(Rerouted(tail_number=event.tail_number))
