"""What customers of the bank ask for: mostly small transfers, and everything that ought not to hurt.

One in a hundred is poison (causes take turns), two ask for more than there is, two for more than may come in at once,
one repeats an earlier event under its id, one comes late by its event time.
"""

from __future__ import annotations

import itertools
import random
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from tests.chaos.bank.evidence import TRANSFERS, Fed, Place, Poison
from tests.chaos.feeder import headers
from tests.chaos.transactions import Draft, Landed, Pump, Transactions
from tests.chaos.wire import Wire

ACCOUNTS: Final = 100
PARTITIONS: Final = 4
RATE_PER_S: Final = 60.0
ABORT_SHARE: Final = 0.15
BURST_MAX: Final = 12
SMALL_CENTS_MAX: Final = 2_000  # an account can pay about a thousand of these
MORE_THAN_THERE_IS: Final = 2_000_000
MORE_THAN_AT_ONCE: Final = 500_001
LATE: Final = timedelta(days=2)
MEMO_TOO_LONG: Final = 30_000  # transfers takes it, credits does not
REPEATED_FROM: Final = 200  # the last so many transfers; dedupe remembers 1,000 of each entity
SHARES: Final = (("poison", 1), ("insufficient", 2), ("at once", 2), ("repeated", 1), ("late", 1), ("plain", 93))

POISONS: Final = (
    Poison("no avro", "CH0201"),
    Poison("truncated", "CH0201"),
    Poison("unknown schema", "CH0205"),
    Poison("no key", "CH0206"),
    Poison("key not text", "CH0206"),
    Poison("wrong partition", "CH0301"),
    Poison("handler error", "CH0303"),
    Poison("output too large", "CH0305"),
)


def account(number: int) -> str:
    return f"account-{number:03d}"


class Wish(NamedTuple):
    """One event to be written."""

    draft: Draft
    id: str
    key: str
    kind: str
    poison: Poison | None


class Wishes:
    """Makes events from a seed; knows nothing of Kafka but where keys have landed so far."""

    def __init__(self, wire: Wire, *, seed: int, name: str) -> None:
        self._wire = wire
        self._chance = random.Random(f"bank {seed}")
        self._name = name
        self._numbers = itertools.count(1)
        self._poisons = itertools.cycle(POISONS)
        self._repeatable: list[Wish] = []
        self._homes: dict[str, int] = {}

    def transaction(self, now: datetime) -> list[Wish]:
        """The events of one transaction."""
        return [self.one(now) for _ in range(self._chance.randint(1, BURST_MAX))]

    def aborts(self) -> bool:
        return self._chance.random() < ABORT_SHARE

    def one(self, now: datetime, kind: str | None = None, payer: str | None = None) -> Wish:
        """An event of a kind; of any if none is named."""
        kinds, weights = zip(*SHARES, strict=True)
        kind = kind or self._chance.choices(kinds, weights)[0]
        if kind == "repeated" and self._repeatable:
            earlier = self._chance.choice(self._repeatable[-REPEATED_FROM:])
            return earlier._replace(kind="repeated")
        if kind == "poison":
            return self._poison(next(self._poisons), now)
        cents = {
            "insufficient": MORE_THAN_THERE_IS,
            "at once": MORE_THAN_AT_ONCE + self._chance.randrange(10_000),
        }.get(kind, self._chance.randint(1, SMALL_CENTS_MAX))
        kind = "plain" if kind == "repeated" else kind
        return self._wish(kind, now - LATE if kind == "late" else now, payer=payer, cents=cents)

    def landed(self, wishes: list[Wish], places: list[Landed]) -> None:
        """Tells where committed events are."""
        for wish, place in zip(wishes, places, strict=True):
            if wish.poison is None:
                self._homes[wish.key] = place.partition
                if wish.kind != "repeated":
                    self._repeatable.append(wish)
        del self._repeatable[:-REPEATED_FROM]

    def _wish(
        self,
        kind: str,
        at: datetime,
        *,
        payer: str | None = None,
        cents: int = 100,
        memo: str = "",
        poison: Poison | None = None,
    ) -> Wish:
        payer = payer or account(self._chance.randrange(ACCOUNTS))
        event_id = f"{self._name}-{next(self._numbers)}"
        value: dict[str, Any] = {
            "account": payer,
            "transfer_id": f"transfer-{event_id}",
            "payee": account(self._chance.randrange(ACCOUNTS)),
            "amount_cents": cents,
            "memo": memo,
        }
        known = [*headers(event_id, payer, "bank.TransferRequested"), ("ce_time", rfc3339(at))]
        draft = Draft(TRANSFERS, payer.encode(), self._wire.encode(value), known)
        return Wish(draft, event_id, payer, kind, poison)

    def _poison(self, poison: Poison, now: datetime) -> Wish:
        cause = poison.cause
        cents = -5 if cause == "handler error" else 100
        memo = "x" * MEMO_TOO_LONG if cause == "output too large" else ""
        wish = self._wish("poison", now, cents=cents, memo=memo, poison=poison)
        draft = wish.draft
        if cause == "no avro":
            draft = draft._replace(value=b"\xff\xfe\x00 not avro")
        elif cause == "truncated":
            draft = draft._replace(value=(draft.value or b"")[:-2])
        elif cause == "unknown schema":
            draft = draft._replace(value=struct.pack(">bI", 0, 999_999) + b"\0\0")
        elif cause == "no key":
            draft = draft._replace(key=None, partition=self._chance.randrange(PARTITIONS))
        elif cause == "key not text":
            draft = draft._replace(key=b"\xff\xfe")
        elif cause == "wrong partition":
            home = self._homes.get(wish.key)
            if home is None:  # nobody knows yet where it belongs
                return self._poison(POISONS[0], now)
            draft = draft._replace(partition=(home + 1) % PARTITIONS)
        return wish._replace(draft=draft)


