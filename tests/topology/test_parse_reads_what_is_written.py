"""Good files: every field, defaults, durations, variables, overlays, anchors, positions."""

from __future__ import annotations

import pytest

from choreo.topology.model import Limits, Position
from choreo.topology.parse import parse
from tests.topology.shared import example

HEAD = "choreo: 1\ntopology: t\n"

DESIGN = """\
choreo: 1
topology: logistics
owner: ops-team
cluster: {bootstrap: "${CHOREO_BROKERS}", schema_registry: file, security: {security.protocol: SASL_SSL}}
defaults: {partitions: 8, retention: 7d}
topics:
  flights:      {schema: FlightDeparted, key: tail_number}
  bookings:     {schema: Booking, key: flight_id, external: true, dedupe: {window: 10m}}
  delay-risks:  {schema: DelayRisk, key: [tail_number, flight_id]}
tables:
  aircraft:     {schema: AircraftState, key: tail_number, store: rocksdb}
  airports:     {schema: Airport, key: iata, reference: true}
models:
  planner:      {provider: anthropic, model: claude, max_tokens: 800, budget: {usd_per_hour: 5}}
tools:
  rebook:       {kind: python, function: "agents.recovery:rebook", effect: idempotent, timeout: 5s}
agents:
  aircraft_tracker:
    app: agents.aircraft_tracker
    kind: handlers
    start: latest
    reads: [flights]
    writes: [delay-risks]
    tables: [aircraft, airports]
  recovery:
    kind: react
    reads: [delay-risks]
    writes: [recovery-plans]
    prompt: prompts/recovery.md
    answer: RecoveryPlan
    model: planner
    tools: [rebook]
    limits: {steps: 6, tokens: 8000, deadline: 20s, hops: 12, in_flight: 256}
    autonomy: {level: controlled, approve_when: "action.cost_usd > 500"}
    version: 3
flows:
  recovered: {from: delay-risks, when: "minutes > 120", to: recovery-plans, within: 30s, exactly: 1}
"""


def test_every_field_of_the_format_reaches_the_model() -> None:
    found = parse(DESIGN, "x.yaml", env={"CHOREO_BROKERS": "a:1, b:2"}).topology
    assert found is not None
    assert (found.name, found.owner, found.file) == ("logistics", "ops-team", "x.yaml")
    assert found.cluster.bootstrap == "a:1, b:2"
    assert found.cluster.schema_registry == "file"
    assert found.cluster.security == {"security.protocol": "SASL_SSL"}
    flights, bookings, risks = found.topics.values()
    assert (flights.partitions, flights.retention_ms, flights.key) == (8, 604_800_000, ("tail_number",))
    assert (flights.external, flights.compact, flights.compatibility) == (False, False, "BACKWARD")
    assert (bookings.external, bookings.dedupe_ms) == (True, 600_000)
    assert risks.key == ("tail_number", "flight_id")
    assert (found.tables["aircraft"].store, found.tables["airports"].reference) == ("rocksdb", True)
    assert found.models["planner"].settings == {"model": "claude", "max_tokens": 800, "budget": {"usd_per_hour": 5}}
    rebook = found.tools["rebook"]
    assert (rebook.kind, rebook.effect, rebook.timeout_ms) == ("python", "idempotent", 5_000)
    tracker, recovery = found.agents.values()
    assert (tracker.start, tracker.reads, tracker.tables) == ("latest", ("flights",), ("aircraft", "airports"))
    assert tracker.limits == Limits()
    assert recovery.app == "agents.recovery"
    assert (recovery.kind, recovery.model, recovery.answer, recovery.version) == ("react", "planner", "RecoveryPlan", 3)
    assert recovery.limits == Limits(in_flight=256, hops=12, steps=6, tokens=8_000, deadline_ms=20_000)
    assert recovery.autonomy == {"level": "controlled", "approve_when": "action.cost_usd > 500"}
    flow = found.flows["recovered"]
    assert (flow.source, flow.to, flow.within_ms, flow.exactly) == ("delay-risks", "recovery-plans", 30_000, 1)


def test_smallest_file() -> None:
    parsed = parse("choreo: 1\ntopology: t\n", "x.yaml")
    assert parsed.problems == []
    assert parsed.topology is not None
    assert parsed.topology.cluster.bootstrap is None
    assert parsed.topology.cluster.replication is None


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("1500ms", 1_500), ("30s", 30_000), ("5m", 300_000), ("12h", 43_200_000), ("7d", 604_800_000), ("forever", None)],
)
def test_durations(text: str, milliseconds: int | None) -> None:
    found = parse(HEAD + f"topics: {{a: {{schema: A, key: x, retention: {text}}}}}", "x.yaml").topology
    assert found is not None and found.topics["a"].retention_ms == milliseconds


def test_compacted_topic_keeps_its_rows_unless_told_otherwise() -> None:
    text = (
        HEAD
        + "topics:\n  a: {schema: A, key: x, compact: true}\n  b: {schema: A, key: x, compact: true, retention: 1d}"
    )
    found = parse(text, "x.yaml").topology
    assert found is not None
    assert (found.topics["a"].retention_ms, found.topics["b"].retention_ms) == (None, 86_400_000)


