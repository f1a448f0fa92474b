"""The plan: what is created, changed and refused, and that it ends where the file is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from choreo.codec.schema import Schema
from choreo.topology import names
from choreo.topology.desired import DEAD_LETTER_EXTRA_BYTES, wanted_schemas, wanted_topics
from choreo.topology.model import Topology
from choreo.topology.plan import (
    AddPartitions,
    AlterTopicConfig,
    ClusterState,
    CreateTopic,
    LiveTopic,
    Notice,
    Plan,
    Refused,
    RegisterSchema,
    plan,
)
from choreo.topology.render import plan_json, plan_text, summary
from tests.topology.shared import EXAMPLE_SCHEMAS, example

EMPTY = ClusterState()


def applied(topology: Topology, *, written: bool = True) -> ClusterState:
    """A cluster on which a topology was applied."""
    topics = {
        one.name: LiveTopic(
            one.partitions, one.replication or 1, {**one.config, "cleanup.policy": _policy(one.config)}, written
        )
        for one in wanted_topics(topology).values()
    }
    subjects = {one.subject: (EXAMPLE_SCHEMAS.by_name(one.record),) for one in wanted_schemas(topology)}
    return ClusterState(topics, subjects)


def _policy(config: Mapping[str, str]) -> str:
    return ",".join(reversed(config.get("cleanup.policy", "delete").split(",")))


def planned(fragment: str, state: ClusterState) -> Plan:
    return plan(example(fragment), EXAMPLE_SCHEMAS, state)


def changed(state: ClusterState, topic: str, **values: object) -> ClusterState:
    return replace(state, topics={**state.topics, topic: replace(state.topics[topic], **values)})  # type: ignore[arg-type]


def without(state: ClusterState, topic: str) -> ClusterState:
    return replace(state, topics={name: one for name, one in state.topics.items() if name != topic})


ORDERS = LiveTopic(4, 1, {})


def test_empty_cluster_gets_every_topic_and_schema() -> None:
    found = planned("", ClusterState({"orders": ORDERS}))
    created = {one.topic: one for one in found.stages if isinstance(one, CreateTopic)}
    assert set(created) == {
        "scans", "delays", "apologies", "parcels.decisions", "parcels.reference.depots",
        "parcels.tracker.changelog.parcels",
        *(f"parcels.{agent}.{kind}" for agent in ("tracker", "desk")
          for kind in ("journal", "timers", "parked", "dead-letters", "settled")),
    }  # fmt: skip
    assert {one.subject: one.version for one in found.stages if isinstance(one, RegisterSchema)} == {
        "orders-value": 1, "scans-value": 1, "delays-value": 1, "apologies-value": 1,
        "parcels.tracker.changelog.parcels-value": 1, "parcels.reference.depots-value": 1,
    }  # fmt: skip
    assert not found.refused
    assert all(one.config["message.timestamp.type"] == "LogAppendTime" for one in created.values())
    assert [type(one) for one in found.stages] == sorted(
        (type(one) for one in found.stages), key=[RegisterSchema, CreateTopic].index
    )


def test_internal_topics_have_the_agent_s_partitions_and_room_for_its_largest_input() -> None:
    found = wanted_topics(example("defaults: {partitions: 6}\ntopics: {scans: {message_bytes_max: 3000000}}"))
    room = str(3_000_000 + DEAD_LETTER_EXTRA_BYTES)
    for name in (names.journal, names.timers, names.parked, names.dead_letters, names.settled):
        assert found[name("parcels", "tracker")].partitions == 6
    for name in (names.parked, names.dead_letters, names.settled):
        assert found[name("parcels", "tracker")].config["max.message.bytes"] == room
    policies = {name: one.config["cleanup.policy"] for name, one in found.items() if not one.external}
    compacted = {name for name, policy in policies.items() if policy == "compact"}
    assert compacted == {
        "parcels.tracker.changelog.parcels", "parcels.reference.depots",
        *(f"parcels.{agent}.{kind}" for agent in ("tracker", "desk") for kind in ("journal", "timers", "parked")),
    }  # fmt: skip
    assert found["parcels.tracker.dead-letters"].config["retention.ms"] == "-1"


def test_plain_faust_agent_gets_its_changelogs_only() -> None:
    found = wanted_topics(example("agents: {tracker: {kind: faust, tables: [parcels]}}"))
    assert [name for name in found if name.startswith("parcels.tracker.")] == ["parcels.tracker.changelog.parcels"]


def test_no_decisions_topic_where_nobody_writes_decisions() -> None:
    fragment = "agents: {tracker: {audit: off}, desk: {audit: off}}"
    assert "parcels.decisions" not in wanted_topics(example(fragment))


def test_applied_cluster_has_no_drift() -> None:
    found = planned("", applied(example()))
    assert found.stages == ()
    assert not found.drift
    assert found.unchanged == len(wanted_topics(example())) + len(wanted_schemas(example()))
    assert summary(found).startswith("nothing to do")


def test_replicated_cluster_asks_for_two_in_sync() -> None:
    topics = wanted_topics(example("cluster: {replication: 3}"))
    assert {one.config["min.insync.replicas"] for one in topics.values() if not one.external} == {"2"}
    assert {one.replication for one in topics.values()} == {3}


@pytest.mark.parametrize(
    ("fragment", "changes", "warning"),
    [
        ("topics: {scans: {retention: 1d}}", {"retention.ms": ("604800000", "86400000")}, True),
        ("topics: {scans: {retention: 8d}}", {"retention.ms": ("604800000", "691200000")}, False),
        ("topics: {scans: {retention: forever}}", {"retention.ms": ("604800000", "-1")}, False),
        ("topics: {apologies: {message_bytes_max: 2000000}}", {"max.message.bytes": ("1048576", "2000000")}, False),
    ],
)
def test_settings_are_altered_in_place(fragment: str, changes: dict[str, tuple[str, str]], warning: bool) -> None:
    found = planned(fragment, applied(example()))
    (stage,) = found.stages
    assert isinstance(stage, AlterTopicConfig)
    assert stage.changes == changes
    assert (stage.warning is not None) == warning


def test_larger_input_needs_larger_dead_letters() -> None:
    found = planned("topics: {delays: {message_bytes_max: 2000000}}", applied(example()))
    assert {one.target for one in found.changes} == {
        "delays", "parcels.decisions",
        "parcels.desk.parked", "parcels.desk.dead-letters", "parcels.desk.settled",
    }  # fmt: skip


def test_setting_that_was_changed_by_hand_is_drift() -> None:
    live = applied(example())
    config = {**live.topics["parcels.desk.journal"].config, "message.timestamp.type": "CreateTime", "unrelated": "x"}
    found = planned("", changed(live, "parcels.desk.journal", config=config))
    (stage,) = found.stages
    assert isinstance(stage, AlterTopicConfig)
    assert stage.changes == {"message.timestamp.type": ("CreateTime", "LogAppendTime")}


class TestRefused:
    def refused(self, found: Plan) -> dict[str, str]:
        assert found.drift
        assert all(isinstance(stage, Refused) for stage in found.stages[: len(found.refused)])
        assert all(one.hint and one.where for one in found.refused)
        return {one.target: f"{one.code} {one.reason}" for one in found.refused}

    def test_fewer_partitions(self) -> None:
        found = self.refused(planned("topics: {apologies: {partitions: 2}}", applied(example())))
        assert found == {"apologies": "CH0106 from 4 partitions to 2: Kafka cannot remove partitions"}

    def test_more_partitions_of_a_stateful_input(self) -> None:
        found = self.refused(planned("topics: {delays: {partitions: 8}}", applied(example())))
        assert set(found) == {"delays"} | {
            f"parcels.desk.{kind}" for kind in ("journal", "timers", "parked", "settled")
        }
        assert "away from the state of their entities" in found["delays"]

    def test_other_cleanup_policy_with_data(self) -> None:
        found = self.refused(planned("topics: {apologies: {compact: true}}", applied(example())))
        assert list(found) == ["apologies"]
        assert "cleanup.policy from delete to compact" in found["apologies"]

    def test_external_topic_that_is_missing(self) -> None:
        found = self.refused(planned("", without(applied(example()), "orders")))
        assert found == {"orders": "CH0805 the external topic does not exist"}

    def test_external_topic_with_other_partitions(self) -> None:
        found = planned("", changed(applied(example()), "orders", partitions=3))
        assert self.refused(found) == {
            "orders": "CH0805 the external topic has 3 partitions, the file says 4",
        }
        assert found.refused[0].hint == "write `partitions: 3`"

    def test_incompatible_schema_names_the_field(self) -> None:
        old = Schema.parse(
            '{"type": "record", "name": "Delay", "fields": [{"name": "parcel_id", "type": "string"}]}', "old"
        )
        live = applied(example())
        found = planned("", replace(live, subjects={**live.subjects, "delays-value": (old,)}))
        reasons = self.refused(found)
        assert list(reasons) == ["delays-value"]
        assert reasons["delays-value"].startswith("CH0203 Delay is not BACKWARD compatible: Delay.customer")
        assert found.refused[0].where == "example.yaml:6:23"

    def test_reader_that_cannot_read_what_a_shared_registry_s_owner_writes(self) -> None:
        old = Schema.parse(
            '{"type": "record", "name": "Order", "fields": [{"name": "parcel_id", "type": "string"}]}', "old"
        )
        live = applied(example())
        state = replace(live, subjects={**live.subjects, "orders-value": (old,)}, registry_is_ours=False)
        assert "cannot read what its owner writes" in self.refused(planned("", state))["orders-value"]


def test_partitions_may_grow_while_nothing_was_ever_written() -> None:
    found = planned("topics: {delays: {partitions: 8}}", applied(example(), written=False))
    grown = {one.topic for one in found.stages if isinstance(one, AddPartitions)}
    assert not found.refused
    assert grown == {"delays", "parcels.decisions"} | {
        f"parcels.desk.{kind}" for kind in ("journal", "timers", "parked", "settled", "dead-letters")
    }


def test_state_of_one_reader_is_enough_to_refuse_growth() -> None:
    live = changed(applied(example(), written=False), "parcels.desk.journal", written=True)
    found = planned("topics: {delays: {partitions: 8}}", live)
    assert "delays" in {one.target for one in found.refused}


def test_topic_without_state_may_grow() -> None:
    found = planned("topics: {apologies: {partitions: 8}}", applied(example()))
    assert found.stages == (AddPartitions("apologies", 4, 8),)


def test_policy_may_change_while_nothing_was_ever_written() -> None:
    found = planned("topics: {apologies: {compact: true}}", applied(example(), written=False))
    assert [type(one) for one in found.stages] == [AlterTopicConfig]


def test_compatible_schema_is_registered_as_the_next_version() -> None:
    old = Schema.parse(
        '{"type": "record", "name": "Depot", "fields": [{"name": "code", "type": "string"},'
        ' {"name": "city", "type": "string"}, {"name": "gone", "type": "int"}]}', "old"
    )  # fmt: skip
    live = applied(example())
    subject = "parcels.reference.depots-value"
    found = planned("", replace(live, subjects={**live.subjects, subject: (old,)}))
    assert found.stages == (RegisterSchema(subject, EXAMPLE_SCHEMAS.by_name("Depot"), 2),)


def test_schemas_of_others_are_not_registered_in_a_shared_registry() -> None:
    live = replace(applied(example()), subjects={}, registry_is_ours=False)
    found = planned("", live)
    assert "orders-value" not in {one.target for one in found.changes}
    assert [one.target for one in found.stages if isinstance(one, Notice)] == ["orders-value"]


def test_leftovers_are_named_and_never_deleted() -> None:
    live = applied(example())
    more = {"parcels.gone.journal": ORDERS, "parcels.desk-__leader": ORDERS, "other.topic": ORDERS}
    found = planned("agents: {desk: {kind: faust}}", replace(live, topics={**live.topics, **more}))
    leftovers = {one.target for one in found.stages if isinstance(one, Notice)}
    assert "parcels.gone.journal" in leftovers and "parcels.desk.journal" in leftovers
    assert not leftovers & {"parcels.desk-__leader", "other.topic", "orders"}
    assert not found.drift


def test_external_topics_are_never_created_or_changed() -> None:
    for state in (EMPTY, changed(applied(example()), "orders", partitions=9, config={"retention.ms": "1"})):
        assert "orders" not in {one.target for one in planned("", state).changes}


def test_plan_in_words_and_as_json() -> None:
    live = changed(
        applied(example()), "scans", config={**applied(example()).topics["scans"].config, "retention.ms": "-1"}
    )
    found = planned("topics: {apologies: {partitions: 2}, more: {schema: Scan, key: belt}}", live)
    text = plan_text(found)
    assert "! apologies: from 4 partitions to 2" in text
    assert "+ schema more-value: Scan, version 1" in text
    assert "+ topic  more: 4 partitions, kept 7d" in text
    assert "~ topic  scans: retention.ms for ever → 7d" in text
    assert "records older than the new retention are deleted" in text
    assert text.splitlines()[-1] == (
        "1 schema to register, 1 topic to create, 1 to change, 21 as they should be, 1 refused, so that nothing is done"
    )
    body = plan_json(found)
    assert body["drift"] is True and body["refused"] == 1
    assert [one["stage"] for one in body["stages"]] == [  # type: ignore[attr-defined]
        "refused", "register-schema", "create-topic", "alter-topic-config",
    ]  # fmt: skip
