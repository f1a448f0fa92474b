"""Doing what a plan says: one function per kind of stage, over the same list that ``choreo plan`` prints.

Repeating it is harmless. A topic that somebody else created in the meantime is not an error here; whether it is right
is seen by the verification that follows (``apply.run``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from itertools import groupby
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from choreo.apply.inspect import SILENT
from choreo.errors import ChoreoError, HostError, TopologyError
from choreo.ports import Registry
from choreo.runtime.facts import unreachable
from choreo.topology.plan import AddPartitions, AlterTopicConfig, Change, CreateTopic, Plan, Refused, RegisterSchema

# Creating a topic takes the controller milliseconds; hundreds of them in one request some seconds.
REQUEST_S: Final = 30.0
# One request creates this many topics at most: brokers bound the mutations they take in one go.
BATCH: Final = 100

OnDone = Callable[[Change], None]

_HINTS: Final[Mapping[str, str]] = {
    "INVALID_REPLICATION_FACTOR": "`cluster.replication` asks for more brokers than there are",
    "TOPIC_AUTHORIZATION_FAILED": "the principal needs CREATE and ALTER on the topics, or an administrator applies",
    "CLUSTER_AUTHORIZATION_FAILED": "the principal needs CREATE on the cluster, or an administrator applies",
    "POLICY_VIOLATION": "a policy of the cluster forbids it: ask its operators",
    "INVALID_TOPIC_EXCEPTION": "another topic's name differs only in `.` and `_`",
}


def execute(plan: Plan, admin: AdminClient, bootstrap: str, registry: Registry, on_done: OnDone) -> None:
    """Carry out a plan's changes, in order.

    Args:
        plan: without refusals.
        admin: client of the cluster.
        bootstrap: its address, for messages.
        registry: where schemas are registered.
        on_done: called after each change.

    Raises:
        TopologyError: the plan holds refusals; nothing was done.
        HostError: CH0801, the cluster went away; CH0805, it refused a change. What was done before stays done.
        SchemaError: CH0203, CH0207, from the registry.
    """
    if plan.refused:
        raise refusal(plan.refused)
    for kind, stages in groupby(plan.changes, key=type):
        group = list(stages)
        for start in range(0, len(group), BATCH):
            _DO[kind](group[start : start + BATCH], admin, bootstrap, registry, on_done)


def refusal(refused: Sequence[Refused]) -> TopologyError:
    """The error that says why a plan cannot be applied: the first refusal, the others line by line."""
    first, *others = refused
    message = f"refused, nothing was changed: {first.target}: {first.reason}"
    if others:
        lines = "\n".join(f"  {one.code} {one.where}: {one.target}: {one.reason} ({one.hint})" for one in others)
        message = f"{message}; and {len(others)} more:\n{lines}"
    return TopologyError(message, code=first.code, where=first.where, hint=first.hint)


def _register(stages: Sequence[Any], admin: AdminClient, bootstrap: str, registry: Registry, on_done: OnDone) -> None:
    for stage in stages:
        registry.register(stage.subject, stage.schema)
        on_done(stage)


def _create(stages: Sequence[Any], admin: AdminClient, bootstrap: str, registry: Registry, on_done: OnDone) -> None:
    new = [
        NewTopic(
            stage.topic,
            num_partitions=stage.partitions,
            replication_factor=-1 if stage.replication is None else stage.replication,
            config=dict(stage.config),
        )
        for stage in stages
    ]
    futures = _asked(
        bootstrap, lambda: admin.create_topics(new, operation_timeout=REQUEST_S, request_timeout=REQUEST_S)
    )
    _wait(stages, futures, bootstrap, on_done, harmless=("TOPIC_ALREADY_EXISTS",))


def _grow(stages: Sequence[Any], admin: AdminClient, bootstrap: str, registry: Registry, on_done: OnDone) -> None:
    more = [NewPartitions(stage.topic, stage.after) for stage in stages]
    futures = _asked(
        bootstrap, lambda: admin.create_partitions(more, operation_timeout=REQUEST_S, request_timeout=REQUEST_S)
    )
    _wait(stages, futures, bootstrap, on_done)


def _alter(stages: Sequence[Any], admin: AdminClient, bootstrap: str, registry: Registry, on_done: OnDone) -> None:
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            stage.topic,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, (_, value) in stage.changes.items()
            ],
        )
        for stage in stages
    ]
    answers = _asked(bootstrap, lambda: admin.incremental_alter_configs(resources, request_timeout=REQUEST_S))
    _wait(stages, {resource.name: future for resource, future in answers.items()}, bootstrap, on_done)


_DO: Final[Mapping[type[Change], Callable[..., None]]] = {
    RegisterSchema: _register,
    CreateTopic: _create,
    AddPartitions: _grow,
    AlterTopicConfig: _alter,
}


def _asked(bootstrap: str, request: Callable[[], Any]) -> Any:
    try:
        return request()
    except KafkaException as error:
        raise unreachable(error.args[0].str(), bootstrap) from error


def _wait(
    stages: Sequence[Change],
    futures: Mapping[str, Future[Any]],
    bootstrap: str,
    on_done: OnDone,
    harmless: tuple[str, ...] = (),
) -> None:
    """Wait for every answer of a batch; the first failure is raised after all are known."""
    failures: list[ChoreoError] = []
    for stage in stages:
        try:
            futures[stage.target].result(timeout=REQUEST_S)
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            if cause.name() not in harmless:
                failures.append(_failed(stage, cause, bootstrap))
                continue
        except TimeoutError:
            failures.append(unreachable("no answer in time", bootstrap))
            continue
        on_done(stage)
    if failures:
        raise failures[0]


def _failed(stage: Change, cause: KafkaError, bootstrap: str) -> HostError:
    if cause.name() in SILENT:
        return unreachable(cause.str(), bootstrap)
    verb = {CreateTopic: "created", AddPartitions: "grown"}.get(type(stage), "changed")
    return HostError(
        f"the topic {stage.target} could not be {verb}: {cause.str()}",
        code="CH0805",
        where=bootstrap,
        hint=_HINTS.get(cause.name(), "the broker's log says more"),
    )
