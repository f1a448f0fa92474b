"""``make proxy``: faults by a seed on every request of a commit's path, also two at once and at the n-th request."""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console

from benchmarks.machine import header
from tests.proxy.frames import Api
from tests.proxy.lanes import AT_START, DELAY_S, Lanes
from tests.proxy.proxy import Rule, faults

LANES = 7
TOGETHER_SHARE = 0.3
"""Of the groups hold two faults."""
NTH_MAX = 4


def rule(chance: random.Random) -> Rule:
    """A fault by chance. What a worker asks once in a session is hit the first time."""
    api = chance.choice(list(Api))
    nth = 1 if api in AT_START else chance.randint(1, NTH_MAX)
    return Rule(api, nth=nth, **chance.choice(faults(DELAY_S)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proxy", description="Faults on the way to the broker.")
    parser.add_argument("--faults", type=int, default=300, help="about so many groups of one or two")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=Path("build/proxy.json"))
    options = parser.parse_args()
    console = Console(stderr=True)
    logging.getLogger("choreo.engine").setLevel(logging.CRITICAL)  # of each fault the worker says what it met
    chance = random.Random(f"proxy {options.seed}")
    each = -(-options.faults // LANES)
    work = [
        [[rule(chance) for _ in range(2 if chance.random() < TOGETHER_SHARE else 1)] for _ in range(each)]
        for _ in range(LANES)
    ]
    problems = []
    with tempfile.TemporaryDirectory() as folder, Lanes(Path(folder), count=LANES) as lanes:
        with console.status(f"seed {options.seed}, {each} groups of faults in each of {LANES} lanes"):
            results = lanes.run(work)
        for lane in lanes.lanes:
            try:
                lane.check()
            except AssertionError as error:
                problems.append(str(error))
        events = sum(len(values) for lane in lanes.lanes for values in lane.fed.values())
    problems += [f"{one.rule}: {one.problem}" for one in results if one.problem]
    fired = Counter(f"{one.rule.api.name.lower()}, {one.rule.fault.value}" for one in results if one.fired)
    body = {
        **header({"faults": options.faults, "seed": options.seed}),
        "ok": not problems,
        "fired": sum(fired.values()),
        "kinds": len(fired),
        "events": events,
        "sessions": sum(one.sessions for one in results),
        "restarts_after_a_fence": sum(one.restarts for one in results),
        "seconds_max": max((one.seconds for one in results), default=0.0),
        "problems": problems,
        "by_kind": dict(sorted(fired.items())),
    }
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(body, indent=1) + "\n", "utf-8")
    console.print(f"{body['fired']} faults of {body['kinds']} kinds, {events:,} events, {len(problems)} problems")
    for problem in problems:
        console.print(f"  {problem}", markup=False, highlight=False)
    print(json.dumps({"ok": not problems, "report": str(options.report)}))  # noqa: T201 - the result, for programs
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
