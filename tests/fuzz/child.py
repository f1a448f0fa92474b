"""One target in a process of its own, so that memory can be limited and a crash of the interpreter is a failure too.

``python -m tests.fuzz.child`` is the one with atheris, which has to instrument choreo before anything imports it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from tests.fuzz.target import Target
from tests.fuzz.watch import Watch

WRITTEN_EACH: Final = 1_000
"""libFuzzer leaves the process without Python's farewell: what was seen is written every so many cases."""
INPUT_BYTES_MAX: Final = 65_536
CORPUS_MAX: Final = 2_000
"""Inputs of earlier sittings that changes by chance start from, too."""
OWN_CHANGES: Final = 0.5
"""Share of the format's own changes under atheris; the rest are libFuzzer's, which know nothing and try everything."""


class Work(NamedTuple):
    """What a child does, and where it writes what it saw."""

    target: str
    cases: int
    seed: int
    out: Path
    corpus: Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--cases", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    with_atheris(Work(**vars(parser.parse_args())))


def target_named(name: str) -> Target:
    from tests.fuzz.catalogue import all_targets

    return all_targets()[name]


def with_chance(work: Work) -> None:
    """The format's own changes, from a seed; first what atheris found interesting, now with times that count."""
    target = target_named(work.target)
    watch = Watch(target, seconds_max=target.seconds_max, limit_memory=True)
    files = sorted(work.corpus.glob("*"))[:CORPUS_MAX] if work.corpus.is_dir() else []
    known = [file.read_bytes() for file in files]
    sources = [*target.seeds, *known]
    for data in (*target.seeds, *target.found, *known):
        watch.case(data)
    chance = Random(f"{work.seed} {target.name}")
    while watch.seen.cases < work.cases:
        watch.case(target.change(chance.choice(sources), chance))
    watch.shrink()
    work.out.write_text(json.dumps(watch.report()), "utf-8")


def with_atheris(work: Work) -> None:
    """Coverage-guided: libFuzzer keeps what reaches new code of choreo."""
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["choreo"]):
        target = target_named(work.target)
    watch = Watch(target, seconds_max=None, limit_memory=True)
    work.corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate((*target.seeds, *target.found)):
        (work.corpus / f"seed-{number:03}").write_bytes(data)

    def one(data: bytes) -> None:
        if watch.seen.cases < work.cases:
            watch.case(data)
            if watch.seen.cases == work.cases:
                watch.shrink()
                work.out.write_text(json.dumps(watch.report()), "utf-8")
            elif watch.seen.cases % WRITTEN_EACH == 0:
                work.out.write_text(json.dumps(watch.report()), "utf-8")

    def change(data: bytes, size_max: int, seed: int) -> bytes:
        chance = Random(seed)
        if chance.random() < OWN_CHANGES:
            return target.change(data, chance)[:size_max]
        changed: Any = atheris.Mutate(data, size_max)
        return bytes(changed)

    arguments = [
        sys.argv[0],
        f"-runs={work.cases + 1}",  # it runs an empty input of its own first
        f"-seed={work.seed % 2**31 or 1}",
        f"-max_len={INPUT_BYTES_MAX}",
        "-rss_limit_mb=0",  # the watch limits memory, by case
        "-verbosity=0",
        str(work.corpus),
    ]
    atheris.Setup(arguments, one, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
