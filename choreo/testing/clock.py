"""A clock that only a test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Where virtual time begins unless a test says otherwise: any fixed moment does."""


class ManualClock:
    """Virtual wall time: stands still until it is told to move, and never goes back.

    Args:
        start: first moment, with a time zone.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now_ms = to_ms(start)

    @property
    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self._now_ms

    @property
    def now(self) -> datetime:
        """The moment, in UTC."""
        return _EPOCH + timedelta(milliseconds=self._now_ms)

    def advance(self, by: timedelta) -> None:
        """Moves on.

        Raises:
            ValueError: time does not go back.
        """
        self.move_to(self._now_ms + by // _MILLISECOND)

    def move_to(self, now_ms: int) -> None:
        """Moves on to a moment, in milliseconds since 1970.

        Raises:
            ValueError: the moment has passed.
        """
        if now_ms < self._now_ms:
            raise ValueError(f"time does not go back: it is {self.now}")
        self._now_ms = now_ms


def to_ms(at: datetime) -> int:
    """Milliseconds since 1970 of a moment with a time zone.

    Raises:
        ValueError: there is no time zone.
    """
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone; write datetime(…, tzinfo=UTC)")
    return (at - _EPOCH) // _MILLISECOND
