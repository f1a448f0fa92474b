"""What one step of an agent costs in CPU time, part by part, beside fastavro and dictionaries alone.

    python -m benchmarks.step [--events N] [--rounds N] [--json FILE]

The job is the benchmark project's (``project/agents/scoring.py``): one payment in, one account row read and written,
one event out, with all CloudEvents and W3C headers, over 1,000 accounts in random order. Measured is the agent's side:
read headers, ``AgentRunner.start`` and ``advance``; neither the engine nor Kafka. The raw step does what a hand-written
loop does with fastavro and dictionaries: decode the event, change the account's dictionary, encode output and row, one
header. Parts are timed by themselves, in short loops; together they cost about 1.4 times their sum, because they take
the processor's caches from one another.

Rounds of every kind take turns, and each kind's best round counts: others on the machine only add time. The garbage
collector is set as in a worker. ``--steps-only`` leaves the parts out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import header, load
from choreo.agent.bindings import Bindings, bind
from choreo.agent.context import Context
from choreo.agent.decision import DecisionWriter
from choreo.agent.definition import AgentDefinition
from choreo.agent.runner import AgentRunner
from choreo.codec.wire import Encoder
from choreo.kernel.envelope import carried_headers, constant_headers, outgoing_headers, parse_headers
from choreo.kernel.ids import Identity
from choreo.kernel.values import Delivery, InputTopic, Outcome, TopicFacts, Trigger
from choreo.runtime.builtin_schemas import builtin_id
from choreo.runtime.classify import classify, guard
from choreo.runtime.collector import tune_collector
from choreo.runtime.project import SCHEMAS, Project
from choreo.runtime.schema_modules import difference, make_same
from choreo.testing.registry import MemoryRegistry
from choreo.topology import names

PROJECT: Final = Path(__file__).parent / "project"
ACCOUNTS: Final = 1_000
Audit = Literal["off", "brief", "full"]
AUDITS: Final[tuple[Audit, ...]] = ("off", "brief", "full")
TARGETS_US: Final = {"off": 9.0, "brief": 14.0, "full": 25.0}
NOW_MS: Final = 1_700_000_000_000
TOPIC: Final = "payments"
PREFIX_BYTES: Final = 5

Work = Callable[[], object]


@contextmanager
def generated_project() -> Iterator[Project]:
    """A copy of the project with its classes generated and importable."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        shutil.copytree(PROJECT, root, ignore=shutil.ignore_patterns("__pycache__"))
        project = Project(root, environment={"CHOREO_BROKERS": "127.0.0.1:9092"})
        make_same(root / SCHEMAS, difference(root / SCHEMAS, project.schema_texts(), project.schemas()))
        for name in ("agents", "schemas"):
            assert name not in sys.modules, f"another package {name} was imported before"
        sys.path.insert(0, str(root))
        try:
            yield project
        finally:
            sys.path.remove(str(root))


