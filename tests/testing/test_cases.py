"""YAML cases: what is given, what is expected, and a difference one can read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from choreo.cli.test import command
from choreo.errors import ChoreoError
from choreo.runtime.project import Project
from choreo.testing import read_cases

GOOD = """\
cases:
  - name: a long delay is a risk
    agents: [aircraft_tracker]
    given:
      - {event: FlightDeparted, value: {tail_number: N1, dep_delay_minutes: 45}, at: 2013-01-01T10:00:00Z}
      - {topic: flights, value: {tail_number: 2, dep_delay_minutes: 5}}
    expect:
      events: {delay-risks: [{minutes: 45}]}
      rows:
        aircraft: {N1: {flights: 1}, 2: {tail_number: "2"}, N3: null}
  - name: silence is one too, and two are rerouted
    given:
      - {event: FlightDeparted, value: {tail_number: N1, dep_delay_minutes: 45}}
      - {advance: 59m}
    advance: 1m
    expect:
      events:
        delay-risks: [{minutes: 45}, {tail_number: N1, minutes: 999}]
        reroutes: [{tail_number: N1}]
  - name: tools and reference rows are given
    tables: {airports: [{iata: JFK, city: New York}]}
    answers: {weather_at: [{error: gone}, fog]}
    given:
      - {event: FlightDeparted, value: {tail_number: N1, dep_delay_minutes: 200}}
      - {event: FlightDeparted, value: {tail_number: N1, dep_delay_minutes: 201}}
    expect: {events: {delay-risks: [{minutes: 402}]}, dead_letters: 1}
  - name: nothing happens
    given: []
    expect: {events: {delay-risks: []}}
"""

BAD = """\
cases:
  - name: everything is wrong
    given:
      - {event: FlightDeparted, value: {tail_number: N1, dep_delay_minutes: 45}}
      - {event: FlightDeparted, value: {tail_number: N2, dep_delay_minutes: 46}}
      - {event: FlightDeparted, value: {tail_number: N3, dep_delay_minutes: -2}}
      - {event: FlightDeparted, value: {tail_number: N4, dep_delay_minutes: -1}}
    expect:
      events:
        delay-risks: [{tail_number: N1, minutes: 44}]
        reroutes: [{tail_number: N9}]
      rows: {aircraft: {N1: {flights: 2}, N2: null, N9: {flights: 1}}}
  - name: a tool is asked that has no answer
    tables: {airports: [{iata: JFK, city: New York}]}
    given: [{event: FlightDeparted, value: {tail_number: N1, dep_delay_minutes: 200}}]
"""


def write(project: Project, text: str) -> Path:
    file = project.root / "topologies" / "logistics.test.yaml"
    file.write_text(text)
    return file


def test_cases_pass_under_pytest(project: Project) -> None:
    cases = read_cases(write(project, GOOD), project=project)
    assert str(cases[0]) == "a long delay is a risk"
    for case in cases:
        case.check()


def test_differences_name_the_place_the_expectation_and_what_was_seen(project: Project) -> None:
    first, second = read_cases(write(project, BAD), project=project)
    lines = first.differences()
    assert [re.sub(r"\(.*\)", "", line) for line in lines[:-2]] == [
        "delay-risks[0].minutes: expected 44, saw 45",
        "delay-risks[1]: not expected: {tail_number: N2, minutes: 46}",
        "reroutes[0]: expected {tail_number: N9}, but nothing more came",
        "aircraft[N1].flights: expected 2, saw 1",
        "aircraft[N2]: expected no row, saw {tail_number: N2, delay_minutes: 46, flights: 1}",
        "aircraft[N9]: there is no such row",
        "dead_letters: expected 0, saw 1",
        "  aircraft_tracker N3: CH0303 ValueError: a negative delay",
    ]
    assert lines[-2] == "parked: expected 0, saw 1"
    assert "has no answer" in second.differences()[0]
    with pytest.raises(AssertionError, match=r"topologies/logistics\.test\.yaml:2:5: everything is wrong"):
        first.check()


def run(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.chdir(project.root)
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.output


def test_the_command_runs_all_files_and_fails_if_a_case_does(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, GOOD)
    code, output = run(project, monkeypatch)
    assert code == 0
    assert output.splitlines()[0] == "ok   topologies/logistics.test.yaml:2 a long delay is a risk"
    assert output.splitlines()[-1] == "4 passed, 0 failed"
    write(project, BAD)
    code, output = run(project, monkeypatch, "topologies/logistics.yaml", "--json")
    assert code == 1
    values = [json.loads(line) for line in output.splitlines()]
    assert values[0]["case"] == "everything is wrong"
    assert values[-1] == {"passed": 0, "failed": 2}


@pytest.mark.parametrize("argument", ["logistics", "topologies/logistics.yaml", "topologies/logistics.test.yaml"])
def test_a_file_may_be_given_in_three_ways(project: Project, monkeypatch: pytest.MonkeyPatch, argument: str) -> None:
    write(project, GOOD)
    assert run(project, monkeypatch, argument)[0] == 0


def test_a_project_without_cases_says_so(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in ((), ("logistics",)):
        with pytest.raises(ChoreoError) as caught:
            run(project, monkeypatch, *arguments)
        assert caught.value.code == "CH0804"


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", "1:1", "empty"),
        ("cases: {a: b}", "1:8", "list"),
        ("cases: [1]", "1:9", "mapping"),
        ("cases: [{}]", "1:9", "`name:` is missing"),
        ("case: []", "1:1", "unknown field 'case'"),
        ("cases: [{name: a, give: []}]", "1:19", "unknown field 'give'"),
        ("cases: [{name: a, given: [{topic: trains, value: {}}]}]", "1:35", "no topic 'trains'"),
        ("cases: [{name: a, given: [{event: Train, value: {}}]}]", "1:27", "no topic carries Train"),
        ("cases: [{name: a, given: [{event: FlightDeparted}]}]", "1:27", "`value:` is missing"),
        ("cases: [{name: a, given: [{event: FlightDeparted, value: {}}]}]", "1:27", "tail_number is missing"),
        ("cases: [{name: a, given: [{event: FlightDeparted, value: {speed: 1}}]}]", "1:58", "no field 'speed'"),
        (
            "cases: [{name: a, given: [{event: FlightDeparted, value: {tail_number: N, dep_delay_minutes: x}}]}]",
            "1:27",
            "dep_delay_minutes",
        ),
        ("cases: [{name: a, given: [{advance: soon}]}]", "1:37", "duration"),
        ("cases: [{name: a, given: [{event: FlightDeparted, value: {tail_number: N}, at: noon}]}]", "1:80", "time"),
        ("cases: [{name: a, expect: {events: {trains: []}}}]", "1:45", "no topic 'trains'"),
        ("cases: [{name: a, expect: {rows: {trains: {}}}}]", "1:43", "no table 'trains'"),
        ("cases: [{name: a, expect: {rows: {aircraft: {N: {speed: 1}}}}}]", "1:49", "no field 'speed'"),
        ("cases: [{name: a, dead_letters: many}]", "1:33", "number"),
        ("cases: [{name: a, agents: [nobody]}]", "", "nobody"),
        ("cases: [{name: a, tables: {trains: [{}]}}]", "1:36", "no table 'trains'"),
    ],
)
def test_a_case_that_is_written_wrongly_is_refused_with_its_place(
    project: Project, text: str, where: str, message: str
) -> None:
    with pytest.raises(ChoreoError) as caught:
        for case in read_cases(write(project, text), project=project):
            case.differences()
    assert message in str(caught.value)
    assert where in str(caught.value)
