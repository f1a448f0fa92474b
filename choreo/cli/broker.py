"""`choreo broker`: run a real Apache Kafka on this machine, no Docker needed."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import click

from choreo.cli._output import console, emit_json, json_option

DATA: Final = Path(".choreo", "kafka")
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stopped(BaseException):
    """Somebody asked the command to end."""


@click.command("broker")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=9092, show_default=True, help="Port for clients; 0: any free one."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"Where topics are kept. Default: {DATA} in the project.",
)
@click.option("--ephemeral", is_flag=True, help="Keep topics in a temporary directory and delete it at the end.")
@json_option
def command(port: int, data: Path | None, ephemeral: bool, as_json: bool) -> None:
    """Run a real Apache Kafka in the foreground, for this machine only.

    The first start downloads Kafka (about 45 MB); later ones need no network. When the broker answers, its address is
    printed on stdout. Ctrl-C stops it.
    """
    if ephemeral and data is not None:
        raise click.UsageError("--ephemeral and --data exclude each other")
    from choreo.runtime.broker import KAFKA_VERSION, EmbeddedBroker, terminal_progress

    directory = None if ephemeral else data or project_root(Path.cwd()) / DATA
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    broker: EmbeddedBroker | None = None
    try:
        with terminal_progress() as progress:
            broker = EmbeddedBroker(port or None, directory, progress=progress)
            broker.start()
        if as_json:
            emit_json(
                {
                    "bootstrap": broker.bootstrap,
                    "pid": broker.pid,
                    "kafka": KAFKA_VERSION,
                    "cluster_id": broker.cluster_id,
                    "data": None if directory is None else str(broker.data_dir),
                }
            )
        else:
            click.echo(broker.bootstrap)
            kept = "nothing is kept" if directory is None else f"data in {broker.data_dir}"
            console().print(f"Apache Kafka {KAFKA_VERSION} answers; {kept}. Ctrl-C stops it.")
        broker.wait()
    except _Stopped:
        console().print("stopping")
    finally:
        # A second Ctrl-C must not cut the clean stop short; it is bounded anyway.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if broker is not None:
            broker.stop()


def project_root(start: Path) -> Path:
    """The directory with ``topologies/`` at or above a directory; the directory itself if there is none."""
    return next((folder for folder in (start, *start.parents) if (folder / "topologies").is_dir()), start)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped
