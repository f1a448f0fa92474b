"""What a run amounts to for freight people: what was decided, and how good the warnings were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from schemas import LoadClosed, ScoreCard, ShipmentDecided, ShipmentRequested

if TYPE_CHECKING:
    from choreo.cli._demo.history import History


class SupplyFigures(NamedTuple):
    values: Mapping[str, float | int | None]
    lines: Sequence[str]


class Totals(NamedTuple):
    """All carriers' score cards together."""

    flights: int
    hits: int
    misses: int
    false_alarms: int
    timed: int
    error_minutes: int

    @property
    def precision(self) -> float | None:
        return _share(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> float | None:
        return _share(self.hits, self.hits + self.misses)

    @property
    def mean_absolute_error_minutes(self) -> float | None:
        return _share(self.error_minutes, self.timed)


def figures(history: History) -> SupplyFigures:
    """Figures from what lies on the topics: each carrier's last score card is eta_scorer's own account."""
    last = {card.carrier: card for card in history.events_of("score-cards", ScoreCard)}
    totals = total(last.values())
    actions = Counter(decided.action for decided in history.events_of("shipment-decisions", ShipmentDecided))
    shipments = sum(1 for _ in history.events_of("shipments", ShipmentRequested))
    sheets = list(history.events_of("load-sheets", LoadClosed))
    values = {
        "precision": _rounded(totals.precision),
        "recall": _rounded(totals.recall),
        "mean_absolute_error_minutes": _rounded(totals.mean_absolute_error_minutes),
        "flights_scored": totals.flights,
        "shipments": shipments,
        "shipment_decisions": sum(actions.values()),
    }
    decided = ", ".join(f"{count} {action}" for action, count in actions.most_common()) or "none needed"
    lines = [
        f"{shipments} shipments (made up, on real flights); decisions about them: {decided}",
        f"{len(sheets)} flights closed with {sum(sheet.loaded for sheet in sheets)} shipments on board, "
        f"{sum(sheet.bumped for sheet in sheets)} did not fit",
        f"{totals.flights} flights scored: {totals.hits + totals.misses} disrupted (15 minutes late or cancelled), "
        f"{totals.hits} of these foretold (recall {_percent(totals.recall)})",
        f"{totals.hits + totals.false_alarms} warnings stood at departure, {_percent(totals.precision)} of them right "
        f"(precision); {_minutes(totals.mean_absolute_error_minutes)} off on average",
    ]
    return SupplyFigures(values, lines)


def total(cards: Iterable[ScoreCard]) -> Totals:
    """Sums score cards of different carriers."""
    cards = list(cards)
    return Totals(
        flights=sum(card.flights for card in cards),
        hits=sum(card.hits for card in cards),
        misses=sum(card.misses for card in cards),
        false_alarms=sum(card.false_alarms for card in cards),
        timed=sum(card.timed for card in cards),
        error_minutes=sum(card.error_minutes for card in cards),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _percent(value: float | None) -> str:
    return "not known yet" if value is None else f"{value:.0%}"


def _minutes(value: float | None) -> str:
    return "not known how far" if value is None else f"{value:.0f} minutes"