def test_places_of_values() -> None:
    found = parse(DESIGN, "x.yaml").topology
    assert found is not None
    assert found.topics["flights"].position == Position("x.yaml", 7, 3)
    assert found.at("agents", "recovery", "writes", 0) == Position("x.yaml", 28, 14)
    assert found.at("agents", "recovery", "nothing", 7) == found.agents["recovery"].position
    assert found.at("nothing") == Position("x.yaml", 1, 1)
    assert found.declares("agents", "recovery", "limits", "hops")
    assert not found.declares("agents", "aircraft_tracker", "limits", "hops")


class TestVariables:
    def value(self, text: str, **env: str) -> str | None:
        parsed = parse(HEAD + f"owner: {text}", "x.yaml", env=env)
        return None if parsed.topology is None else parsed.topology.owner

    def test_filled_in(self) -> None:
        assert self.value("a-${X}-${Y}-z", X="1", Y="2") == "a-1-2-z"

    def test_default_counts_when_unset_or_empty(self) -> None:
        assert self.value("${X:-d}") == "d"
        assert self.value("${X:-d}", X="") == "d"
        assert self.value("${X:-d}", X="x") == "x"

    def test_value_is_not_filled_in_again(self) -> None:
        assert self.value("${X}", X="${Y}", Y="no") == "${Y}"

    def test_escape(self) -> None:
        assert self.value("$${X}", X="no") == "${X}"
        assert self.value("$X $$", X="no") == "$X $$"

    def test_number_from_a_variable(self) -> None:
        text = HEAD + "topics: {a: {schema: A, key: x, partitions: '${N:-3}'}}"
        found = parse(text, "x.yaml", env={"N": "12"}).topology
        assert found is not None and found.topics["a"].partitions == 12

    def test_text_that_looks_like_a_number_stays_text(self) -> None:
        assert self.value("${X}", X="42") == "42"

    def test_empty_value_counts_as_absent(self) -> None:
        assert self.value("${X:-}") == ""

    def test_only_given_variables_exist(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FROM_THE_PROCESS", "x")
        assert self.value("${FROM_THE_PROCESS}") is None

    def test_unset_bootstrap_is_no_mistake(self) -> None:
        found = parse(HEAD + 'cluster: {bootstrap: "${B}"}', "x.yaml").topology
        assert found is not None and found.cluster.bootstrap is None

    def test_huge_value_is_refused(self) -> None:
        assert self.value("${X}", X="x" * 100_000) is None


class TestOverlays:
    def test_mappings_merge_and_everything_else_is_replaced(self) -> None:
        found = example(
            """
owner: night-shift
defaults: {partitions: 12}
topics: {scans: {retention: 1d}}
agents: {tracker: {reads: [scans], limits: {in_flight: 9}}}
"""
        )
        assert found.owner == "night-shift"
        assert found.topics["scans"].retention_ms == 86_400_000
        assert found.topics["scans"].schema == "Scan"
        assert {topic.partitions for topic in found.topics.values()} == {12}
        assert found.agents["tracker"].reads == ("scans",)
        assert found.agents["tracker"].writes == ("delays",)
        assert found.agents["tracker"].limits == Limits(in_flight=9)

    def test_problem_points_at_the_line_that_counts(self) -> None:
        parsed = parse(DESIGN, "x.yaml", overlay=("agents:\n  recovery: {kind: reaction}", "x.prod.yaml"))
        assert [str(one.position) for one in parsed.problems] == ["x.prod.yaml:2:20"]
        parsed = parse(DESIGN, "x.yaml", overlay=("agents: {recovery: {writes: [other]}}", "x.prod.yaml"))
        assert parsed.topology is not None
        assert str(parsed.topology.at("agents", "recovery", "writes", 0)) == "x.prod.yaml:1:30"
        assert str(parsed.topology.at("agents", "recovery", "reads", 0)) == "x.yaml:27:13"

    def test_null_takes_a_value_back(self) -> None:
        found = example("topics: {orders: {external: }}")
        assert found.topics["orders"].external is False

    def test_broken_overlay_and_broken_file_are_both_reported(self) -> None:
        parsed = parse("a: [", "x.yaml", overlay=("b: [", "x.prod.yaml"))
        assert {one.position.file for one in parsed.problems} == {"x.yaml", "x.prod.yaml"}

    def test_overlay_needs_no_format_version_but_may_not_have_another(self) -> None:
        assert parse(DESIGN, "x.yaml", overlay=("choreo: 1\nowner: me", "o.yaml")).topology is not None
        assert [one.code for one in parse(DESIGN, "x.yaml", overlay=("choreo: 3", "o.yaml")).problems] == ["CH0104"]


def test_anchors_repeat_what_they_name() -> None:
    text = HEAD + "topics:\n  a: &a {schema: A, key: x, retention: 1h}\n  b: *a\n"
    found = parse(text, "x.yaml").topology
    assert found is not None
    assert found.topics["b"].retention_ms == 3_600_000
    assert found.topics["b"].position.line == 5


def test_words_of_yaml_1_1_are_text() -> None:
    found = parse("choreo: 1\ntopology: t\nowner: no\nagents: {a: {audit: off}}", "x.yaml").topology
    assert found is not None
    assert (found.owner, found.agents["a"].audit) == ("no", "off")
