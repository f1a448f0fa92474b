"""The end of a demo: the figures as one JSON object, and as something a person enjoys to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from choreo.cli._demo.accounting import Account
from choreo.cli._demo.interface import Demo, Figures
from choreo.cli._demo.latency import Latency, latency
from choreo.cli._demo.run import UNDECIDED_MAX, Outcome
from choreo.cli._demo.story import story


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is said about a run.

    Attributes:
        way: from an outside event to the events on the topic ``answers`` that it led to, by Kafka's timestamps.
        stories: each with its lines, the event that began it first.
        seconds: from the first event's append to the last decision that a reader could see.
    """

    name: str
    title: str
    account: Account
    latency: Latency
    latency_by_agent: Mapping[str, Latency]
    answers: str
    way: Latency
    seconds: float
    restarts: int
    figures: Figures
    stories: Sequence[Sequence[str]]

    @property
    def events_per_s(self) -> float | None:
        return self.account.events / self.seconds if self.seconds else None


def report_of(name: str, demo: Demo, outcome: Outcome) -> Report:
    """Puts a run's report together."""
    stories = [
        story(outcome.history, event_id, demo.sentence, demo.clock) for event_id in demo.worth_telling(outcome.history)
    ]
    return Report(
        name=name,
        title=demo.title,
        account=outcome.account,
        latency=outcome.latency,
        latency_by_agent=outcome.latency_by_agent,
        answers=demo.answers,
        way=latency(
            [links[-1].event.timestamp_ms - links[0].event.timestamp_ms for links in outcome.history.ways(demo.answers)]
        ),
        seconds=outcome.span_s,
        restarts=outcome.restarts,
        figures=demo.figures(outcome.history),
        stories=stories,
    )


def as_json(report: Report) -> dict[str, object]:
    """The object that `--json` ends with. None: nothing was measured."""
    return {
        "demo": report.name,
        "ok": report.account.ok,
        "events_in": report.account.events,
        "decisions_out": report.account.decisions_total,
        "dead_letters": report.account.dead_letters,
        "lost": report.account.lost,
        "repeated": report.account.repeated,
        "unknown": report.account.unknown,
        "events_per_s": _rounded(report.events_per_s),
        "latency_ms_p50": _rounded(report.latency.p50),
        "latency_ms_p99": _rounded(report.latency.p99),
        "way_ms_p50": _rounded(report.way.p50),
        "way_ms_p99": _rounded(report.way.p99),
        **report.figures.values,
    }


def as_text(report: Report) -> str:
    """The same for people, with the stories."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    account, step = report.account, report.latency
    yield f"{report.name}: {report.title}"
    yield ""
    yield f"  {account.events:>9,}  events in"
    yield (
        f"  {account.decisions_total:>9,}  decisions out, by {len(report.latency_by_agent)} agents "
        f"({account.timers:,} started by timers)"
    )
    yield f"  {account.dead_letters:>9,}  dead letters"
    yield f"  {account.lost:>9,}  lost"
    yield f"  {account.repeated:>9,}  repeated"
    if account.unknown:
        yield f"  {account.unknown:>9,}  of unknown origin"
    if report.restarts:
        yield f"  {report.restarts:>9,}  restarts of workers"
    if report.events_per_s is not None:
        yield f"  {report.events_per_s:>9,.0f}  events/s, over {report.seconds:.1f} s"
    if step.p50 is not None and step.p99 is not None:
        yield f"  {step.p50:>9,.0f}  ms from event to decision, half of them within (p50)"
        yield f"  {step.p99:>9,.0f}  ms, 99 of 100 within (p99)"
    yield ""
    yield from _agents(report.latency_by_agent)
    yield (
        f"  from an event to the {report.answers} it led to, all agents on its way together: "
        f"{report.way.measured:,} ways, p50 {_ms(report.way.p50)}, p99 {_ms(report.way.p99)}"
    )
    yield ""
    yield "Counted afterwards, from the topics at read_committed: each of"
    yield f"{account.steps:,} pairs of a record and an agent that reads it must have exactly one"
    yield "Decision, each emitted event must lie on its topic exactly once. A latency runs"
    yield "from Kafka's timestamp of a record to the moment at which a read_committed"
    yield "reader had an agent's decision about it, under full load: the feed goes as fast as"
    yield f"the agents keep up, with at most about {UNDECIDED_MAX} pairs waiting at any time."
    if account.open:
        yield f"{account.open:,} pairs came up while the workers were being stopped and wait in their topics."
    for finding in account.examples:
        yield f"  {finding.kind.upper()}: {finding.text}"
    yield ""
    yield from report.figures.lines
    for number, lines in enumerate(report.stories, start=1):
        yield ""
        yield f"Story {number}"
        yield from lines
    yield ""
    yield "Everything is accounted for." if account.ok else "NOT everything is accounted for."


def _agents(latencies: Mapping[str, Latency]) -> Iterator[str]:
    width = max(map(len, latencies), default=0)
    for agent, measured in latencies.items():
        yield (
            f"  {agent:<{width}}  {measured.measured:>7,} events decided, "
            f"p50 {_ms(measured.p50)}, p99 {_ms(measured.p99)}"
        )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
