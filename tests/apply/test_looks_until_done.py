"""After applying, the cluster is looked at as long as it gets nearer to the plan, and no longer."""

from __future__ import annotations

from choreo.apply.run import VERIFY_S, look_until_done
from choreo.topology.plan import CreateTopic, Plan


def plan_with(left: int) -> Plan:
    return Plan(
        "shop", "shop.yaml", tuple(CreateTopic(f"t{number}", 1, None, {}, "events") for number in range(left)), 0
    )


class Cluster:
    """One whose brokers learn of a topic in so many seconds."""

    def __init__(self, topics: int, seconds_each: float, known_at_most: int) -> None:
        self.now_s = 0.0
        self._topics, self._seconds_each, self._known_at_most = topics, seconds_each, known_at_most

    def look(self) -> Plan:
        known = min(int(self.now_s / self._seconds_each), self._known_at_most)
        return plan_with(max(self._topics - known, 0))

    def wait(self, seconds: float) -> None:
        self.now_s += seconds


def ends(cluster: Cluster) -> Plan:
    return look_until_done(cluster.look, now_s=lambda: cluster.now_s, wait=cluster.wait)


def test_a_slow_cluster_is_waited_for() -> None:
    cluster = Cluster(100, 3.0, 100)
    assert not ends(cluster).drift
    assert cluster.now_s > VERIFY_S


def test_one_that_stands_still_is_not() -> None:
    cluster = Cluster(100, 3.0, 20)
    assert len(ends(cluster).changes) == 80
    assert 60 <= cluster.now_s <= 60 + 2 * VERIFY_S


def test_nothing_is_waited_for_where_nothing_is_left() -> None:
    cluster = Cluster(0, 1.0, 0)
    assert not ends(cluster).drift
    assert cluster.now_s == 0.0
