"""What a person and a program are told about a run is what lies on its topics."""

from __future__ import annotations

import json
from dataclasses import replace

from choreo.cli._demo.accounting import Account, Finding
from choreo.cli._demo.latency import Latency, latency
from choreo.cli._demo.report import Report, as_json, as_text
from choreo.cli._demo.story import story
from demos.supply_chain import SupplyChain, telling
from tests.supply_chain.made_up_run import EVENTS, history

AGENTS = ("carrier_watch", "hub_watch", "load_planner", "shipment_desk", "eta_scorer")
RIGHT = Account(
    events=20_000,
    records=52_000,
    steps=61_000,
    open=0,
    decisions={"done": 66_000},
    timers=5_000,
    dead_letters=0,
    totals={},
    examples=(),
)


def report(account: Account = RIGHT) -> Report:
    demo, run = SupplyChain(), history()
    return Report(
        name="supply_chain",
        title=demo.title,
        account=account,
        latency=Latency(21.4, 88.123, 61_000),
        latency_by_agent={agent: Latency(20.0, 80.0, 12_200) for agent in AGENTS},
        answers=demo.answers,
        way=Latency(45.0, 45.0, 1),
        seconds=20.4,
        restarts=0,
        figures=demo.figures(run),
        stories=[story(run, event_id, demo.sentence, demo.clock) for event_id in demo.worth_telling(run)],
    )


def test_the_object_holds_what_was_promised() -> None:
    shown = json.loads(json.dumps(as_json(report())))
    assert shown == {
        "demo": "supply_chain",
        "ok": True,
        "events_in": 20_000,
        "decisions_out": 66_000,
        "dead_letters": 0,
        "lost": 0,
        "repeated": 0,
        "unknown": 0,
        "events_per_s": 980.4,
        "latency_ms_p50": 21.4,
        "latency_ms_p99": 88.1,
        "way_ms_p50": 45.0,
        "way_ms_p99": 45.0,
        "precision": 0.75,
        "recall": 0.75,
        "mean_absolute_error_minutes": 30.0,
        "flights_scored": 18,
        "shipments": 1,
        "shipment_decisions": 1,
    }


def test_a_story_names_events_agents_and_what_they_remembered() -> None:
    run = history()
    lines = story(run, "decision", telling.sentence, telling.clock)
    assert lines == [
        "  08 Feb 12:00 JFK reports visibility 0.5 miles, 0.12 inches of precipitation, wind 31 mph",
        "    [weather/3/2]",
        "    → hub_watch, 15 ms later",
        "  08 Feb 12:00 B6915-JFK-20130208 should leave 80 minutes late: John F Kennedy Intl: freezing",
        "    [delay-risks/3/3]",
        "    → load_planner, 15 ms later",
        "      it remembered: 08 Feb 12:00 S1-B6915-JFK-20130208 is booked on B6915-JFK-20130208",
        "  08 Feb 12:00 S1-B6915-JFK-20130208 on B6915-JFK-20130208 should be replanned (delay); other",
        "    flights: UA397-EWR-20130208 [proposals/1/4]",
        "    → shipment_desk, 15 ms later",
        "      it remembered: 08 Feb 12:00 shipment S1-B6915-JFK-20130208 (120 kg, express, made up) must",
        "        reach SFO by 08 Feb 20:00",
        "  08 Feb 12:00 REROUTE: S1-B6915-JFK-20130208 goes to UA397-EWR-20130208 instead of",
        "    B6915-JFK-20130208, for $188 (UA397-EWR-20130208 arrives in time) [shipment-decisions/2/5]",
    ]


def test_a_story_through_a_timer_goes_on_with_the_event_that_set_it() -> None:
    lines = story(history(), "sheet", telling.sentence, telling.clock)
    assert "    → load_planner, when its timer cut_off fired, 75 ms later" in lines
    assert lines[0].endswith("is booked on B6915-JFK-20130208 [bookings/0/1]")


def test_a_way_is_measured_where_no_timer_made_it_wait() -> None:
    ways = list(history().ways("shipment-decisions"))
    assert [[link.event.event_id for link in links] for links in ways] == [
        ["weather", "warning", "proposal", "decision"]
    ]
    assert list(history().ways("load-sheets")) == []


def test_the_text_reads_as_it_did() -> None:
    text = as_text(report())
    assert "     20,000  events in\n" in text
    assert "     66,000  decisions out, by 5 agents (5,000 started by timers)\n" in text
    assert "  eta_scorer      12,200 events decided, p50 20 ms, p99 80 ms\n" in text
    assert "          0  lost\n" in text
    assert "         21  ms from event to decision" in text
    assert "1 shipments (made up, on real flights); decisions about them: 1 reroute\n" in text
    assert "Story 1\n  08 Feb 12:00 JFK reports" in text
    assert text.endswith("\nEverything is accounted for.\n")


def test_a_run_with_a_loss_says_so_and_names_it() -> None:
    lossy = replace(RIGHT, totals={"lost": 3}, examples=(Finding("lost", "facts/0/7 was never decided by planner"),))
    text = as_text(report(lossy))
    assert "          3  lost\n" in text
    assert "  LOST: facts/0/7 was never decided by planner\n" in text
    assert text.endswith("\nNOT everything is accounted for.\n")
    shown = as_json(report(lossy))
    assert (shown["ok"], shown["lost"]) == (False, 3)


def test_every_event_of_the_topology_has_a_sentence() -> None:
    for _, _, _, event in EVENTS:
        assert telling.sentence(event)
        assert not telling.sentence(event).endswith(".")


def test_percentiles_are_values_that_occurred() -> None:
    assert latency([float(value) for value in range(1, 101)]) == Latency(50.0, 99.0, 100)
    assert latency([7.0]) == Latency(7.0, 7.0, 1)
    assert latency([]) == Latency(None, None, 0)
