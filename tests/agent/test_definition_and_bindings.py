"""What an agent's code says is checked: at once where it can be, against the topology when the agent starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import choreo.agent.tool as tools
from choreo.agent.context import Context
from choreo.agent.definition import AgentDefinition
from choreo.agent.record import Record
from choreo.agent.tool import tool
from choreo.errors import ChoreoError, SchemaError
from tests.agent.world import AircraftState, DelayRisk, FlightDeparted, Rerouted, WeatherSeen, World, record, text


async def handler(event: Any, ctx: Context) -> None: ...


async def timer_handler(ctx: Context) -> None: ...


def plain(event: Any, ctx: Context) -> None: ...


async def one_argument(event: Any) -> None: ...


async def three_arguments(event: Any, ctx: Context, more: int) -> None: ...


async def generator(event: Any, ctx: Context) -> Any:
    yield event


def refused(action: Callable[[], object], code: str) -> ChoreoError:
    with pytest.raises(ChoreoError) as caught:
        action()
    assert caught.value.code == code, caught.value
    assert caught.value.where or caught.value.hint, "says where, or what to do"
    return caught.value


def test_handlers_are_registered_and_returned_unchanged() -> None:
    definition = AgentDefinition("aircraft_tracker")
    assert definition.on(FlightDeparted)(handler) is handler
    assert definition.on_timer("close")(timer_handler) is timer_handler
    assert definition.handlers == [handler, timer_handler]


@pytest.mark.parametrize("function", [plain, one_argument, three_arguments, generator, print])
def test_what_is_no_handler_is_refused_with_the_signature_to_write(function: Any) -> None:
    error = refused(lambda: AgentDefinition("a").on(FlightDeparted)(function), "CH0103")
    assert "async def" in error.message


def test_a_timer_handler_takes_only_the_context() -> None:
    refused(lambda: AgentDefinition("a").on_timer("close")(handler), "CH0103")  # type: ignore[arg-type]
    for name in ("", "to close", None, timer_handler):
        refused(lambda name=name: AgentDefinition("a").on_timer(name), "CH0103")


@pytest.mark.parametrize(
    "event", [dict, "FlightDeparted", Record, None, FlightDeparted(tail_number="N", dep_delay_minutes=0)]
)
def test_only_event_classes_can_be_handled(event: Any) -> None:
    refused(lambda: AgentDefinition("a").on(event), "CH0103")


def test_an_event_and_a_timer_have_one_handler() -> None:
    definition = AgentDefinition("a")
    definition.on(FlightDeparted)(handler)
    definition.on_timer("close")(timer_handler)
    refused(lambda: definition.on(FlightDeparted)(handler), "CH0103")
    refused(lambda: definition.on_timer("close")(timer_handler), "CH0103")


def test_one_topic_has_one_handler() -> None:
    world = World(agent={"reads": ("delay-risks", "old-risks"), "writes": ()})
    world.definition.on(DelayRisk)(handler)
    world.definition.on(DelayRisk, topic="old-risks")(handler)
    assert "old-risks" in refused(world.bind, "CH0103").message


def test_an_event_from_several_topics_is_handled_from_each() -> None:
    world = World(agent={"reads": ("delay-risks", "old-risks"), "writes": ()})
    world.definition.on(DelayRisk)(handler)
    assert set(world.bind().inputs) == {"delay-risks", "old-risks"}


def test_a_handler_of_an_event_that_is_not_read_names_the_line_to_add() -> None:
    world = World()
    world.definition.on(FlightDeparted)(handler)
    world.definition.on(WeatherSeen)(handler)
    error = refused(world.bind, "CH0311")
    assert "`reads: [flights, weather]`" in str(error)
    assert "topologies/logistics.yaml:7:3" in str(error)


def test_a_handler_of_an_event_that_no_topic_carries_names_both_lines() -> None:
    world = World()
    world.definition.on(AircraftState)(handler)
    error = refused(world.bind, "CH0311")
    assert "`aircraft-state: {schema: AircraftState, key: …}`" in str(error)
    assert "`reads: [flights, aircraft-state]`" in str(error)


def test_a_topic_that_is_read_needs_a_handler() -> None:
    error = refused(World().bind, "CH0314")
    assert "@app.on(FlightDeparted)" in str(error)


def test_an_unknown_agent_or_kind_is_refused() -> None:
    world = World()
    world.definition.on(FlightDeparted)(handler)
    world.definition.name = "nobody"
    assert "aircraft_tracker" in str(refused(world.bind, "CH0103"))
    world = World(agent={"kind": "faust"})
    refused(world.bind, "CH0103")


@pytest.mark.parametrize("subject", ["delay-risks-value", "logistics.aircraft-tracker.changelog.aircraft-value"])
def test_a_schema_that_is_not_registered_shows_at_the_start(subject: str) -> None:
    world = World()
    world.definition.on(FlightDeparted)(handler)
    world.ids.missing = (subject,)
    with pytest.raises(SchemaError) as caught:
        world.bind()
    assert caught.value.code == "CH0205"


def test_a_stale_class_is_refused() -> None:
    class Stale(Record):
        __avro_name__ = "logistics.FlightDeparted"
        __avro_schema__ = record("FlightDeparted", text("tail_number"))
        tail_number: str

    world = World()
    world.definition.on(Stale)(handler)
    assert "choreo schemas generate" in str(refused(world.bind, "CH0103"))


@tool(effect="read", timeout_s=3)
async def weather_at(airport: str, /, *, hours: int = 1) -> str:
    """Weather at an airport."""
    return f"{airport} {hours}"


@tool(effect="pure")
def double(n: int) -> int:
    return 2 * n


def test_a_tool_called_directly_is_the_function() -> None:
    assert double(4) == 8
    coroutine = weather_at("JFK", hours=2)
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)  # type: ignore[attr-defined]
    assert caught.value.value == "JFK 2"
    assert (weather_at.name, weather_at.effect, weather_at.timeout_s, weather_at.is_async) == (
        "weather_at",
        "read",
        3,
        True,
    )
    assert (double.is_async, double.timeout_s) == (False, 30.0)
    assert weather_at.__doc__ == "Weather at an airport."


def test_an_invocation_knows_its_arguments() -> None:
    invocation = tools.Invocation(weather_at, ("JFK",), {})
    assert invocation.arguments() == {"airport": "JFK", "hours": 1}
    assert tools.Invocation(double, (4,), {}).run() == 8


@pytest.mark.parametrize(
    "settings", [{"effect": "write"}, {"effect": "read", "timeout_s": 0}, {"effect": "read", "timeout_s": 1e9}]
)
def test_a_tool_declares_a_known_effect_and_a_bounded_time(settings: dict[str, Any]) -> None:
    refused(lambda: tool(**settings), "CH0103")


@pytest.mark.parametrize("function", [lambda: 1, print, Rerouted, 7])
def test_a_tool_is_made_from_a_named_function(function: Any) -> None:
    refused(lambda: tool(effect="read")(function), "CH0103")
