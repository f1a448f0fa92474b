"""Open-loop feeder of the hop benchmark: sends at the planned moments, however slow the other end is.

    python -m benchmarks.hop_feed '{"bootstrap": …, "segments": […]}' FILE

Each event's latency counts from the moment it was *meant* to be sent, so a stall of the worker, the broker or this
process is in the figures of all events that had to wait (no coordinated omission). What it did is written to FILE:
start of each segment on the machine's monotonic clock, number of its first event, its own lateness.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.feed import PaymentFeed

SETTLE_S: Final = 1.0
"""Between two segments: every output of the one is read before the other begins."""
SPIN_S: Final = 0.0005


@dataclass(frozen=True)
class Segment:
    """Some seconds of a steady rate into one topic."""

    topic: str
    rate_per_s: int
    seconds: float

    @property
    def events(self) -> int:
        return int(self.rate_per_s * self.seconds)


@dataclass(frozen=True)
class Sent:
    """A segment as it was carried out; event ``n`` (from 0) was meant for ``start_ns + n / rate``."""

    segment: Segment
    first_number: int
    start_ns: int
    late_ms_max: float

    def meant_ns(self, number: int) -> int:
        return self.start_ns + (number - self.first_number) * 1_000_000_000 // self.segment.rate_per_s


def send(feed: PaymentFeed, segment: Segment) -> Sent:
    """Carries out one segment."""
    start_ns = time.monotonic_ns() + 10_000_000
    late_ns_max = 0
    first = feed.number + 1
    for n in range(segment.events):
        meant_ns = start_ns + n * 1_000_000_000 // segment.rate_per_s
        ahead_s = (meant_ns - time.monotonic_ns()) / 1e9
        if ahead_s > SPIN_S:
            time.sleep(ahead_s - SPIN_S / 2)
        feed.send_now()
        late_ns_max = max(late_ns_max, time.monotonic_ns() - meant_ns)
    feed.flush()
    return Sent(segment, first, start_ns, late_ns_max / 1e6)


def read(file: Path) -> list[Sent]:
    """What a feeder wrote."""
    entries: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return [Sent(**{**entry, "segment": Segment(**entry["segment"])}) for entry in entries]


def main() -> None:
    given = json.loads(sys.argv[1])
    segments = [Segment(**one) for one in given["segments"]]
    feeds = {
        topic: PaymentFeed(given["bootstrap"], topic, given["schema_id"], keys=given["keys"], seed=2, linger_ms=0)
        for topic in {one.topic for one in segments}
    }
    sent: list[Sent] = []
    for number, segment in enumerate(segments, 1):
        sys.stderr.write(f"segment {number} of {len(segments)}: {segment.rate_per_s}/s into {segment.topic}\n")
        sys.stderr.flush()
        sent.append(send(feeds[segment.topic], segment))
        time.sleep(SETTLE_S)
    Path(sys.argv[2]).write_text(json.dumps([asdict(one) for one in sent]), "utf-8")


if __name__ == "__main__":
    main()
