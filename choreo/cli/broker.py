"""`choreo broker`: run a real Apache Kafka on this machine, no Docker needed."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from choreo.cli._output import console, emit_json, json_option

if TYPE_CHECKING:
    from choreo.runtime.broker import EmbeddedBroker, EmbeddedCluster, Node, Progress

DATA: Final = Path(".choreo", "kafka")
CLUSTER_DATA: Final = Path(".choreo", "kafka-cluster")
SIZES: Final = ("1", "3", "5")
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_EVERY_S: Final = 0.25
"""How soon it is seen that a node ended."""


class _Stopped(BaseException):
    """Somebody asked the command to end."""


@click.command("broker")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=9092,
    show_default=True,
    help="Port for clients, of a cluster's first node (the others follow it); 0: any free one.",
)
@click.option(
    "--nodes",
    type=click.Choice(SIZES),
    default="1",
    show_default=True,
    help="1: a broker. 3 or 5: a cluster with three copies of everything; a node that dies is started again.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"Where topics are kept. Default: {DATA} in the project, {CLUSTER_DATA} for a cluster.",
)
@click.option("--ephemeral", is_flag=True, help="Keep topics in a temporary directory and delete it at the end.")
@json_option
def command(port: int, nodes: str, data: Path | None, ephemeral: bool, as_json: bool) -> None:
    """Run a real Apache Kafka in the foreground, for this machine only.

    The first start downloads Kafka (about 45 MB); later ones need no network. When the broker answers, its address is
    printed on stdout. Ctrl-C stops it.
    """
    if ephemeral and data is not None:
        raise click.UsageError("--ephemeral and --data exclude each other")
    count = int(nodes)
    if port + count - 1 > 65_535:
        raise click.UsageError(f"{count} nodes need ports {port} to {port + count - 1}; the last port is 65535")
    from choreo.runtime.broker import KAFKA_VERSION, terminal_progress

    default = DATA if count == 1 else CLUSTER_DATA
    directory = None if ephemeral else data or project_root(Path.cwd()) / default
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    kafka: EmbeddedBroker | EmbeddedCluster | None = None
    try:
        with terminal_progress() as progress:
            kafka = _made(count, port or None, directory, progress)
            kafka.start()
        if as_json:
            emit_json(
                {
                    "bootstrap": kafka.bootstrap,
                    **_processes(kafka),
                    "kafka": KAFKA_VERSION,
                    "cluster_id": kafka.cluster_id,
                    "data": None if directory is None else str(directory.absolute()),
                }
            )
        else:
            click.echo(kafka.bootstrap)
            kept = "nothing is kept" if directory is None else f"data in {directory.absolute()}"
            console().print(f"Apache Kafka {KAFKA_VERSION} answers; {kept}. Ctrl-C stops it.")
        _watch(kafka)
    except _Stopped:
        console().print("stopping")
    finally:
        # A second Ctrl-C must not cut the clean stop short; it is bounded anyway.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if kafka is not None:
            kafka.stop()


def _made(count: int, port: int | None, directory: Path | None, progress: Progress) -> EmbeddedBroker | EmbeddedCluster:
    from choreo.runtime.broker import EmbeddedBroker, EmbeddedCluster

    if count == 1:
        return EmbeddedBroker(port, directory, progress=progress)
    return EmbeddedCluster(count, port, directory, progress=progress)


def _processes(kafka: EmbeddedBroker | EmbeddedCluster) -> Mapping[str, Any]:
    """What a program that wants to hurt Kafka needs to know."""
    from choreo.runtime.broker import EmbeddedBroker

    if isinstance(kafka, EmbeddedBroker):
        return {"pid": kafka.pid}
    return {"nodes": [{"id": node.id, "port": node.port, "pid": node.pid} for node in kafka.nodes]}


def _watch(kafka: EmbeddedBroker | EmbeddedCluster) -> NoReturn:
    """Stays until somebody stops the command, or until Kafka ends for good.

    Raises:
        HostError: CH0803, the only broker ended, or a node that ended could not be started again.
    """
    from choreo.runtime.broker import EmbeddedBroker

    while True:
        if isinstance(kafka, EmbeddedBroker):
            kafka.wait()
            continue
        for node in kafka.nodes:
            if not node.running:
                _start_again(node)
        time.sleep(LOOK_EVERY_S)


def _start_again(node: Node) -> None:
    # said in a log too, unlike notes for somebody who watches
    click.echo(f"node {node.id} ended with exit code {node.exit_code}; starting it again", err=True)
    node.start()
    click.echo(f"node {node.id} answers on {node.bootstrap} (pid {node.pid})", err=True)


def project_root(start: Path) -> Path:
    """The directory with ``topologies/`` at or above a directory; the directory itself if there is none."""
    return next((folder for folder in (start, *start.parents) if (folder / "topologies").is_dir()), start)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped
