"""The bank's way to its core ledger, a system of its own outside Kafka (demos/bank_ledger.py)."""

import os

import aiohttp

import choreo

LEDGER = os.environ.get("BANK_LEDGER", "http://127.0.0.1:8600")


@choreo.tool(effect="read", timeout_s=20.0)
async def standing(account: str, transfer_id: str) -> str:
    """What the ledger thinks of an account: ``good`` or ``blocked``.

    Args:
        account: who wants to pay.
        transfer_id: what for; the ledger records each call under it.
    """
    url = f"{LEDGER}/accounts/{account}/standing"
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.get(url, headers={"Idempotency-Key": transfer_id}) as answer,
    ):
        return str((await answer.json())["standing"])