def rfc3339(at: datetime) -> bytes:
    """As choreo writes it: UTC, milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()


class BankFeeder(Pump):
    """Writes wishes in transactions, some of which are aborted."""

    def __init__(self, bootstrap: str, wire: Wire, *, seed: int, name: str) -> None:
        super().__init__(RATE_PER_S)
        self.fed = Fed()
        self.wishes = Wishes(wire, seed=seed, name=name)
        self._writer = Transactions(bootstrap, name)
        self._one_at_a_time = threading.Lock()

    def transaction(self) -> None:
        self.write(self.wishes.transaction(datetime.now(UTC)), abort=self.wishes.aborts())

    def write(self, wishes: list[Wish], *, abort: bool = False) -> None:
        """One transaction of these; goes into the books as what became of it."""
        with self._one_at_a_time:
            self.made += len(wishes)
            places = self._writer.write([wish.draft for wish in wishes], abort=abort)
            if places is None:
                self.fed.aborted |= {wish.id for wish in wishes if wish.kind != "repeated"}
                return
            self.wishes.landed(wishes, places)
            for wish, place in zip(wishes, places, strict=True):
                self.fed.committed[Place(TRANSFERS, place.partition, place.offset)] = wish.id
                self.fed.kinds.setdefault(wish.id, wish.kind)
                if wish.poison is not None:
                    self.fed.poison[wish.id] = wish.poison

    @contextmanager
    def still(self) -> Iterator[None]:
        """While it lasts, nothing is written and no transaction is open."""
        with self._one_at_a_time:
            yield

    def every_kind(self) -> None:
        """One of each kind and cause, after a transfer of each account; and an abort before it."""
        now = datetime.now(UTC)
        self.write([self.wishes.one(now, "plain", account(number)) for number in range(5)], abort=True)
        self.touch()
        kinds = [kind for kind, _ in SHARES if kind != "poison"] + ["poison"] * len(POISONS)
        self.write([self.wishes.one(now, kind) for kind in kinds])

    def touch(self) -> None:
        """One plain transfer of each account."""
        now = datetime.now(UTC)
        self.write([self.wishes.one(now, "plain", account(number)) for number in range(ACCOUNTS)])
