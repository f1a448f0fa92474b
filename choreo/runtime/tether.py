"""Runs a command that ends when its parent ends, however that ends (Linux; elsewhere it only runs it).

    python -I -S tether.py PARENT_PID COMMAND ARGUMENT…

A supervisor that is killed with ``kill -9`` cannot stop its workers; they would go on holding partitions. The kernel
can: it sends SIGTERM when the parent dies (``PR_SET_PDEATHSIG``, kept across ``exec``). Setting it in a wrapper instead
of a ``preexec_fn`` keeps Python code out of the moment between fork and exec, which is not safe beside threads.

Source: prctl(2).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Tie this process to its parent, then become the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(128 + signal.SIGTERM)  # it died before we could ask
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
