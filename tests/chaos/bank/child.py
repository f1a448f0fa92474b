"""One round in a process of its own: ``python -m tests.chaos.bank.child FOLDER SEED ROUND KILLS STORE NODES``.

librdkafka can end the process that uses it (a segmentation fault in ``rd_kafka_metadata_update_op`` when a broker comes
back, 2.16.1, once in the first hundred kills, in the harness itself). That must not end a run of a thousand kills, nor
pass for a right round. Lines on standard output: ``. what happens now``, and at the end ``= the result as JSON``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.chaos.bank.round import Result, play
from tests.chaos.target import REPOSITORY


def play_apart(
    folder: Path, *, seed: int, number: int, kills: int, store: str, nodes: int, tell: Callable[[str], None]
) -> Result | None:
    """``play`` in a process of its own. None: that process was ended by a signal before the round had a result."""
    arguments = [str(folder.resolve()), str(seed), str(number), str(kills), store, str(nodes)]
    found: Result | None = None
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.bank.child", *arguments], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith(". "):
                    tell(line[2:].strip())
                elif line.startswith("= "):
                    found = Result(**json.loads(line[2:]))
        except BaseException:
            process.terminate()
            raise
    if found is None and process.returncode >= 0:
        raise AssertionError(f"round {number} of seed {seed} ended with {process.returncode} and no result")
    return found


def main() -> None:
    folder, seed, number, kills, store, nodes = sys.argv[1:]
    result = play(
        Path(folder),
        seed=int(seed),
        number=int(number),
        kills=int(kills),
        store=store,
        nodes=int(nodes),
        tell=lambda text: print(f". {text}", flush=True),  # noqa: T201 - read by play_apart
    )
    print(f"= {json.dumps(result.as_json())}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
