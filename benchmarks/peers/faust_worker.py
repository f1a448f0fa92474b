"""The scoring job in plain Faust, exactly once. Runs in the peer's own environment: imports nothing of this project.

python faust_worker.py worker --without-web; settings come as JSON in BENCH_SETTINGS.
"""

from __future__ import annotations

import json
import os
from typing import Any

import faust

GIVEN = json.loads(os.environ["BENCH_SETTINGS"])

app = faust.App(
    GIVEN["group"],
    broker=f"kafka://{GIVEN['bootstrap']}",
    processing_guarantee="exactly_once",
    store="memory://",
    topic_partitions=GIVEN["partitions"],
    topic_replication_factor=1,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    datadir=GIVEN["state_dir"],
)
source = app.topic(GIVEN["source"], key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw")
output = app.topic(GIVEN["output"], key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw")
accounts = app.Table("accounts", partitions=GIVEN["partitions"])


@app.agent(source)
async def score(stream: Any) -> None:
    async for key, value in stream.items():
        event = json.loads(value)
        name = event["account"]
        account = accounts.get(name) or {"payments": 0, "total_cents": 0, "largest_cents": 0, "last_merchant": ""}
        account["payments"] += 1
        account["total_cents"] += event["amount_cents"]
        account["largest_cents"] = max(account["largest_cents"], event["amount_cents"])
        account["last_merchant"] = event["merchant"]
        accounts[name] = account
        scored = {
            "account": name,
            "number": event["number"],
            "payments": account["payments"],
            "total_cents": account["total_cents"],
            "unusual": event["amount_cents"] * account["payments"] > 3 * account["total_cents"],
        }
        await output.send(key=key, value=json.dumps(scored).encode())


if __name__ == "__main__":
    app.main()
