"""Lints about what Kafka keeps and takes: retention, compaction, dedupe, sizes, work in flight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from choreo.topology.desired import DEAD_LETTER_EXTRA_BYTES
from choreo.topology.fields import duration_text
from choreo.topology.rules import Found, View, rule

# A worker that is down over lunch must not lose its input.
RETENTION_MS_MIN: Final = 3_600_000
# The engine's bursts are at most 8 MB; a dead letter with its record has to fit into one.
BURST_BYTES_MAX: Final = 8_000_000
# Finished offsets above the watermark travel in 4,095 bytes of commit metadata. With more lanes than this per worker
# the engine spends its time in backpressure.
IN_FLIGHT_SENSIBLE: Final = 10_000


@rule("CH0140")
def dedupe_longer_than_retention(view: View) -> Iterator[Found]:
    """A dedupe window is longer than the topic keeps events.

    Bad::

        topics: {scans: {retention: 1d, dedupe: {window: 2d}}}

    Good::

        topics: {scans: {retention: 2d, dedupe: {window: 1h}}}
    """
    for topic in view.topology.topics.values():
        if topic.dedupe_ms is not None and topic.retention_ms is not None and topic.dedupe_ms > topic.retention_ms:
            what = (
                f"dedupe looks back {duration_text(topic.dedupe_ms)}, events stay {duration_text(topic.retention_ms)}"
            )
            place = view.at("topics", topic.name, "dedupe", "window")
            yield Found(place, what, "a window within the retention", "shorten the window or keep events longer")


@rule("CH0141", "warning")
def short_retention(view: View) -> Iterator[Found]:
    """An input keeps events for less than an hour.

    Events that retention deletes before their agent read them are lost; a worker that finds such a gap stops and says
    so. Keep events longer than the longest time a worker may be down.

    Bad::

        topics: {scans: {retention: 10m}}

    Good::

        topics: {scans: {retention: 1d}}
    """
    for topic in view.topology.topics.values():
        if topic.name in view.readers and topic.retention_ms is not None and topic.retention_ms < RETENTION_MS_MIN:
            what = f"events of {topic.name!r} are deleted after {duration_text(topic.retention_ms)}"
            place = view.at("topics", topic.name, "retention")
            yield Found(place, what, f"at least {duration_text(RETENTION_MS_MIN)}", "keep them longer")


@rule("CH0142", "warning")
def compacted_inputs(view: View) -> Iterator[Found]:
    """An agent reads a compacted topic.

    Compaction removes an event as soon as a newer one of its key exists, read or not: an agent that is behind never
    sees it. Right for "the latest state of", wrong for things that happened.

    Bad::

        topics: {scans: {compact: true}}

    Good::

        topics: {scans: {compact: false}}
    """
    for topic in view.topology.topics.values():
        if topic.compact and topic.name in view.readers and not topic.external:
            what = f"{view.readers[topic.name][0].name} reads the compacted topic {topic.name!r}"
            place = view.at("topics", topic.name, "compact")
            yield Found(place, what, "an input that keeps every event", "use retention instead, or a reference table")


@rule("CH0143", "warning")
def dedupe_of_nothing(view: View) -> Iterator[Found]:
    """A topic has a dedupe window, and no agent of choreo reads it.

    Dedupe happens where an event is read. Plain Faust agents don't do it.

    Bad::

        topics: {apologies: {dedupe: {window: 10m}}}

    Good::

        topics: {delays: {dedupe: {window: 10m}}}
    """
    for topic in view.topology.topics.values():
        readers = view.readers.get(topic.name, [])
        if topic.dedupe_ms is not None and not any(agent.kind != "faust" for agent in readers):
            what = f"nobody removes repeated events of {topic.name!r}"
            place = view.at("topics", topic.name, "dedupe")
            yield Found(place, what, "a reader of kind handlers or react", "remove `dedupe`")


@rule("CH0144")
def records_too_large(view: View) -> Iterator[Found]:
    """A topic takes records that do not fit into the engine's transactions.

    A record that cannot be handled is copied to the dead letters, with what went wrong; both have to fit into one burst
    of 8 MB.

    Bad::

        topics: {scans: {message_bytes_max: 8000000}}

    Good::

        topics: {scans: {message_bytes_max: 4000000}}
    """
    limit = BURST_BYTES_MAX - DEAD_LETTER_EXTRA_BYTES
    for topic in view.topology.topics.values():
        if topic.message_bytes_max > limit:
            what = f"{topic.name!r} takes records of {topic.message_bytes_max} bytes"
            place = view.at("topics", topic.name, "message_bytes_max")
            yield Found(place, what, f"at most {limit}", "put large things into a store and send their address")


@rule("CH0145", "warning")
def too_much_in_flight(view: View) -> Iterator[Found]:
    """An agent wants more entities in flight than progress can be kept of.

    Entities finish in any order; which ones have is remembered in 4 kB per partition. Beyond that the engine waits for
    the slowest.

    Bad::

        agents: {desk: {limits: {in_flight: 50000}}}

    Good::

        agents: {desk: {limits: {in_flight: 2000}}}
    """
    for agent in view.topology.agents.values():
        if agent.limits.in_flight > IN_FLIGHT_SENSIBLE:
            what = f"{agent.name} may have {agent.limits.in_flight} entities in flight in one worker"
            place = view.at("agents", agent.name, "limits", "in_flight")
            yield Found(place, what, f"at most {IN_FLIGHT_SENSIBLE}", "run more workers instead")


@rule("CH0146", "warning")
def merge_wait_without_effect(view: View) -> Iterator[Found]:
    """An agent with a single input says how long inputs wait for each other.

    Bad::

        agents: {desk: {limits: {merge_wait: 1s}}}

    Good::

        agents: {tracker: {limits: {merge_wait: 1s}}}
    """
    for agent in view.topology.agents.values():
        if len(agent.reads) == 1 and view.topology.declares("agents", agent.name, "limits", "merge_wait"):
            place = view.at("agents", agent.name, "limits", "merge_wait")
            yield Found(place, f"{agent.name} has one input", "`merge_wait` with several inputs", "remove the line")