class State:
    """Rows and what the engine knows of them, in dictionaries (``choreo.kernel.values.StateView``)."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.sequences: dict[str, int] = {}

    def row(self, table: str, entity: str) -> bytes | None:
        found = self.rows.get((table, entity))
        return None if found is None else found[1]

    def provenance(self, table: str, entity: str) -> str | None:
        found = self.rows.get((table, entity))
        return None if found is None else found[0]

    def reference(self, table: str, key: str) -> tuple[bytes, int] | None:
        return None

    def sequence(self, entity: str) -> int:
        return self.sequences.get(entity, 0)

    def apply(self, trigger: Trigger, outcome: Outcome) -> None:
        """As the engine does when a step has finished."""
        for write in outcome.rows:
            assert write.value is not None
            self.rows[write.table, trigger.entity] = (trigger.envelope.event_id, write.value)
        self.sequences[trigger.entity] = self.sequences.get(trigger.entity, 0) + 1


class Agent:
    """The scoring agent with one kind of audit, its state and its input.

    Args:
        project: where its schemas, topology and handler are.
        audit: ``off``, ``brief`` or ``full``.
        events: how many inputs to make.
    """

    def __init__(self, project: Project, audit: Audit, events: int) -> None:
        event = importlib.import_module("schemas").Payment
        topology = project.load_topology()
        declared = topology.agents["off_memory" if audit == "off" else "brief_memory"]
        declared = replace(declared, audit=audit)
        topology = replace(topology, agents={declared.name: declared})
        registry = MemoryRegistry()
        definition = AgentDefinition(declared.name)
        definition.on(event)(importlib.import_module("agents.scoring").score)
        self.bindings: Bindings = bind(definition, topology, project.schemas(), registry, builtin_id)
        own = [names.decisions(topology.name), names.dead_letters(topology.name, declared.name)]
        facts = dict.fromkeys(own, TopicFacts(4, 1_048_576))
        self.runner = AgentRunner(self.bindings, guard=guard, classify=classify, facts=facts)
        self.state = State()
        self.topic = InputTopic(TOPIC, cluster_id="c", topic_id="t")
        schema = event._schema()
        self.deliveries = list(payments(Encoder(registry.id_for(f"{TOPIC}-value", schema), schema), events))

    def trigger(self, delivery: Delivery) -> Trigger:
        assert delivery.key is not None
        return Trigger("event", delivery.key.decode(), delivery, parse_headers(delivery, self.topic))

    def run(self, delivery: Delivery) -> tuple[Trigger, Outcome]:
        """One step, as the engine runs it."""
        trigger = self.trigger(delivery)
        outcome = self.runner.start(trigger, self.state, NOW_MS).advance(None)
        assert type(outcome) is Outcome, outcome
        self.state.apply(trigger, outcome)
        return trigger, outcome

    def run_all(self) -> None:
        """All inputs; what came of them is kept until the end, as in a burst."""
        burst = [self.run(delivery) for delivery in self.deliveries]
        burst.clear()


def payments(encoder: Encoder, count: int) -> Iterator[Delivery]:
    """Payments as another agent of a topology writes them: every header is there."""
    chance = random.Random("payments")
    identity = Identity("payments", "gateway")
    constants = constant_headers(identity, encoder.schema.full_name)
    accounts = [f"account-{number:06}" for number in range(ACCOUNTS)]
    for number in range(count):
        account = accounts[number] if number < ACCOUNTS else chance.choice(accounts)
        root = Delivery(TOPIC, 0, number, NOW_MS - 60_000 + number // 20, account.encode(), b"", ())
        cause = parse_headers(root, InputTopic(TOPIC, cluster_id="c", topic_id="t"))
        headers = outgoing_headers(
            constants, carried_headers(identity, cause), identity.event_id(cause.event_id, 0), account.encode()
        )
        value = encoder.encode(
            {
                "account": account,
                "number": number,
                "amount_cents": chance.randrange(100, 100_000),
                "currency": "EUR",
                "merchant": f"merchant-{chance.randrange(500):03}",
                "card_present": number % 3 == 0,
            }
        )
        yield root._replace(value=value, headers=list(headers))


class RawStep:
    """The same job with fastavro and dictionaries."""

    def __init__(self, deliveries: list[Delivery]) -> None:
        self.deliveries = deliveries
        self.rows: dict[str, dict[str, Any]] = {}
        self.written: list[tuple[bytes, bytes, list[tuple[str, bytes]]]] = []
        self.schemas: list[Any] = [
            parse_schema(json.loads((PROJECT / "schemas" / f"{name}.avsc").read_text("utf-8")))
            for name in ("Payment", "PaymentScored", "Account")
        ]

    def run_all(self) -> None:
        event_schema, output_schema, row_schema = self.schemas
        rows = self.rows
        for delivery in self.deliveries:
            value: Any = delivery.value
            event: Any = schemaless_reader(BytesIO(value[PREFIX_BYTES:]), event_schema, None)
            account, amount = event["account"], event["amount_cents"]
            row = rows.get(account)
            if row is None:
                row = rows[account] = {
                    "account": account,
                    "payments": 0,
                    "total_cents": 0,
                    "largest_cents": 0,
                    "last_merchant": "",
                }
            row["payments"] += 1
            row["total_cents"] += amount
            row["largest_cents"] = max(row["largest_cents"], amount)
            row["last_merchant"] = event["merchant"]
            out = BytesIO()
            out.write(b"\0\0\0\x03\xe9")
            schemaless_writer(
                out,
                output_schema,
                {
                    "account": account,
                    "number": event["number"],
                    "payments": row["payments"],
                    "total_cents": row["total_cents"],
                    "unusual": amount * row["payments"] > 3 * row["total_cents"],
                },
            )
            row_out = BytesIO()
            row_out.write(b"\0\0\0\x03\xea")
            schemaless_writer(row_out, row_schema, row)
            headers = [("ce_id", b"%d-%d" % (delivery.partition, delivery.offset))]
            self.last = (out.getvalue(), row_out.getvalue(), headers)


def parts(agent: Agent, raw: RawStep) -> dict[str, tuple[Work, int]]:
    """Each part of a step as something to time, and how often it is done in one call; the same inputs in turn."""
    schemas = importlib.import_module("schemas")
    account_row, scored = schemas.Account, schemas.PaymentScored
    bindings, state, identity = agent.bindings, agent.state, agent.bindings.identity
    deliveries = agent.deliveries[-ACCOUNTS:]
    triggers = [agent.trigger(delivery) for delivery in deliveries]
    use = bindings.inputs[TOPIC]
    table = bindings.table(account_row, None)
    output = bindings.output(scored, None)
    stored = [state.row(table.name, trigger.entity) or b"" for trigger in triggers]
    rows = [table.read(data, one.entity) for data, one in zip(stored, triggers, strict=True)]
    outputs = [
        scored(account=one.entity, number=at, payments=3, total_cents=9_999, unusual=False)
        for at, one in enumerate(triggers)
    ]
    carried = [carried_headers(identity, one.envelope) for one in triggers]
    row_schema = raw.schemas[2]

    def each(work: Callable[[Any], object], items: list[Any]) -> tuple[Work, int]:
        def all_of_them() -> None:
            for item in items:
                work(item)

        return all_of_them, len(items)

    def emit(pair: tuple[Trigger, Any]) -> None:
        Context(bindings, pair[0], state, NOW_MS).emit(pair[1])

    def change(row: Any) -> None:
        row.payments += 1
        row.total_cents += 100
        row.largest_cents = max(row.largest_cents, 100)
        row.last_merchant = "merchant-001"

    def fastavro_decode(data: bytes) -> None:
        schemaless_reader(BytesIO(data[PREFIX_BYTES:]), raw.schemas[0], None)

    def fastavro_encode(row: Any) -> None:
        out = BytesIO()
        out.write(b"\0\0\0\x03\xea")
        schemaless_writer(out, row_schema, row.__dict__)
        out.getvalue()

    values = [delivery.value for delivery in deliveries]
    made: dict[str, tuple[Work, int]] = {
        "read headers": each(lambda one: parse_headers(one, agent.topic), deliveries),
        "event: fastavro alone": each(fastavro_decode, values),
        "event: decode": each(use.decoder.decode, values),
        "event: decode and model": each(lambda data: use.event._from_avro(use.decoder.decode(data)), values),
        "context": each(lambda one: Context(bindings, one, state, NOW_MS), triggers),
        "context and row": each(lambda one: Context(bindings, one, state, NOW_MS).row(account_row), triggers),
        "row: change (user code)": each(change, rows),
        "row: encode": each(lambda row: table.encoder.encode(row._to_avro()), rows),
        "row: fastavro alone": each(fastavro_encode, rows),
        "output: construct (user code)": each(
            lambda one: scored(account="account-000001", number=7, payments=3, total_cents=9_999, unusual=False),
            outputs,
        ),
        "output: encode": each(lambda one: output.encoder.encode(one._to_avro()), outputs),
        "output: key": each(output.key_of, outputs),
        "context and emit": each(emit, list(zip(triggers, outputs, strict=True))),
        "event id": each(lambda one: identity.event_id(one.envelope.event_id, 0), triggers),
        "span id": each(lambda one: identity.span_id(one.envelope.event_id), triggers),
        "step's headers": each(lambda one: carried_headers(identity, one.envelope), triggers),
        "output's headers": each(
            lambda one: outgoing_headers(output.constants, one, "0" * 32, b"account-000001"), carried
        ),
    }
    if agent.bindings.agent.audit != "off":
        writer: DecisionWriter = agent.runner._decisions
        finished = []
        for delivery in deliveries:
            trigger = agent.trigger(delivery)
            step = agent.runner.start(trigger, state, NOW_MS)
            finished.append((trigger, step.advance(None), step._ctx))
        made["decision"] = each(
            lambda one: writer.write("done", one[0], state, NOW_MS, ctx=one[2], changes=one[1]), finished
        )
    return made


def best_us(kinds: dict[str, tuple[Work, int]], rounds: int) -> dict[str, float]:
    """CPU time of each kind, in µs per call of its smallest round; the kinds take turns."""
    best = dict.fromkeys(kinds, float("inf"))
    for _ in range(rounds):
        for name, (work, count) in kinds.items():
            started = time.process_time()
            work()
            best[name] = min(best[name], (time.process_time() - started) / count * 1e6)
    return best


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    arguments.add_argument("--events", type=int, default=1_000, help="inputs of one round")
    arguments.add_argument("--rounds", type=int, default=60)
    arguments.add_argument("--steps-only", action="store_true", help="leave the parts out")
    arguments.add_argument("--json", type=Path, metavar="FILE")
    options = arguments.parse_args()
    with generated_project() as project:
        agents = {audit: Agent(project, audit, max(options.events, ACCOUNTS)) for audit in AUDITS}
        raw = RawStep(agents["off"].deliveries)
        steps: dict[str, tuple[Work, int]] = {"raw": (raw.run_all, len(raw.deliveries))}
        for audit, agent in agents.items():
            steps[f"audit {audit}"] = (agent.run_all, len(agent.deliveries))
            agent.run_all()
        tune_collector()
        steps_us = best_us(steps, options.rounds)
        parts_us: dict[str, float] = {}
        if not options.steps_only:
            kinds = parts(agents["off"], raw)
            for audit in ("brief", "full"):
                kinds[f"decision, {audit}"] = parts(agents[audit], raw)["decision"]
            parts_us = best_us(kinds, options.rounds)
    _show(steps_us, parts_us)
    if options.json is not None:
        result = header({"events": options.events, "rounds": options.rounds, "accounts": ACCOUNTS})
        result |= {"load": load(), "unit": "µs of CPU time", "steps": steps_us, "parts": parts_us}
        result["ratios"] = {name: us / steps_us["raw"] for name, us in steps_us.items()}
        result["targets"] = TARGETS_US
        options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _show(steps_us: dict[str, float], parts_us: dict[str, float]) -> None:
    console = Console()
    table = Table("step", "µs", "÷ raw", "target µs", title=f"One step, best round (load {load()})")
    for name, us in steps_us.items():
        target = TARGETS_US.get(name.removeprefix("audit "))
        table.add_row(name, f"{us:.2f}", f"{us / steps_us['raw']:.2f}", "" if target is None else f"{target:g}")
    console.print(table)
    if parts_us:
        table = Table("part", "µs", title="Parts, each by itself")
        for name, us in parts_us.items():
            table.add_row(name, f"{us:.2f}")
        console.print(table)


if __name__ == "__main__":
    main()
