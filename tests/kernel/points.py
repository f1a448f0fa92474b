"""The fault points of the engine's protocol, all of them, and what is counted at them.

A point is one thing a worker does that the outside, or a later life of the worker, can tell from not having done it.
Each is passed twice: ``before`` and ``after``. Simulated worlds yield, crash and pause at points; the sweep
(``sweep.py``) crashes at each of them on both sides in each kind of step.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal

Side = Literal["before", "after"]
SIDES: Final[tuple[Side, Side]] = ("before", "after")

POINTS: Final[dict[str, str]] = {
    # a session's clients
    "session start": "a session of the shell, from nothing",
    "session end": "clients closed, memory thrown away",
    "facts read": "the cluster says partitions, ids and limits",
    "producer init": "init_transactions on the worker's own id",
    "subscribe": "the consumer asks to join",
    "poll": "the consumer is polled, callbacks included",
    "leave": "the consumer is closed",
    "look at the group": "are there partitions that nobody has",
    "look at the topics": "are the inputs still the ones that were there at the start",
    "unsubscribe": "a member leaves and joins so that they are shared out",
    # rebalance callbacks
    "assign callback": "partitions arrive",
    "revoke callback": "partitions go, what is finished of them is committed",
    "lost callback": "partitions are gone already",
    "fetch start": "incremental_assign at an explicit offset, after the restore",
    "fetch end": "incremental_unassign",
    "pause fetch": "backpressure",
    "resume fetch": "backpressure ends, or a partition starts",
    # the restore's thread
    "restore asks the group": "is its coordinator there, who is in it",
    "restore marks": "a mark among the group's offsets, which no answer may lack",
    "restore writes": "a record into every state topic, whose offset is where the restore has to read to",
    "restore offsets": "(a) the group's stable offsets are read",
    "restore ends": "(b) the ends of state topics and inputs are read",
    "restore starts": "the first offsets of the inputs are read",
    "restore open": "(c) the reader is given its partitions",
    "restore rows": "changelog rows arrive",
    "restore journal": "checkpoints and entity states arrive",
    "restore timers": "timers arrive",
    "restore parked": "parked rows arrive",
    "restore topic end": "a state topic is read to its end",
    "restore handed over": "the result stands in the engine thread's queue",
    # the engine
    "engine assign": "a partition number is taken up",
    "engine restored": "its state is handed to the engine",
    "deliver": "fetched records are handed to the engine",
    "input end": "the end of an input partition is handed to the engine",
    "pump": "steps run",
    "answer": "a call's answer is handed to the engine",
    "take burst": "finished steps become a burst",
    "burst committed": "the engine is told that the burst is in",
    "put back": "an aborted burst's outcomes go again",
    "burst refused": "the engine is told that a record can never be accepted",
    "engine revoke": "a partition number is forgotten",
    "drain": "an orderly stop begins",
    # steps
    "step of an event": "a handler starts",
    "step of a timer": "a timer fires",
    "step of a parked event": "a person's retry starts a handler",
    "resume after a call": "a waiting handler goes on",
    "duplicate": "an event that was seen before ends",
    "dead letter": "a step becomes a dead letter",
    "park": "an event is parked",
    "call starts": "calls are handed to the event loop",
    "call cancelled": "calls are taken back",
    # one transaction
    "group metadata": "what the offsets will be sent with is read",
    "begin": "begin_transaction",
    "produce output": "",
    "produce decision": "",
    "produce dead letter": "",
    "produce row": "",
    "produce entity state": "",
    "produce checkpoint": "",
    "produce timer": "",
    "produce timer deletion": "",
    "produce parked row": "",
    "produce parked deletion": "",
    "append": "the broker has one more record of the transaction",
    "flush": "all records are acknowledged",
    "send offsets": "send_offsets_to_transaction",
    "commit": "commit_transaction",
    "abort": "abort_transaction",
    "store apply": "committed rows go into the store",
    "restore fences": "init_transactions on a predecessor's id",
    "consumer error": "the consumer hands out an error instead of a record",
}
"""What each point is; the records of ``produce …`` say it themselves."""


class Hits:
    """How often each side of each point was passed."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, Side]] = Counter()

    def note(self, name: str, side: Side) -> int:
        """Which passing this is, from 1."""
        assert name in POINTS, f"{name} is not in the list of fault points"
        self.counts[name, side] += 1
        return self.counts[name, side]
