"""The scoring job on a broker: its topics, its input, and the ways to run it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from fastavro import schemaless_reader

from benchmarks.cluster import Cluster
from benchmarks.commands import prepare
from benchmarks.machine import REPOSITORY
from benchmarks.processes import Process
from benchmarks.raw_loop import PREFIX_BYTES, RawSettings, schema_of
from choreo.topology import names

PROJECT: Final = Path(__file__).parent / "project"
TOPOLOGY: Final = "payments"
SOURCE: Final = "payments"
PARTITIONS: Final = 4
AGENTS: Final = ("off_memory", "off_rocksdb", "brief_memory", "brief_rocksdb")
COMPACTED: Final = {"cleanup.policy": "compact"}


@dataclass(frozen=True)
class Contestant:
    """One way to do the job: a worker process and the topics it writes.

    Args:
        name: as figures call it.
        output, changelog: topics; one record per payment, and the newest row per account.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    output: str
    changelog: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> Process:
        return Process(self.name, self.command, self.folder, self.environment)


def raw_contestant(
    cluster: Cluster, folder: Path, ids: Mapping[str, int], name: str, *, source: str, partitions: int, **options: Any
) -> Contestant:
    """The raw loop, with topics of its own, which are made.

    Args:
        folder: where it runs.
        ids: schema ids by record name.
        name: of the contestant.
        source: topic it reads.
        partitions: of all its topics.
        options: fields of ``RawSettings``.
    """
    output, changelog = f"{name}.scored", f"{name}.changelog"
    cluster.create([output], partitions=partitions)
    cluster.create([changelog], partitions=partitions, settings=COMPACTED)
    settings = RawSettings(cluster.bootstrap, name, source, output, changelog, dict(ids), **options)
    return Contestant(
        name,
        (sys.executable, "-m", "benchmarks.raw_loop", json.dumps(asdict(settings))),
        folder,
        output=output,
        changelog=changelog,
        environment={"PYTHONPATH": str(REPOSITORY)},
    )


class Scoring:
    """The job, set up on one broker. ``choreo apply`` has made its topics."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        self.cluster = Cluster(bootstrap)
        self.folder = folder / "scoring"
        shutil.copytree(PROJECT, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        newest = prepare(self.folder, f"topologies/{TOPOLOGY}.yaml", {"CHOREO_BROKERS": bootstrap})
        self.ids = {
            "Payment": newest["payments-value"],
            "PaymentScored": newest["scored-off-memory-value"],
            "Account": newest[f"{names.changelog(TOPOLOGY, 'off_memory', 'accounts_off_memory')}-value"],
        }

    def choreo(self, agent: str) -> Contestant:
        """A worker started as users start it."""
        dashed = agent.replace("_", "-")
        return Contestant(
            f"choreo-{dashed}",
            (sys.executable, "-m", "faust", "-A", f"agents.{agent}", "worker", "-l", "info", "--without-web"),
            self.folder,
            output=f"scored-{dashed}",
            changelog=names.changelog(TOPOLOGY, agent, f"accounts_{agent}"),
            environment={"CHOREO_BROKERS": self.bootstrap, "CHOREO_INSTANCE": "bench"},
        )

    def rows(self, contestant: Contestant) -> dict[str, dict[str, Any]]:
        """The newest committed row of each account. The same input must have led all contestants to the same rows."""
        parsed: Any = schema_of("Account")
        newest: dict[str, dict[str, Any]] = {}
        for message in self.cluster.read(contestant.changelog, dict.fromkeys(range(PARTITIONS), 0)):
            row: Any = schemaless_reader(BytesIO(message.value()[PREFIX_BYTES:]), parsed, None)
            newest[row["account"]] = row
        return newest

    def raw(self, name: str, *, source: str = SOURCE, **options: Any) -> Contestant:
        """The raw loop, with topics of its own.

        Args:
            name: of the contestant.
            source: topic it reads.
            options: fields of ``RawSettings``.
        """
        return raw_contestant(
            self.cluster, self.folder, self.ids, name, source=source, partitions=PARTITIONS, **options
        )
