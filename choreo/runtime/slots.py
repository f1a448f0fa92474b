"""Instance names of workers that were not given one, and notes about who runs where.

Static membership and transactional ids need a name that a restarted worker has again. A bare worker on a developer's
machine takes the lowest free *slot*: a file under ``.choreo/slots`` that it locks as long as it lives. The lock goes
with the process, so that the next one continues under the same name at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from choreo.errors import HostError

# Workers of one agent on one machine. More than this is a mistake (a restart loop that leaks processes).
SLOTS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class WorkerNote:
    """What ``choreo status`` needs to find a worker of this machine."""

    topology: str
    agent: str
    instance: str
    pid: int
    url: str | None


def machine_name(state_dir: Path) -> str:
    """Name of this machine and project, part of slot names: two machines on one cluster must not share a slot."""
    host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname()).strip("-").lower()[:40] or "host"
    return f"{host}-{zlib.crc32(os.fsencode(state_dir.resolve())) & 0xFFFF:04x}"


@contextmanager
def instance_slot(state_dir: Path, group: str) -> Iterator[str]:
    """The lowest free instance name of an agent on this machine, ours until the block ends.

    Args:
        state_dir: the project's state directory.
        group: the agent's consumer group.

    Raises:
        HostError: CH0804, every slot is taken or the directory cannot be written.
    """
    folder = state_dir / "slots"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(SLOTS_MAX):
        with (folder / f"{group}.{number}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield f"{machine_name(state_dir)}-{number}"
            return
    raise HostError(
        f"all {SLOTS_MAX} local slots of {group} are taken",
        where=str(folder),
        hint="stop workers that you no longer need, or name this one with CHOREO_INSTANCE",
    )


@contextmanager
def noted(state_dir: Path, note: WorkerNote) -> Iterator[None]:
    """Keep a note about this worker while the block runs, so that ``choreo status`` finds its pages."""
    folder = state_dir / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{note.topology}.{note.agent}.{note.instance}.json"
    file.write_text(json.dumps(asdict(note)), "utf-8")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def worker_notes(state_dir: Path, topology: str) -> list[WorkerNote]:
    """Workers of a topology that run on this machine; notes of processes that are gone are removed."""
    found = []
    for file in sorted((state_dir / "workers").glob(f"{topology}.*.json")):
        try:
            note = WorkerNote(**json.loads(file.read_text("utf-8")))
            os.kill(note.pid, 0)
        except (ValueError, TypeError, FileNotFoundError, ProcessLookupError):
            # half written, from another version, or left behind by a kill: it tells nothing
            file.unlink(missing_ok=True)
        except PermissionError:
            found.append(note)  # alive, and somebody else's
        else:
            found.append(note)
    return found
