"""The job of the four scoring agents, written the way a user writes it."""

from __future__ import annotations

import choreo
from schemas import Account, Payment, PaymentScored


async def score(event: Payment, ctx: choreo.Context) -> None:
    account = ctx.row(Account)
    account.payments += 1
    account.total_cents += event.amount_cents
    account.largest_cents = max(account.largest_cents, event.amount_cents)
    account.last_merchant = event.merchant
    ctx.emit(
        PaymentScored(
            account=event.account,
            number=event.number,
            payments=account.payments,
            total_cents=account.total_cents,
            unusual=event.amount_cents * account.payments > 3 * account.total_cents,
        )
    )
