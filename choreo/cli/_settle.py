"""Writes to an agent's inbox: what a person decided about its parked events and dead letters.

The inbox (topic ``….settled``) is an input of the agent like any other: the decision is handled in the entity's order,
exactly once, and leaves a decision record with who and why.
"""

from __future__ import annotations

from collections.abc import Sequence

from choreo.cli._target import Target
from choreo.kernel.values import Settlement
from choreo.topology.model import Agent


def settle(target: Target, agent: Agent, settlements: Sequence[Settlement]) -> None:
    """Send settlements to an agent and wait until Kafka has them.

    Raises:
        HostError: CH0801 or CH0805, they could not be delivered. Sending them again is safe: a parked event that is
            gone and a dead letter that was re-driven before are handled by the agent's own rules.
    """
    from confluent_kafka import Producer

    from choreo.errors import HostError
    from choreo.kernel.partitioner import murmur2_partition
    from choreo.runtime.preflight import require_listener
    from choreo.runtime.producer import DELIVERY_S_MAX, client_settings
    from choreo.runtime.records import InternalRecords
    from choreo.topology import names

    require_listener(target.bootstrap)
    records = InternalRecords()
    topic = names.settled(target.topology.name, agent.name)
    partitions = target.topology.partitions_of(agent.name)
    failures: list[str] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer(client_settings(target.bootstrap, target.security, None))
    for settlement in settlements:
        key = settlement.entity.encode()
        producer.produce(
            topic,
            records.encode_settlement(settlement),
            key,
            partition=murmur2_partition(key, partitions),
            on_delivery=delivered,
        )
    left = producer.flush(DELIVERY_S_MAX)
    if left or failures:
        reason = failures[0] if failures else "no answer in time"
        raise HostError(
            f"{left + len(failures)} of {len(settlements)} decisions did not reach {topic}: {reason}",
            code="CH0801",
            where=target.bootstrap,
            hint="try again",
        )
