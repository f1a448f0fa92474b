"""What a run left on the topics, as a graph: which event caused which, through which agent.

Built from the records and Decision records alone, with their ids, so it tells what happened and not what should have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from choreo.agent.record import Record

# No chain is longer: the hop limit of an agent lies far below.
CHAIN_MAX: Final = 64
Event = TypeVar("Event", bound=Record)


class Told(NamedTuple):
    """One event as it lies on its topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int  # when Kafka appended it
    event_id: str
    agent: str | None  # that emitted it; None: it came from outside
    time_ms: int  # event time
    value: bytes


class Made(NamedTuple):
    """One decision, as far as a story needs it."""

    agent: str
    kind: str  # event | timer
    event_id: str  # what started it
    timer: str | None
    causation_id: str  # of a timer: the event that set it
    emitted: tuple[str, ...]  # event ids
    sources: tuple[str, ...]  # events that last shaped the rows it read


class Link(NamedTuple):
    """One link of a chain: an event, and the decision that it led to (None for the last)."""

    event: Told
    made: Made | None
    remembered: tuple[Told, ...]  # earlier events from outside that the decision knew through rows


class History:
    """Events and decisions of one run.

    Args:
        events: all records on the topology's topics.
        made: all decisions.
        read: bytes of a topic's record to its event class.
    """

    def __init__(self, events: Iterable[Told], made: Iterable[Made], read: Callable[[str, bytes], Record]) -> None:
        self._events: Final[dict[str, Told]] = {}
        self._by_topic: Final[dict[str, list[Told]]] = {}
        self._read: Final = read
        for event in events:
            self._events[event.event_id] = event
            self._by_topic.setdefault(event.topic, []).append(event)
        self._emitted_by: Final[dict[str, Made]] = {}
        for one in made:
            for event_id in one.emitted:
                self._emitted_by[event_id] = one

    def on(self, topic: str) -> Iterator[tuple[Told, Record]]:
        """Events of a topic with their values, by partition and offset."""
        for event in sorted(self._by_topic.get(topic, ()), key=lambda event: (event.partition, event.offset)):
            yield event, self.value(event)

    def events_of(self, topic: str, cls: type[Event]) -> Iterator[Event]:
        """Values of a topic's events, by partition and offset."""
        for _, value in self.on(topic):
            assert isinstance(value, cls), f"{topic} holds {type(value).__name__}, not {cls.__name__}"
            yield value

    def value(self, event: Told) -> Record:
        return self._read(event.topic, event.value)

    def chain(self, event_id: str) -> list[Link]:
        """What led to an event, from the outside event that began it to the event itself.

        A chain through a timer continues with the event that set the timer.
        """
        links: list[Link] = []
        made: Made | None = None
        at: Told | None = self._events.get(event_id)
        while at is not None and len(links) < CHAIN_MAX:
            links.append(Link(at, made, self._remembered(made, at)))
            made = self._emitted_by.get(at.event_id)
            if made is None:
                break
            at = self._events.get(made.causation_id if made.kind == "timer" else made.event_id)
        return links[::-1]

    def ways(self, topic: str) -> Iterator[list[Link]]:
        """The chains that led to the events of a topic, those through timers left out: nobody waited in the others."""
        for event in self._by_topic.get(topic, ()):
            links = self.chain(event.event_id)
            if all(link.made is None or link.made.kind == "event" for link in links):
                yield links

    def _remembered(self, made: Made | None, trigger: Told) -> tuple[Told, ...]:
        if made is None:
            return ()
        known = (self._events.get(event_id) for event_id in made.sources if event_id != trigger.event_id)
        return tuple(event for event in known if event is not None and event.agent is None)


def reader_for(
    classes: Mapping[str, type[Record]], decode: Callable[[str, bytes], dict[str, Any]]
) -> Callable[[str, bytes], Record]:
    """Turns bytes into event classes.

    Args:
        classes: topic → class.
        decode: (topic, bytes) → fields.
    """
    return lambda topic, value: classes[topic]._from_avro(decode(topic, value))
