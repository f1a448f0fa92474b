"""Time windows over numbers, kept as values inside a row.

Theory of operation. Time is cut into *slices* of ``every``; a slice holds the count, the sum and (a bounded sample of)
the values whose event time falls into it. A question is asked *at* a moment:

* ``sliding``: the slices of the last ``size``, the one that contains the moment included;
* ``tumbling``: the slices of the one window of ``size`` that contains the moment (windows start at multiples of
  ``size`` since 1970).

So the resolution of a sliding window is ``every``. Time is event time and per row: the watermark is the highest event
time added to *this* window, no clock is read. The window remembers what questions at ``watermark - late`` and later
need, and nothing older. Therefore:

* such questions have the same answers in whatever order the values came, as if all had been there from the start;
* a value too old for any of them is refused (``add`` returns False);
* a question about an older moment is answered for the oldest moment that the window remembers.

Quantiles are nearest-rank. Up to ``VALUES_MAX`` values in a slice they are exact. Beyond, a slice keeps a uniform
sample of that many, each standing for its share of the count; the rank of the answer is then off by about 6 % (one
standard deviation; less where several slices are sampled). Counts, sums and means stay exact. The sample is drawn by a
hash of the slice and the count, not by chance: a replay draws the same.

Alternatives looked at: t-digests and KLL sketches are tighter for large slices, but their state is not readable as
plain Avro, and a row is rewritten with every event, so that small state matters more than tight tails.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Self

from choreo.errors import SchemaError, StepError

SLICES_MAX: Final = 512
"""Slices of ``size`` and ``late`` together: an hour in slices of 10 s has 360, a day in slices of 5 minutes 288. The
row is rewritten with every event, and 512 full slices are 270 kB, a quarter of what a topic accepts by default."""
VALUES_MAX: Final = 64
"""Values kept in one slice for quantiles: 512 bytes."""

WindowKind = Literal["sliding", "tumbling"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_DURATION: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_KEYS: Final = frozenset({"kind", "size", "every", "late"})
_ROUNDING: Final = 1e-9  # of ranks computed in floating point
_MASK: Final = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True)
class WindowConfig:
    """What a ``window`` attribute in a schema says, in milliseconds."""

    kind: WindowKind
    size_ms: int
    every_ms: int
    late_ms: int = 0

    @classmethod
    def parse(cls, declared: Mapping[str, object], where: str | None = None) -> Self:
        """The configuration from the ``window`` attribute of a schema's field.

        Args:
            declared: ``kind`` (sliding or tumbling), ``size``, ``every`` (optional for tumbling windows), ``late``
                (optional, none by default); durations as ``30s``, ``5m``, ``1h``.
            where: field, for the error.

        Raises:
            SchemaError: CH0202 with what was expected.
        """
        unknown = sorted(set(declared) - _KEYS)
        if unknown:
            raise SchemaError(f"a window has no setting {unknown[0]!r}", where=where, hint="kind, size, every, late")
        kind = declared.get("kind")
        if kind != "sliding" and kind != "tumbling":
            raise SchemaError(f"a window's kind is sliding or tumbling, saw {kind!r}", where=where)
        size_ms = _duration_ms("size", declared.get("size"), where)
        if kind == "sliding" or "every" in declared:
            every_ms = _duration_ms("every", declared.get("every"), where)
        else:
            every_ms = size_ms
        late_ms = _duration_ms("late", declared.get("late", "0s"), where)
        if every_ms <= 0 or size_ms <= 0 or size_ms % every_ms:
            raise SchemaError(
                "a window's size is a multiple of every, and both are positive",
                where=where,
                hint=f"saw size {declared.get('size')} and every {declared.get('every', declared.get('size'))}",
            )
        if (size_ms + late_ms) // every_ms > SLICES_MAX:
            raise SchemaError(
                f"the window has more than {SLICES_MAX} slices of every={declared.get('every')}",
                where=where,
                hint="make every longer: it is the window's resolution",
            )
        return cls(kind, size_ms, every_ms, late_ms)


def _duration_ms(name: str, text: object, where: str | None) -> int:
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise SchemaError(f"a window's {name} is a duration like 30s or 5m, saw {text!r}", where=where)
    return int(match[1]) * _UNIT_MS[match[2]]


class _Slice:
    """The values of one slice of time."""

    __slots__ = ("count", "start_ms", "total", "values")

    def __init__(self, start_ms: int, count: int = 0, total: float = 0.0, values: list[float] | None = None) -> None:
        self.start_ms = start_ms
        self.count = count
        self.total = total
        self.values = [] if values is None else values

    def add(self, value: float) -> None:
        if self.count < VALUES_MAX:
            self.values.append(value)
        else:  # Algorithm R (Vitter 1985): every value of the slice is in the sample with equal chance
            slot = _mix(self.start_ms, self.count) % (self.count + 1)
            if slot < len(self.values):
                self.values[slot] = value
        self.count += 1
        self.total += value


def _mix(start_ms: int, number: int) -> int:
    """64 well-mixed bits (splitmix64's finalizer, Steele et al. 2014)."""
    z = (start_ms * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03 + 0x9E3779B97F4A7C15) & _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


class Window:
    """Numbers of a stretch of time, inside a row: what happened in the last hour, by event time.

    Declare it as a field of the row's schema::

        {"name": "delays", "type": "choreo.Window",
         "window": {"kind": "sliding", "size": "1h", "every": "5m", "late": "15m"}}

    Guarantee:
        Questions at the latest event time minus ``late``, or later, are answered as if all values had come in order.
    """

    __slots__ = ("_slices", "_watermark_ms", "config")

    def __init__(self, config: WindowConfig) -> None:
        self.config = config
        self._slices: list[_Slice] = []  # ascending by start, without empty ones
        self._watermark_ms = -1

    def add(self, v: float = 1, *, at: datetime) -> bool:
        """Counts a value in.

        Args:
            v: the value; 1 where only the number of events matters.
            at: event time, with a time zone; usually ``ctx.meta.time``.

        Returns:
            False if it came too late for anything the window can still be asked.

        Raises:
            StepError: CH0204, not a finite number, or a time without a zone or before 1970.
        """
        value = _finite(v)
        at_ms = _milliseconds(at)
        if at_ms < 0:
            raise StepError(f"a window's time begins in 1970, saw {at}", code="CH0204")
        if at_ms > self._watermark_ms:
            self._watermark_ms = at_ms
            self._forget()
        elif at_ms < self._first_ms(self._oldest_ms()):
            return False
        start_ms = at_ms - at_ms % self.config.every_ms
        slices = self._slices
        if slices and slices[-1].start_ms == start_ms:
            slices[-1].add(value)
            return True
        index = bisect_left(slices, start_ms, key=_start_ms)
        if index == len(slices) or slices[index].start_ms != start_ms:
            slices.insert(index, _Slice(start_ms))
        slices[index].add(value)
        return True

    def count(self, *, at: datetime) -> int:
        """How many values lie in the window at that moment."""
        return sum(one.count for one in self._within(at))

    def total(self, *, at: datetime) -> float:
        """Their sum; 0.0 if there are none."""
        return math.fsum(one.total for one in self._within(at))

    def mean(self, *, at: datetime) -> float | None:
        """Their mean; None if there are none."""
        count = self.count(at=at)
        return self.total(at=at) / count if count else None

    def quantile(self, q: float, *, at: datetime) -> float | None:
        """The smallest value that at least ``q`` of all are not above; None if there are none.

        Args:
            q: between 0 (the smallest) and 1 (the largest).
            at: the moment.

        Raises:
            StepError: CH0204, ``q`` is not between 0 and 1.
        """
        if not 0 <= q <= 1:
            raise StepError(f"a quantile lies between 0 and 1, saw {q!r}", code="CH0204")
        weighed = [(value, one.count / len(one.values)) for one in self._within(at) for value in one.values]
        if not weighed:
            return None
        weighed.sort()
        rank = q * math.fsum(weight for _, weight in weighed)
        reached = 0.0
        for value, weight in weighed:
            reached += weight
            if reached >= rank - _ROUNDING:
                return value
        return weighed[-1][0]

    def to_avro(self) -> dict[str, Any]:
        """State as the record ``choreo.Window``."""
        return {
            "buckets": [
                {"start": one.start_ms, "count": one.count, "total": one.total, "values": one.values}
                for one in self._slices
            ],
            "watermark": self._watermark_ms,
        }

    @classmethod
    def from_avro(cls, state: Mapping[str, Any], config: WindowConfig) -> Self:
        """A window from the record ``choreo.Window``.

        If ``every`` was changed since, a slice counts where its old start lies now; if ``late`` or ``size`` shrank,
        what is not needed any more is dropped.
        """
        window = cls(config)
        window._watermark_ms = state["watermark"]
        slices = window._slices
        every_ms = config.every_ms
        for bucket in state["buckets"]:
            start_ms = bucket["start"]
            if start_ms % every_ms:
                start_ms -= start_ms % every_ms
            if slices and slices[-1].start_ms == start_ms:
                _merge(slices[-1], bucket)
            else:
                slices.append(_Slice(start_ms, bucket["count"], bucket["total"], list(bucket["values"])))
        window._forget()
        return window

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Window) and self.config == other.config and self.to_avro() == other.to_avro()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        count = sum(one.count for one in self._slices)
        return f"Window({self.config.kind}, {count} values in {len(self._slices)} slices)"

    # -- the rule of what is remembered --------------------------------------------------------------------------------

    def _oldest_ms(self) -> int:
        """The oldest moment whose questions are answered."""
        return max(0, self._watermark_ms - self.config.late_ms)

    def _first_ms(self, at_ms: int) -> int:
        """Start of the first slice in the window at a moment."""
        config = self.config
        if config.kind == "tumbling":
            return at_ms - at_ms % config.size_ms
        return at_ms - at_ms % config.every_ms - config.size_ms + config.every_ms

    def _last_ms(self, at_ms: int) -> int:
        """Start of the last slice in it."""
        config = self.config
        if config.kind == "tumbling":
            return at_ms - at_ms % config.size_ms + config.size_ms - config.every_ms
        return at_ms - at_ms % config.every_ms

    def _forget(self) -> None:
        slices = self._slices
        if slices and slices[0].start_ms < (first_ms := self._first_ms(self._oldest_ms())):
            del slices[: bisect_left(slices, first_ms, key=_start_ms)]

    def _within(self, at: datetime) -> Iterator[_Slice]:
        at_ms = max(_milliseconds(at), self._oldest_ms())
        first_ms, last_ms = self._first_ms(at_ms), self._last_ms(at_ms)
        for one in self._slices:
            if first_ms <= one.start_ms <= last_ms:
                yield one


def _start_ms(one: _Slice) -> int:
    return one.start_ms


def _merge(into: _Slice, bucket: Mapping[str, Any]) -> None:
    into.count += bucket["count"]
    into.total += bucket["total"]
    into.values = (into.values + list(bucket["values"]))[:VALUES_MAX]


def _finite(v: float) -> float:
    if isinstance(v, bool) or not isinstance(v, int | float):
        raise StepError(f"a window takes numbers, saw {type(v).__name__}", code="CH0204")
    try:
        value = float(v)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise StepError(f"a window takes finite numbers, saw {v!r}"[:200], code="CH0204")
    return value


def _milliseconds(at: datetime) -> int:
    if at.tzinfo is None:
        raise StepError("a window's time needs a time zone", code="CH0204", hint="use ctx.meta.time")
    return (at - _EPOCH) // _MILLISECOND
