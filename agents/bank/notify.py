"""notify, per payer: tells the customer how each transfer ended."""

import choreo
from schemas import CustomerFile, CustomerNotified, TransferDecided

app = choreo.App("topologies/bank.yaml", agent="notify")


@app.on(TransferDecided)
async def tell(event: TransferDecided, ctx: choreo.Context) -> None:
    file = ctx.row(CustomerFile)
    file.notices += 1
    if event.status == "completed":
        file.completed += 1
    elif event.status == "refused":
        file.refused += 1
    else:
        file.refunded += 1
    why = f": {event.reason}" if event.reason else ""
    ctx.emit(
        CustomerNotified(
            account=event.account,
            transfer_id=event.transfer_id,
            number=file.notices,
            text=f"{event.amount_cents / 100:.2f} to {event.payee} {event.status}{why}",
        )
    )
