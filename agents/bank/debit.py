"""debit, per payer: pays a transfer if there is enough, and takes back what the payee's side refused.

The first step of the saga and, for a transfer that is sent back, its compensation. Paying and ordering the credit
commit together; so money that left an account is always somewhere: in flight, received, or back.
"""

import choreo
from agents.bank.ledger import standing
from schemas import CreditOrdered, PayingAccount, RefundOrdered, TransferDecided, TransferRequested

app = choreo.App("topologies/bank.yaml", agent="debit")


@app.on(TransferRequested)
async def pay(event: TransferRequested, ctx: choreo.Context) -> None:
    if event.amount_cents <= 0:
        raise ValueError(f"transfer {event.transfer_id} moves {event.amount_cents} cents")
    known = await ctx.call(standing, event.account, event.transfer_id)
    account = ctx.row(PayingAccount)
    if known != "good":
        refuse(account, event, ctx, f"the account is {known}")
    elif event.amount_cents > account.balance_cents:
        refuse(account, event, ctx, "insufficient funds")
    else:
        account.balance_cents -= event.amount_cents
        account.paid += 1
        ctx.emit(
            CreditOrdered(
                account=event.payee,
                transfer_id=event.transfer_id,
                payer=event.account,
                amount_cents=event.amount_cents,
                memo=event.memo,
            )
        )


@app.on(RefundOrdered)
async def take_back(event: RefundOrdered, ctx: choreo.Context) -> None:
    account = ctx.row(PayingAccount)
    account.balance_cents += event.amount_cents
    account.refunded += 1
    ctx.emit(
        TransferDecided(
            account=event.account,
            transfer_id=event.transfer_id,
            payee=event.payee,
            amount_cents=event.amount_cents,
            status="refunded",
            reason=event.reason,
        )
    )


def refuse(account: PayingAccount, event: TransferRequested, ctx: choreo.Context, reason: str) -> None:
    account.refused += 1
    ctx.emit(
        TransferDecided(
            account=event.account,
            transfer_id=event.transfer_id,
            payee=event.payee,
            amount_cents=event.amount_cents,
            status="refused",
            reason=reason,
        )
    )
