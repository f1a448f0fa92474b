"""`plan` and `apply` on a real Kafka."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from choreo.runtime.kafka_config import admin
from tests.apply.conftest import SCHEMAS, Shop

if TYPE_CHECKING:
    from choreo.testing.broker import RunningBroker

pytestmark = pytest.mark.kafka


@pytest.fixture
def client(kafka_broker: RunningBroker, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> AdminClient:
    monkeypatch.setenv("CHOREO_BROKERS", kafka_broker.bootstrap)
    return AdminClient(admin(kafka_broker.bootstrap, {}))


def topics(client: AdminClient, prefix: str) -> dict[str, int]:
    found = client.list_topics(timeout=10).topics
    return {name: len(topic.partitions) for name, topic in found.items() if name.startswith(prefix.strip("-"))}


def settings(client: AdminClient, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    return {name: entry.value for name, entry in client.describe_configs([resource])[resource].result(10).items()}


def set_by_hand(client: AdminClient, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for future in client.incremental_alter_configs([resource]).values():
        future.result(10)


def write(broker: RunningBroker, topic: str) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all"})
    producer.produce(topic, key=b"k", value=b"v")
    assert producer.flush(10) == 0


def wait_until(condition: Callable[[], bool]) -> bool:
    """The controller answers before its brokers know: what a test changes by hand shows a moment later."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def stages(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["stage"], one["target"]) for one in body["stages"]]


def test_apply_creates_everything_once(client: AdminClient, shop: Shop) -> None:
    code, body = shop.json("plan")
    assert (code, body["drift"], body["refused"]) == (0, True, 0)
    assert topics(client, shop.prefix) == {}, "a plan changes nothing"
    assert not (shop.root / "schemas" / "registry.lock.json").exists()
    assert shop.choreo("apply", "--check")[0] == 2
    assert topics(client, shop.prefix) == {}, "a check changes nothing"

    code, body = shop.json("apply")
    assert (code, body["applied"]) == (0, True)
    assert topics(client, shop.prefix) == {
        f"{shop.prefix}orders": 2,
        f"{shop.prefix}done": 2,
        f"{shop.prefix.strip('-')}.decisions": 2,
        f"{shop.prefix.strip('-')}.reference.rates": 1,
        **{
            f"{shop.internal}{kind}": 2
            for kind in ("changelog.totals", "journal", "timers", "parked", "dead-letters", "settled")
        },
    }
    done = settings(client, f"{shop.prefix}done")
    assert (done["cleanup.policy"], done["retention.ms"], done["message.timestamp.type"]) == (
        "delete",
        str(3 * 86_400_000),
        "LogAppendTime",
    )
    assert settings(client, f"{shop.internal}changelog.totals")["cleanup.policy"] == "compact"
    letters = settings(client, f"{shop.internal}dead-letters")
    assert int(letters["max.message.bytes"]) == 1_048_576 + 65_536
    lock = json.loads((shop.root / "schemas" / "registry.lock.json").read_text("utf-8"))
    assert f"{shop.prefix}orders-value" in lock["subjects"]
    assert f"{shop.internal}changelog.totals-value" in lock["subjects"]

    before = (shop.root / "schemas" / "registry.lock.json").read_bytes()
    code, body = shop.json("apply")
    assert (code, body["drift"], body["stages"]) == (0, False, [])
    assert (shop.root / "schemas" / "registry.lock.json").read_bytes() == before
    assert shop.choreo("plan", "--check")[0] == 0
    assert shop.choreo("apply", "--check")[0] == 0


def test_drift_is_found_and_removed(client: AdminClient, shop: Shop) -> None:
    assert shop.choreo("apply")[0] == 0
    set_by_hand(client, f"{shop.internal}journal", "message.timestamp.type", "CreateTime")
    set_by_hand(client, f"{shop.prefix}done", "retention.ms", "60000")
    client.delete_topics([f"{shop.internal}timers"])[f"{shop.internal}timers"].result(10)
    shop.schema("Done", [*SCHEMAS["Done"], ("note", "string", "")])

    differing = [
        ("register-schema", f"{shop.prefix}done-value"),
        ("create-topic", f"{shop.internal}timers"),
        ("alter-topic-config", f"{shop.prefix}done"),
        ("alter-topic-config", f"{shop.internal}journal"),
    ]
    assert wait_until(lambda: stages(shop.json("plan")[1]) == differing)
    assert shop.choreo("plan", "--check")[0] == 2
    assert shop.choreo("apply")[0] == 0
    assert shop.choreo("plan", "--check")[0] == 0
    assert settings(client, f"{shop.internal}journal")["message.timestamp.type"] == "LogAppendTime"
    lock = json.loads((shop.root / "schemas" / "registry.lock.json").read_text("utf-8"))
    assert [one["version"] for one in lock["subjects"][f"{shop.prefix}done-value"]] == [1, 2]


