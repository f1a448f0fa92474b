"""Exactly once where no protocol tells: every request of a commit's path, lost, unanswered, late or cut off.

A worker goes through the proxy; input and check go past it. For each kind of request and each way it can go wrong: the
fault happened, nothing was lost, nothing came twice, order and counts per key are right, and the worker went on by
itself, with a new connection, a new producer or a new session.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from choreo.runtime import kafka_config
from choreo.runtime.broker import EmbeddedBroker
from tests.chaos import reader
from tests.engine.live import Live
from tests.proxy.frames import Api
from tests.proxy.lanes import DELAY_S, SOCKET_TIMEOUT_S, Lanes, Result, dealt
from tests.proxy.proxy import LOOPBACK, Fault, Proxy, Rule, faults

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]

LANES = 7
SEED = 20
MATRIX = [Rule(api, **fault) for api, fault in itertools.product(Api, faults(DELAY_S))]
FENCES_ITSELF = Rule(Api.INIT_PRODUCER_ID, Fault.DELAY_REQUEST, delay_s=DELAY_S)
"""A worker's request for a producer id that arrives after the worker has asked again makes a newer producer than the
one it uses. No protocol tells this from another worker with its name: it exits, and its supervisor starts it again."""


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    with Lanes(tmp_path_factory.mktemp("lanes"), count=LANES) as lanes:
        yield lanes


@pytest.fixture(scope="module")
def results(lanes: Lanes) -> dict[Rule, Result]:
    work = dealt([[rule] for rule in MATRIX if rule != FENCES_ITSELF], LANES, SEED)
    work[-1].append([FENCES_ITSELF])  # at the end: the request may arrive so late that it hits the next fault's time
    found = lanes.run(work)
    return {Rule(r.rule.api, r.rule.fault, delay_s=r.rule.delay_s): r for r in found}


@pytest.mark.parametrize("rule", MATRIX, ids=lambda rule: f"{rule.api.name.lower()}-{rule.fault.value}")
def test_worker_gets_over_it(results: dict[Rule, Result], rule: Rule) -> None:
    assert rule in results, "the lane stopped before: see the fault that failed"
    assert not results[rule].problem, results[rule]
    assert results[rule].fired, "the fault did not happen"
    assert not results[rule].restarts or rule == FENCES_ITSELF, results[rule]


def test_late_end_of_a_transaction_ends_the_next_one(tmp_path: Path) -> None:
    """Why a producer is not used again after a commit that may have been sent twice: Kafka takes the late request for
    the end of whatever its producer has open by then."""
    where: list[int] = []
    with (
        Proxy(lambda: where[0] if where else None) as proxy,
        EmbeddedBroker(proxy_port=proxy.port) as broker,
    ):
        where.append(broker.behind_port)
        live = Live(broker.bootstrap, "late", tmp_path, partitions=1)
        settings = kafka_config.transactional_producer(
            f"{LOOPBACK}:{proxy.port}",
            {"socket.timeout.ms": str(round(SOCKET_TIMEOUT_S * 1_000)), "log_level": "0"},
            transactional_id="late",
            batch_bytes=10_000,
            message_bytes_max=1_000_000,
        )
        producer = Producer(settings)
        producer.init_transactions(30)
        late = proxy.arm(Rule(Api.END_TXN, Fault.DELAY_REQUEST, delay_s=DELAY_S))
        producer.begin_transaction()
        producer.produce(live.input, b"committed")
        producer.commit_transaction(30)
        producer.begin_transaction()
        producer.produce(live.input, b"never committed")
        producer.flush(30)
        assert not late.fired.is_set()
        assert late.fired.wait(30)
        read = [record.value for record in reader.read(broker.bootstrap, live.input)]
        with pytest.raises(KafkaException, match="invalid state"):
            producer.abort_transaction(30)
    assert read == [b"committed", b"never committed"]


@pytest.mark.parametrize("fault", [Fault.DELAY_REQUEST, Fault.DROP_RESPONSE], ids=lambda fault: fault.value)
def test_producer_is_not_used_again_after_a_commit_that_may_have_been_sent_twice(lanes: Lanes, fault: Fault) -> None:
    lane = lanes.lanes[0]
    asked = (lane.name, Api.INIT_PRODUCER_ID)
    before = lanes.proxy.requests[asked]
    (result,) = lane.suffer([Rule(Api.END_TXN, fault, delay_s=DELAY_S)])
    assert result.fired
    assert not result.problem
    assert result.sessions == 0
    assert lanes.proxy.requests[asked] == before + 1


def test_nothing_was_lost_repeated_or_out_of_order(lanes: Lanes, results: dict[Rule, Result]) -> None:
    assert results
    for lane in lanes.lanes:
        lane.check()
