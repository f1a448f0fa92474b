"""TCP ports on the loopback interface: free ones, busy ones, and who is on them."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Final

from choreo.errors import HostError

LOOPBACK: Final = "127.0.0.1"
# Below the range from which systems take the local ports of outgoing connections (32768 and up on Linux). A port from
# that range may be taken by any client while the broker is down, even by a client that is trying to reach the broker:
# TCP lets a socket connect to itself. A broker that must come back on its port would then find it busy.
FREE_PORTS: Final = range(20_000, 32_000)
FREE_PORT_ATTEMPTS: Final = 200  # each is a bind that takes microseconds; 200 failures mean something else is wrong


def is_free(port: int) -> bool:
    """True if a server could listen on that port of the loopback interface now."""
    return _refusal(port) is None


def _refusal(port: int) -> int | None:
    """Error number with which the system refuses to let us listen there, None if it lets us."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As Java does on POSIX: connections of an earlier run that linger in TIME_WAIT don't make the port busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return error.errno
            raise
    return None


def free_port(*, other_than: Collection[int] = ()) -> int:
    """A port that nobody listens on.

    Args:
        other_than: ports that are free but already promised to somebody.

    Raises:
        HostError: CH0802, if no free port was found.
    """
    choice = random.SystemRandom()
    for _ in range(FREE_PORT_ATTEMPTS):
        port = choice.choice(FREE_PORTS)
        if port not in other_than and is_free(port):
            return port
    raise HostError(
        f"no free port between {FREE_PORTS.start} and {FREE_PORTS.stop} after {FREE_PORT_ATTEMPTS} attempts",
        code="CH0802",
        hint="choose --port",
    )


def require_free(port: int) -> None:
    """Raise unless a server could listen on that port.

    Raises:
        HostError: CH0802, naming the process that has the port if the system tells.
    """
    refusal = _refusal(port)
    if refusal is None:
        return
    if refusal == errno.EACCES:
        raise HostError(
            f"port {port} may not be used by this user, expected a free port above 1023",
            code="CH0802",
            hint="choose --port",
            fault="user",
        )
    raise HostError(
        f"port {port} is in use by {owner(port) or 'another process'}, expected free",
        code="CH0802",
        hint="choose --port",
    )


def owner(port: int) -> str | None:
    """The process that listens on a port as ``name (pid 123)``; None if unknown (another user's, or not Linux)."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    targets = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _has_open(process, targets):
            return f"{_name(process)} (pid {process.name})"
    return None


def _listening_inodes(port: int) -> set[str]:
    """Socket inodes in state LISTEN on a port, from the tables of proc(5)."""
    listening = "0A"
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text("ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == listening and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes


def _has_open(process: Path, targets: set[str]) -> bool:
    """True if one of the process's descriptors is one of those sockets."""
    try:
        return any(str(descriptor.readlink()) in targets for descriptor in (process / "fd").iterdir())
    except OSError:  # the process ended meanwhile, or belongs to another user: not ours to name
        return False


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text("utf-8").strip() or "a process"
    except OSError:  # ended between the two looks
        return "a process"
