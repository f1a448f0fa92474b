"""What a session does once a burst ended, and what it looks at between bursts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from choreo.runtime.committer import Committer
from choreo.runtime.session import Session
from choreo.runtime.transaction import Ended, Result


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Without clients; ``did`` lists what it asked of its parts."""
    made: Any = object.__new__(Session)
    made.did = []
    made.engine = SimpleNamespace(
        put_back=lambda burst: made.did.append("put back"), committed=lambda burst, now_ms: made.did.append("committed")
    )
    made.stopped, made._inputs, made._draining = {}, [], False
    made._aborts_in_a_row, made._outside_since_ms, made._commit_after_ms = 0, None, 0
    made._config = SimpleNamespace(group="g")
    made._now_ms = lambda: 1_000
    made._under_way = None
    monkeypatch.setattr(Session, "_renew_producer", lambda self: self.did.append("new producer"))
    monkeypatch.setattr(Session, "_apply", lambda self, burst: None)
    monkeypatch.setattr(Session, "_subscribe", lambda self: self.did.append("join"))
    return made


@pytest.mark.parametrize("result", [Result.COMMITTED, Result.REBALANCING, Result.ABORTED])
def test_a_producer_that_may_have_asked_twice_is_not_used_again(session: Any, result: Result) -> None:
    """A late end of its last transaction would end the next one, half made."""
    session._transaction = SimpleNamespace(worn=True, overdue=False)
    session._under_way = object()
    session._committer = SimpleNamespace(result=lambda wait_s: Ended(result, None))
    session._settle()
    assert session.did == ["committed" if result is Result.COMMITTED else "put back", "new producer"]


def test_work_that_ends_with_a_defect_is_waited_for_once(session: Any) -> None:
    session._transaction = SimpleNamespace(worn=False, overdue=False)
    session._committer = Committer("test")
    session._under_way = object()

    def broken() -> Ended:
        raise MemoryError

    session._committer.start(broken)
    with pytest.raises(MemoryError):
        session._settle()
    assert session._settle() is False
    session._committer.close()


def test_a_stopped_partition_does_not_keep_others_without_an_owner(session: Any) -> None:
    session.stopped = {3: ValueError("its offsets are gone")}
    session._topic_watch = SimpleNamespace(gone=lambda now_ms: frozenset())
    session._unowned = SimpleNamespace(found=lambda now_ms: frozenset({5}))
    session._consumer = SimpleNamespace(unsubscribe=lambda: session.did.append("leave"))
    session._look_around()
    assert session.did == ["leave", "join"]