def test_empty_topics_may_grow_and_written_ones_may_not(
    client: AdminClient, shop: Shop, kafka_broker: RunningBroker
) -> None:
    assert shop.choreo("apply")[0] == 0
    shop.write(lambda text: text.replace("{partitions: 2}", "{partitions: 3}"))
    assert shop.choreo("apply")[0] == 0
    assert topics(client, shop.prefix)[f"{shop.internal}journal"] == 3

    write(kafka_broker, f"{shop.prefix}orders")
    shop.write(lambda text: text.replace("{partitions: 2}", "{partitions: 5}"))
    before = topics(client, shop.prefix)
    code, body = shop.json("plan")
    assert code == 1
    assert ("refused", f"{shop.prefix}orders") in stages(body)
    code, body = shop.json("apply")
    assert code == 1
    assert body["error"]["code"] == "CH0106"
    assert "nothing was changed" in body["error"]["message"]
    assert topics(client, shop.prefix) == before, "all or nothing"
    assert shop.choreo("apply", "--check")[0] == 2


def test_fewer_partitions_and_incompatible_schema_are_refused(client: AdminClient, shop: Shop) -> None:
    assert shop.choreo("apply")[0] == 0
    shop.write(lambda text: text.replace("{partitions: 2}", "{partitions: 1}"))
    shop.schema("Order", [*SCHEMAS["Order"], ("customer", "string")])
    code, body = shop.json("plan", "--check")
    assert code == 2
    refused = {one["target"]: one for one in body["stages"] if one["stage"] == "refused"}
    assert refused[f"{shop.prefix}done"]["code"] == "CH0106"
    assert refused[f"{shop.prefix}orders-value"]["code"] == "CH0203"
    assert "shop.Order.customer" in refused[f"{shop.prefix}orders-value"]["reason"]


def test_cleanup_policy_with_data_is_refused(client: AdminClient, shop: Shop, kafka_broker: RunningBroker) -> None:
    assert shop.choreo("apply")[0] == 0
    shop.write(lambda text: text.replace("retention: 3d", "compact: true"))
    assert shop.json("plan")[1]["refused"] == 0
    write(kafka_broker, f"{shop.prefix}done")
    code, body = shop.json("plan")
    assert (code, body["refused"]) == (1, 1)


def test_external_topics_are_checked_and_never_touched(client: AdminClient, shop: Shop) -> None:
    external = f"{shop.prefix}orders"
    shop.write(lambda text: text.replace("ingress: true", "external: true"))
    code, body = shop.json("apply")
    assert (code, body["error"]["code"]) == (1, "CH0805")
    assert topics(client, shop.prefix) == {}

    client.create_topics([NewTopic(external, 3, 1, config={"retention.ms": "777"})])[external].result(10)
    assert wait_until(lambda: topics(client, shop.prefix) == {external: 3})
    code, body = shop.json("apply")
    assert code == 1
    assert "write `partitions: 3`" in body["error"]["hint"]

    shop.write(lambda text: text.replace("ingress: true", "external: true, partitions: 3"))
    code, body = shop.json("apply")
    assert code == 0
    assert external not in {target for _, target in stages(body)}
    assert settings(client, external)["retention.ms"] == "777"
    assert topics(client, shop.prefix)[external] == 3
    assert topics(client, shop.prefix)[f"{shop.internal}journal"] == 3


def test_what_the_broker_refuses_is_told_with_advice(client: AdminClient, shop: Shop) -> None:
    shop.write(lambda text: text.replace("cluster: {", "cluster: {replication: 3, "))
    code, body = shop.json("apply")
    assert code == 1
    assert body["error"]["code"] == "CH0805"
    assert "cluster.replication" in body["error"]["hint"]


def test_leftovers_stay(client: AdminClient, shop: Shop) -> None:
    assert shop.choreo("apply")[0] == 0
    before = topics(client, shop.prefix)
    shop.write(lambda text: text.replace("    tables: [totals, rates]", "    tables: [rates]").replace("totals:", "#"))
    code, body = shop.json("apply")
    assert code == 0
    assert stages(body) == [("notice", f"{shop.internal}changelog.totals")]
    assert topics(client, shop.prefix) == before
