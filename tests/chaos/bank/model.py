"""The bank once more, written down independently: what each event must lead to, and under which ids.

No code of the agents and none of choreo's is used. Events come in the order in which the bank says it handled them;
that this order is lawful is for the invariants to check.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tests.chaos.bank.evidence import CREDIT, CREDITS, DEBIT, NOTICES, OUTCOMES, REFUNDS, TOPOLOGY, TRANSFERS, Value

OPENING_CENTS: Final = 1_000_000
AT_ONCE_CENTS: Final = 500_000

FRESH: Final[Mapping[str, Mapping[str, Any]]] = {
    "debit": {"balance_cents": OPENING_CENTS, "paid": 0, "refunded": 0, "refused": 0},
    "credit": {"received_cents": 0, "credits": 0, "refused": 0},
    "notify": {"notices": 0, "completed": 0, "refused": 0, "refunded": 0},
}


class Made(NamedTuple):
    """An event that a step must emit."""

    topic: str
    key: str
    value: dict[str, Any]


def fresh(agent: str, entity: str) -> dict[str, Any]:
    """The row of an entity that nothing has happened to."""
    return {"account": entity, **FRESH[agent]}


def step(agent: str, topic: str, event: Value, row: Value) -> tuple[dict[str, Any], list[Made]]:
    """The row after an event, and what is emitted."""
    after = dict(row)
    transfer, cents = event["transfer_id"], event["amount_cents"]
    if agent == DEBIT and topic == TRANSFERS:
        if cents > row["balance_cents"]:
            after["refused"] += 1
            return after, [_outcome(event["account"], transfer, event["payee"], cents, "refused", "insufficient funds")]
        after["balance_cents"] -= cents
        after["paid"] += 1
        order = {"transfer_id": transfer, "payer": event["account"], "amount_cents": cents, "memo": event["memo"]}
        return after, [Made(CREDITS, event["payee"], {"account": event["payee"], **order})]
    if agent == DEBIT and topic == REFUNDS:
        after["balance_cents"] += cents
        after["refunded"] += 1
        return after, [_outcome(event["account"], transfer, event["payee"], cents, "refunded", event["reason"])]
    if agent == CREDIT:
        if cents > AT_ONCE_CENTS:
            after["refused"] += 1
            back = {"transfer_id": transfer, "payee": event["account"], "amount_cents": cents}
            refund = {"account": event["payer"], **back, "reason": "more than may come in at once"}
            return after, [Made(REFUNDS, event["payer"], refund)]
        after["received_cents"] += cents
        after["credits"] += 1
        return after, [_outcome(event["payer"], transfer, event["account"], cents, "completed", "")]
    after["notices"] += 1
    after[event["status"]] += 1
    why = f": {event['reason']}" if event["reason"] else ""
    text = f"{cents // 100}.{cents % 100:02d} to {event['payee']} {event['status']}{why}"
    notice = {"account": event["account"], "transfer_id": transfer, "number": after["notices"], "text": text}
    return after, [Made(NOTICES, event["account"], notice)]


def _outcome(payer: str, transfer: str, payee: str, cents: int, status: str, reason: str) -> Made:
    value = {"transfer_id": transfer, "payee": payee, "amount_cents": cents, "status": status, "reason": reason}
    return Made(OUTCOMES, payer, {"account": payer, **value})


def event_id(agent: str, parent: str, number: int) -> str:
    """Id of the ``number``-th event (from 0) that an agent emits because of the event ``parent``."""
    text = json.dumps([TOPOLOGY, agent, parent, number], separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def state_hash(rows: Mapping[tuple[str, str], Value]) -> str:
    """One number for all rows: (agent, entity) → row."""
    listed = [[*place, dict(row)] for place, row in sorted(rows.items())]
    text = json.dumps(listed, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
