"""credit, per payee: takes the money in, or sends it back when it is more than may come in at once."""

import choreo
from schemas import CreditOrdered, ReceivingAccount, RefundOrdered, TransferDecided

CREDIT_CENTS_MAX = 500_000
"""More than this in one transfer needs papers that nobody has."""

app = choreo.App("topologies/bank.yaml", agent="credit")


@app.on(CreditOrdered)
async def take_in(event: CreditOrdered, ctx: choreo.Context) -> None:
    account = ctx.row(ReceivingAccount)
    if event.amount_cents > CREDIT_CENTS_MAX:
        account.refused += 1
        ctx.emit(
            RefundOrdered(
                account=event.payer,
                transfer_id=event.transfer_id,
                payee=event.account,
                amount_cents=event.amount_cents,
                reason="more than may come in at once",
            )
        )
        return
    account.received_cents += event.amount_cents
    account.credits += 1
    ctx.emit(
        TransferDecided(
            account=event.payer,
            transfer_id=event.transfer_id,
            payee=event.account,
            amount_cents=event.amount_cents,
            status="completed",
        )
    )
