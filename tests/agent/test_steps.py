"""A step reads and changes its own entity, emits what is declared, and leaves nothing behind if it fails."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from choreo.agent.context import EMITS_MAX, Context
from choreo.agent.tool import Invocation, tool
from choreo.errors import ChoreoError, ToolError
from choreo.kernel.ids import event_id
from choreo.kernel.values import Answer, Failure, Waiting
from tests.agent.world import (
    NOW_MS,
    AircraftState,
    Airport,
    DelayRisk,
    FlightDeparted,
    Rerouted,
    Strict,
    World,
    fired,
)

LATE = FlightDeparted(tail_number="N1", dep_delay_minutes=45)


@tool(effect="read", timeout_s=60)
async def weather_at(airport: str) -> str:
    return "clear"


@tool(effect="read")
def quote() -> int:
    return 1


@tool(effect="idempotent")
def rebook() -> int:
    return 1


@tool(effect="read")
def undeclared_tool() -> int:
    return 1


def world(body: Any, **agent: Any) -> World:
    """A world whose handler is ``body``."""
    made = World(agent=agent)

    @made.definition.on(FlightDeparted)
    async def track(event: FlightDeparted, ctx: Context) -> None:
        result = body(event, ctx)
        if result is not None:
            await result

    @made.definition.on_timer("close")
    async def close(ctx: Context) -> None:
        ctx.emit(DelayRisk(tail_number=ctx.key, minutes=-1))

    return made


def failure(made: World, trigger: Any = None) -> Failure:
    result = made.advance(trigger or made.event(LATE))
    assert isinstance(result, Failure), result
    return result


# -- rows ------------------------------------------------------------------------------------------------------------


def test_a_row_starts_with_its_key_and_defaults_and_is_kept() -> None:
    def body(event: FlightDeparted, ctx: Context) -> None:
        row = ctx.row(AircraftState)
        assert row is ctx.row(AircraftState), "one object per step"
        assert row.tail_number == ctx.key
        row.flights += 1

    made = world(body)
    for expected in (1, 2, 3):
        trigger = made.event(LATE)
        outcome = made.run(trigger)
        assert [write.table for write in outcome.rows] == ["aircraft"]
        assert made.decode(AircraftState, outcome.rows[0].value).flights == expected
        made.commit(trigger, outcome)


def test_a_row_is_written_only_if_its_bytes_changed() -> None:
    made = world(lambda event, ctx: ctx.row(AircraftState) and None)
    assert made.run(made.event(LATE)).rows == []
    made.state.rows["aircraft", "N1"] = made.encode(AircraftState(tail_number="N1", flights=3))
    assert made.run(made.event(LATE)).rows == []


def test_reading_a_row_of_an_older_schema_does_not_rewrite_it() -> None:
    seen: list[int] = []
    made = world(lambda event, ctx: seen.append(ctx.row(AircraftState).flights))
    data = made.encode(AircraftState(tail_number="N1", flights=3))
    made.ids.schemas.append(AircraftState._schema())  # the same schema under another id, as after a registry change
    older = bytes([0]) + (1000 + len(made.ids.schemas) - 1).to_bytes(4, "big") + data[5:]
    assert older != data
    made.state.rows["aircraft", "N1"] = older
    assert made.run(made.event(LATE)).rows == []
    assert seen == [3]


def test_a_deleted_row_leaves_a_tombstone_and_starts_over() -> None:
    made = world(lambda event, ctx: ctx.delete(AircraftState))
    assert made.run(made.event(LATE)).rows == [], "there was none"
    made.state.rows["aircraft", "N1"] = made.encode(AircraftState(tail_number="N1", flights=3))
    assert [write.value for write in made.run(made.event(LATE)).rows] == [None]

    def again(event: FlightDeparted, ctx: Context) -> None:
        ctx.row(AircraftState)
        ctx.delete(AircraftState)
        assert ctx.row(AircraftState).flights == 0

    made = world(again)
    assert made.run(made.event(LATE)).rows == []
    made.state.rows["aircraft", "N1"] = made.encode(AircraftState(tail_number="N1", flights=3))
    assert made.decode(AircraftState, made.run(made.event(LATE)).rows[0].value).flights == 0


def test_a_row_names_the_event_that_shaped_it() -> None:
    def body(event: FlightDeparted, ctx: Context) -> None:
        ctx.row(AircraftState).flights += 1

    made = world(body)
    headers = dict(made.run(made.event(LATE, headers=(("ce_id", b"e1"), ("ce_correlationid", b"c1")))).rows[0].headers)
    assert headers["ce_causationid"] == b"e1"
    assert headers["ce_correlationid"] == b"c1"
    assert headers["traceparent"].startswith(b"00-")


def test_a_row_cannot_get_another_entitys_key() -> None:
    def body(event: FlightDeparted, ctx: Context) -> None:
        ctx.row(AircraftState).tail_number = "N2"

    assert failure(world(body)).code == "CH0206"


def test_a_row_field_of_the_wrong_type_fails_the_step() -> None:
    def body(event: FlightDeparted, ctx: Context) -> None:
        ctx.row(AircraftState).flights = "many"  # type: ignore[assignment]

    result = failure(world(body))
    assert result.code == "CH0204"
    assert "flights" in result.message


def test_a_misspelt_field_fails_the_step() -> None:
    def change_row(event: FlightDeparted, ctx: Context) -> None:
        ctx.row(AircraftState).flihgts = 1  # type: ignore[attr-defined]

    def change_event(event: FlightDeparted, ctx: Context) -> None:
        risk = DelayRisk(tail_number=ctx.key, minutes=1)
        risk.minuets = 2  # type: ignore[attr-defined]
        ctx.emit(risk)

    def forget_field(event: FlightDeparted, ctx: Context) -> None:
        risk = DelayRisk(tail_number=ctx.key, minutes=1)
        del risk.minutes
        ctx.emit(risk)

    for body, said in (
        (change_row, "logistics.AircraftState has no field 'flihgts'"),
        (change_event, "logistics.DelayRisk has no field 'minuets'"),
        (forget_field, "logistics.DelayRisk.minutes is missing"),
    ):
        failed = failure(world(body))
        assert failed.code == "CH0204"
        assert said in failed.message


def test_a_row_without_defaults_says_which_field_needs_one() -> None:
    result = failure(world(lambda event, ctx: ctx.row(Strict) and None, tables=("strict",)))
    assert result.code == "CH0204"
    assert "needed" in result.message


def test_reference_rows_are_looked_up_by_any_key() -> None:
    def body(event: FlightDeparted, ctx: Context) -> None:
        airport = ctx.lookup(Airport, "JFK")
        assert airport is not None
        assert airport.city == "New York"
        assert ctx.lookup(Airport, "XXX") is None

    made = world(body)
    made.state.references["airports", "JFK"] = (made.encode(Airport(iata="JFK", city="New York")), 17)
    made.run(made.event(LATE))


# -- what is not declared --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        (lambda e, c: c.emit(Rerouted(tail_number="N1")), "CH0311", "`writes: [delay-risks, reroutes]`"),
        (lambda e, c: c.emit(LATE, topic="flights"), "CH0311", "`writes: [delay-risks, flights]`"),
        (lambda e, c: c.emit(LATE, topic="new"), "CH0311", "`new: {schema: FlightDeparted, key: …}`"),
        (lambda e, c: c.emit(AircraftState(tail_number="N1")), "CH0311", "`aircraft-state: {schema: AircraftState"),
        (lambda e, c: c.emit(LATE, topic="delay-risks"), "CH0311", "carries DelayRisk"),
        (lambda e, c: c.emit({"minutes": 3}), "CH0204", "takes an event"),
        (lambda e, c: c.row(Strict), "CH0311", "`tables: [aircraft, airports, strict]`"),
        (lambda e, c: c.row(DelayRisk), "CH0311", "`delayrisks: {schema: DelayRisk"),
        (lambda e, c: c.row(AircraftState, table="planes"), "CH0311", "`planes: {schema: AircraftState"),
        (lambda e, c: c.row(DelayRisk, table="aircraft"), "CH0103", "holds rows of AircraftState"),
        (lambda e, c: c.row(Airport), "CH0103", "ctx.lookup"),
        (lambda e, c: c.lookup(AircraftState, "N1"), "CH0103", "ctx.row"),
        (lambda e, c: c.lookup(Airport, 7), "CH0206", "text"),
        (lambda e, c: c.timer("open", at=c.now), "CH0311", '@app.on_timer("open")'),
        (lambda e, c: c.cancel("open"), "CH0311", '@app.on_timer("open")'),
        (lambda e, c: c.timer("close", at=datetime(2013, 1, 1)), "CH0204", "time zone"),  # noqa: DTZ001
        (lambda e, c: c.call(undeclared_tool), "CH0311", "`tools: [weather_at, undeclared_tool]`"),
        (lambda e, c: c.call(quote), "CH0311", "`tools: [weather_at, quote]`"),
        (lambda e, c: c.call(print), "CH0103", "@choreo.tool"),
        (lambda e, c: c.call(weather_at, "JFK", "now"), "CH0403", "too many positional"),
    ],
)
def test_what_is_not_declared_is_refused_with_what_to_write(body: Any, code: str, line: str) -> None:
    async def awaited(value: Any) -> None:
        if hasattr(value, "__await__"):
            await value

    result = failure(world(lambda event, ctx: awaited(body(event, ctx))))
    assert result.code == code, result
    assert line in result.message
    if code == "CH0311":
        assert "topologies/logistics.yaml:7:3" in result.message
    assert not result.retry


def test_calls_of_other_effect_classes_are_refused() -> None:
    result = failure(world(lambda event, ctx: ctx.call(rebook), tools=("rebook",)))
    assert result.code == "CH0403"


def test_code_and_topology_must_agree_about_a_tool() -> None:
    assert failure(world(lambda event, ctx: ctx.call(quote), tools=("quote",))).code == "CH0103"


def test_an_event_that_several_topics_carry_needs_the_topic() -> None:
    risk = DelayRisk(tail_number="N1", minutes=1)
    both = ("delay-risks", "old-risks")
    assert failure(world(lambda event, ctx: ctx.emit(risk) and None, writes=both)).code == "CH0103"
    made = world(lambda event, ctx: ctx.emit(risk, topic="old-risks") and None, writes=both)
    assert made.run(made.event(LATE)).emits[0].topic == "old-risks"


# -- emits and timers ------------------------------------------------------------------------------------------------


def test_an_emitted_event_is_encoded_at_once_and_keyed() -> None:
    ids: list[str] = []

    def body(event: FlightDeparted, ctx: Context) -> None:
        risk = DelayRisk(tail_number="Ñ7", minutes=1)
        ids.append(ctx.emit(risk))
        risk.minutes = 2
        ids.append(ctx.emit(risk))

    made = world(body)
    first, second = made.run(made.event(LATE, headers=(("ce_id", b"root"),))).emits
    assert [made.decode(DelayRisk, one.value).minutes for one in (first, second)] == [1, 2]
    assert (first.topic, first.partition, first.key) == ("delay-risks", None, "Ñ7".encode())
    assert ids == [event_id("logistics", "aircraft_tracker", "root", n) for n in (0, 1)]
    assert [dict(one.headers)["ce_id"].decode() for one in (first, second)] == ids
    assert dict(first.headers)["ce_choreohop"] == b"1"


def test_a_rerun_gives_the_same_outcome() -> None:
    def body(event: FlightDeparted, ctx: Context) -> None:
        ctx.row(AircraftState).flights += 1
        ctx.timer("close", at=ctx.meta.time + timedelta(hours=1))
        ctx.emit(DelayRisk(tail_number="N1", minutes=1))

    made = world(body)
    trigger = made.event(LATE)
    assert made.run(trigger) == made.run(trigger)


def test_a_step_cannot_emit_without_end() -> None:
    def body(event: FlightDeparted, ctx: Context) -> None:
        while True:
            ctx.emit(DelayRisk(tail_number="N1", minutes=1))

    assert str(EMITS_MAX) in failure(world(body)).message


def test_timers_are_set_replaced_and_cancelled() -> None:
    start = datetime(2013, 1, 1, tzinfo=UTC)

    def body(event: FlightDeparted, ctx: Context) -> None:
        ctx.cancel("close")
        ctx.timer("close", at=start)
        ctx.timer("close", at=start + timedelta(hours=1))

    made = world(body)
    trigger = made.event(LATE)
    outcome = made.run(trigger)
    (timer,) = outcome.timers
    assert (timer.entity, timer.name, timer.origin) == ("N1", "close", trigger.envelope)
    assert timer.at_ms == (start + timedelta(hours=1)).timestamp() * 1000
    assert outcome.cancels == []

    def at_once(event: FlightDeparted, ctx: Context) -> None:
        ctx.timer("close", at=start)
        ctx.cancel("close")

    made = world(at_once)
    outcome = made.run(made.event(LATE))
    assert (outcome.timers, outcome.cancels) == ([], ["close"])


def test_what_a_timer_emits_continues_the_chain_at_the_timers_time() -> None:
    at = datetime(2013, 1, 1, 12, tzinfo=UTC)
    made = world(lambda event, ctx: ctx.timer("close", at=at))
    headers = (("ce_id", b"root"), ("ce_correlationid", b"order-7"), ("ce_choreohop", b"2"))
    (timer,) = made.run(made.event(LATE, headers=headers)).timers
    (emitted,) = made.run(fired(timer)).emits
    told = {name: value.decode() for name, value in emitted.headers}
    assert told["ce_time"] == "2013-01-01T12:00:00.000Z"
    assert told["ce_correlationid"] == "order-7"
    assert told["ce_causationid"] == timer.timer_id
    assert told["ce_choreohop"] == "3"


def test_a_timer_without_a_handler_is_refused() -> None:
    made = world(lambda event, ctx: ctx.timer("close", at=ctx.now))
    (timer,) = made.run(made.event(LATE)).timers
    assert failure(made, fired(timer._replace(name="gone"))).code == "CH0314"


# -- what the handler is told ----------------------------------------------------------------------------------------


def test_meta_and_now_tell_where_the_event_came_from() -> None:
    seen: list[Any] = []
    made = world(lambda event, ctx: seen.extend((ctx.key, ctx.now, ctx.meta)))
    headers = (("ce_id", b"e1"), ("ce_time", b"2013-01-01T05:17:00Z"), ("ce_causationid", b"e0"), ("x", b"1"))
    made.run(made.event(LATE, headers=headers))
    key, now, meta = seen
    assert key == "N1"
    assert now == datetime.fromtimestamp(NOW_MS / 1000, UTC)
    assert (meta.id, meta.time) == ("e1", datetime(2013, 1, 1, 5, 17, tzinfo=UTC))
    assert (meta.topic, meta.partition, meta.offset, meta.timer) == ("flights", 2, 0, None)
    assert (meta.correlation_id, meta.causation_id, meta.hop) == ("e1", "e0", 0)
    assert meta.headers["x"] == b"1"
    assert len(meta.traceparent) == 55


# -- input that cannot be handled ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "key", "topic", "code"),
    [
        (b"", b"N1", "flights", "CH0201"),
        (b"\x01\x00\x00\x03\xe8", b"N1", "flights", "CH0201"),
        (b"\x00\x00\x00\x03\xe8\xff", b"N1", "flights", "CH0201"),
        (b"\x00\x7f\xff\xff\xff\x00", b"N1", "flights", "CH0205"),
        (None, b"N1", "flights", "CH0201"),
        (LATE, b"N2", "flights", "CH0206"),
        (LATE, b"N1", "elsewhere", "CH0314"),
    ],
)
def test_undecodable_input_fails_with_its_coordinates(value: Any, key: bytes, topic: str, code: str) -> None:
    result = failure(made := world(lambda event, ctx: None), made.event(value, key=key, topic=topic))
    assert result.code == code
    assert f"{topic}/2/0 key={key.decode()}" in result.message
    assert not result.retry


def test_events_that_go_in_circles_end() -> None:
    made = world(lambda event, ctx: None)
    made.run(made.event(LATE, headers=(("ce_choreohop", b"16"),)))
    assert failure(made, made.event(LATE, headers=(("ce_choreohop", b"17"),))).code == "CH0302"


# -- calls -----------------------------------------------------------------------------------------------------------


def test_a_call_waits_for_its_answer() -> None:
    seen: list[str] = []

    async def body(ctx: Context) -> None:
        ctx.row(AircraftState).flights += 1
        seen.append(await ctx.call(weather_at, "JFK"))
        seen.append(await ctx.call(weather_at, airport="EWR"))
        ctx.emit(DelayRisk(tail_number="N1", minutes=len(seen)))

    made = world(lambda event, ctx: body(ctx))
    result = made.advance(made.event(LATE))
    assert isinstance(result, Waiting)
    assert (result.call.tool, result.call.timeout_s) == ("weather_at", 5), "the shorter of code and topology"
    assert isinstance(result.call.arguments, Invocation)
    assert result.call.arguments.arguments() == {"airport": "JFK"}
    outcome = made.run(made.event(LATE), Answer("fog", None), Answer("rain", None))
    assert seen == ["fog", "rain"]
    assert len(outcome.rows) == len(outcome.emits) == 1


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (TimeoutError("late"), "CH0402", True),
        (ConnectionResetError("gone"), "CH0401", True),
        (ValueError("no such airport"), "CH0401", False),
        (ToolError("quota", retry="backoff"), "CH0401", True),
    ],
)
def test_a_failed_call_fails_the_step_or_is_caught(error: Exception, code: str, retry: bool) -> None:
    made = world(lambda event, ctx: ctx.call(weather_at, "JFK"))
    result = made.advance(made.event(LATE), Answer(None, error))
    assert isinstance(result, Failure)
    assert (result.code, result.retry) == (code, retry)

    async def careful(ctx: Context) -> None:
        try:
            await ctx.call(weather_at, "JFK")
        except ToolError as caught:
            ctx.emit(DelayRisk(tail_number="N1", minutes=int(caught.code[2:])))

    made = world(lambda event, ctx: careful(ctx))
    (emitted,) = made.run(made.event(LATE), Answer(None, error)).emits
    assert made.decode(DelayRisk, emitted.value).minutes == int(code[2:])


def test_a_call_that_is_not_awaited_fails_the_step() -> None:
    made_calls: list[Any] = []

    def body(event: FlightDeparted, ctx: Context) -> None:
        ctx.row(AircraftState).flights += 1
        made_calls.append(ctx.call(weather_at, "JFK"))

    result = failure(world(body))
    made_calls[0].close()
    assert result.code == "CH0303"
    assert "`await ctx.call(weather_at, …)`" in result.message


class Foreign:
    def __await__(self) -> Any:
        yield self


@pytest.mark.parametrize("awaited", [lambda: Foreign(), lambda: asyncio.sleep(0), lambda: asyncio.sleep(1)])
def test_awaiting_anything_but_the_context_names_the_tool_to_write(awaited: Any) -> None:
    closed: list[bool] = []

    async def body() -> None:
        try:
            await awaited()
        finally:
            closed.append(True)

    result = failure(world(lambda event, ctx: body()))
    assert result.code == "CH0310"
    assert "@choreo.tool" in result.message
    assert closed == [True]


def test_a_handler_that_swallows_everything_is_closed_all_the_same() -> None:
    async def stubborn() -> None:
        for _ in range(2):
            try:
                await Foreign()
            except BaseException:  # noqa: BLE001
                continue

    made = world(lambda event, ctx: stubborn())
    assert failure(made).code == "CH0310"


def test_an_abandoned_step_closes_its_handler() -> None:
    closed: list[bool] = []

    async def body(ctx: Context) -> None:
        try:
            await ctx.call(weather_at, "JFK")
        finally:
            closed.append(True)

    made = world(lambda event, ctx: body(ctx))
    step = made.runner.start(made.event(LATE), made.state, NOW_MS)
    step.advance(None)
    step.abandon()
    assert closed == [True]
    made.runner.start(made.event(LATE), made.state, NOW_MS).abandon()


def test_a_context_ends_with_its_step() -> None:
    kept: list[Context] = []
    made = world(lambda event, ctx: kept.append(ctx))
    made.run(made.event(LATE))
    for use in (
        lambda: kept[0].emit(DelayRisk(tail_number="N1", minutes=1)),
        lambda: kept[0].row(AircraftState),
        lambda: kept[0].cancel("close"),
    ):
        with pytest.raises(Exception, match="after its step had ended"):
            use()


# -- failures --------------------------------------------------------------------------------------------------------


def raising(error: BaseException) -> World:
    def body(event: FlightDeparted, ctx: Context) -> None:
        ctx.row(AircraftState).flights += 1
        ctx.emit(DelayRisk(tail_number="N1", minutes=1))
        raise error

    return world(body)


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (ValueError("bad"), "CH0303", False),
        (ZeroDivisionError(), "CH0303", False),
        (SystemExit(3), "CH0303", False),
        (RecursionError("deep"), "CH0303", False),
        (TimeoutError(), "CH0303", True),
        (ConnectionRefusedError("no"), "CH0303", True),
        (asyncio.CancelledError(), "CH0303", True),
        (ToolError("down", retry="backoff"), "CH0401", True),
        (BaseExceptionGroup("two", [ValueError("a"), KeyboardInterrupt()]), "CH0303", False),
        (ChoreoError("the user's own"), "CH0303", False),
        (RuntimeError("There is no current event loop in thread 'choreo-engine'."), "CH0310", False),
    ],
)
def test_whatever_a_handler_raises_is_a_classified_failure(error: BaseException, code: str, retry: bool) -> None:
    result = failure(raising(error))
    assert (result.code, result.retry, result.park) == (code, retry, False)
    assert result.error_type == type(error).__name__
    assert "test_steps.py" in result.detail
    assert not any(line.startswith("/") for line in result.detail.splitlines())


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("broken")


def test_an_exception_that_cannot_be_printed_ends_its_step_only() -> None:
    result = failure(raising(Unprintable()))
    assert (result.code, result.message) == ("CH0303", "Unprintable: (its text could not be made: RuntimeError)")
    assert failure(raising(ToolError(Unprintable()))).code == "CH0401"  # type: ignore[arg-type]
    with_cause = ValueError("bad")
    with_cause.__cause__ = Unprintable()
    assert "caused by Unprintable" in failure(raising(with_cause)).detail
    result = failure(world(lambda event, ctx: ctx.park(None)))
    assert (result.message, result.park) == ("None", True)


def test_transport_errors_of_http_clients_are_tried_again() -> None:
    import httpx

    assert failure(raising(httpx.ConnectTimeout("slow"))).retry
    assert not failure(raising(httpx.InvalidURL("bad"))).retry


def test_what_concerns_the_worker_passes_through() -> None:
    from choreo.errors import EngineError, FencedSignal

    for error in (FencedSignal(), EngineError("broken"), MemoryError(), KeyboardInterrupt()):
        made = raising(error)
        with pytest.raises(type(error)):
            made.advance(made.event(LATE))


def test_messages_and_details_are_bounded() -> None:
    result = failure(raising(ValueError("\ud800" + "x" * 10_000)))
    assert len(result.message) <= 2_000
    result.message.encode()

    def deep(n: int) -> None:
        deep(n + 1)

    assert len(failure(world(lambda event, ctx: deep(0))).detail) < 5_000


def test_park_is_a_failure_that_user_code_cannot_catch() -> None:
    async def body(ctx: Context) -> None:
        try:
            ctx.park("needs a person")
        except Exception:  # noqa: BLE001
            raise AssertionError("caught") from None

    result = failure(world(lambda event, ctx: body(ctx)))
    assert (result.code, result.message, result.park) == ("CH0312", "needs a person", True)


@pytest.mark.parametrize("after", ["nothing", "a call", "an error"])
def test_a_swallowed_park_parks_all_the_same(after: str) -> None:
    async def body(ctx: Context) -> None:
        try:
            ctx.park("needs a person")
        except BaseException:  # noqa: BLE001
            ctx.row(AircraftState).flights += 1
        if after == "a call":
            await ctx.call(weather_at, "JFK")
        elif after == "an error":
            raise ValueError("bad")

    result = failure(world(lambda event, ctx: body(ctx)))
    assert (result.code, result.message, result.park) == ("CH0312", "needs a person", True)
