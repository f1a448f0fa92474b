"""The event clock of a partition: what moves it, and how far."""

from __future__ import annotations

from choreo.kernel.burst import Done
from choreo.kernel.partition import AHEAD_MS_MAX, Partition
from choreo.kernel.progress import Snapshot
from choreo.kernel.restore import Restored
from choreo.kernel.values import Delivery, Envelope, InputTopic, Outcome, TimerRow, Trigger

NOW_MS = 1_700_000_000_000


def envelope(time_ms: int) -> Envelope:
    return Envelope("e", "", time_ms, "e", "", 0, "", "", "")


def ready(timers: list[TimerRow]) -> Partition:
    partition = Partition(
        0,
        {"in": InputTopic("in")},
        100,
        lambda delivery, parsed: Trigger("event", "k", delivery, parsed, source=(delivery.topic, delivery.offset)),
        lambda table, key: None,
    )
    partition.restore(Restored({"in": Snapshot(0, ())}, -1, 0, {}, timers, [], {}))
    return partition


def arrive(partition: Partition, offset: int, time_ms: int) -> None:
    delivery = Delivery("in", 0, offset, NOW_MS, b"k", b"", ())
    assert partition.progress["in"].deliver(offset)
    partition.buffer(delivery, envelope(time_ms))


def timer(at_ms: int) -> TimerRow:
    return TimerRow("k", "close", at_ms, f"t{at_ms}", envelope(0))


def test_a_timer_fires_before_an_event_of_its_own_time_or_later() -> None:
    partition = ready([timer(NOW_MS - 10)])
    arrive(partition, 0, NOW_MS - 11)
    arrive(partition, 1, NOW_MS - 10)
    kinds = [trigger.kind for trigger in iter(lambda: partition.next_trigger(NOW_MS), None)]
    assert kinds == ["event", "timer", "event"]


def test_one_event_from_the_far_future_does_not_fire_every_timer() -> None:
    far = NOW_MS + 10 * AHEAD_MS_MAX
    partition = ready([timer(NOW_MS + AHEAD_MS_MAX), timer(far)._replace(name="later", timer_id="later")])
    arrive(partition, 0, far + 1)
    kinds = [trigger.kind for trigger in iter(lambda: partition.next_trigger(NOW_MS), None)]
    assert kinds == ["timer", "event"]
    assert partition.clock.now.event_time_ms == NOW_MS + AHEAD_MS_MAX


def test_wall_time_counts_only_when_everything_was_read() -> None:
    partition = ready([timer(NOW_MS + 1_000)])
    arrive(partition, 0, NOW_MS)
    assert partition.next_trigger(NOW_MS) is not None
    assert partition.next_trigger(NOW_MS + 5_000) is None  # more may be unread
    partition.reach_end("in", 1)
    fired = partition.next_trigger(NOW_MS + 5_000)
    assert fired is not None
    assert fired.kind == "timer"


def test_a_timer_that_sets_itself_again_at_once_does_not_starve_the_inputs() -> None:
    partition = ready([timer(NOW_MS)])
    for offset in range(3):
        arrive(partition, offset, NOW_MS + 1)
    kinds = []
    for number in range(8):
        trigger = partition.next_trigger(NOW_MS)
        assert trigger is not None
        kinds.append(trigger.kind)
        if trigger.timer is not None:
            again = trigger.timer._replace(timer_id=f"again{number}")
            partition.apply(Done(partition, trigger, Outcome(timers=[again]), number), trigger, None)
    assert kinds[:7] == ["timer", "event", "timer", "event", "timer", "event", "timer"]


def test_wall_time_does_not_count_while_nothing_is_read() -> None:
    """What comes meanwhile may be older than the timer: the event that cancels it."""
    partition = ready([timer(NOW_MS + 1_000)])
    for offset in range(3):
        arrive(partition, offset, NOW_MS)
    partition.reach_end("in", 3)
    for _ in range(3):
        assert partition.next_trigger(NOW_MS) is not None
    partition.throttle(2, 10**6)
    assert partition.throttled
    assert partition.next_trigger(NOW_MS + 2_000) is None
    partition.reach_end("in", 3)
    fired = partition.next_trigger(NOW_MS + 2_000)
    assert fired is not None
    assert fired.kind == "timer"


def test_inputs_that_the_last_owner_finished_count_while_they_wait_for_their_turn() -> None:
    partition = ready([])
    for offset in range(3):
        partition.pass_by(Delivery("in", 0, offset, NOW_MS, b"k", b"", ()), envelope(NOW_MS))
    partition.throttle(2, 10**6)
    assert partition.throttled
    assert partition.next_trigger(NOW_MS) is None
    partition.throttle(2, 10**6)
    assert not partition.throttled
