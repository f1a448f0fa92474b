"""The scoring job in Quix Streams, exactly once. Runs in its own environment: imports nothing of this project."""

from __future__ import annotations

import json
import sys
from typing import Any

from quixstreams import Application
from quixstreams.state import State


def score(event: dict[str, Any], state: State) -> dict[str, Any]:
    account = state.get("account") or {"payments": 0, "total_cents": 0, "largest_cents": 0, "last_merchant": ""}
    account["payments"] += 1
    account["total_cents"] += event["amount_cents"]
    account["largest_cents"] = max(account["largest_cents"], event["amount_cents"])
    account["last_merchant"] = event["merchant"]
    state.set("account", account)
    return {
        "account": event["account"],
        "number": event["number"],
        "payments": account["payments"],
        "total_cents": account["total_cents"],
        "unusual": event["amount_cents"] * account["payments"] > 3 * account["total_cents"],
    }


def main() -> None:
    given = json.loads(sys.argv[1])
    app = Application(
        broker_address=given["bootstrap"],
        consumer_group=given["group"],
        processing_guarantee="exactly-once",
        commit_interval=given["commit_s"],
        auto_offset_reset="earliest",
        state_dir=given["state_dir"],
        loglevel="INFO",
    )
    source = app.topic(given["source"], key_deserializer="str", value_deserializer="json")
    output = app.topic(given["output"], key_serializer="str", value_serializer="json")
    scored = app.dataframe(source).apply(score, stateful=True)
    scored.to_topic(output)
    app.run()


if __name__ == "__main__":
    main()
