"""A small process between choreo and the JVM: the broker never outlives whoever started it, however that one ended.

Run as a script in isolated mode, so it imports the standard library only and starts in some 30 ms:

    python -I -S guardian.py PARENT GRACE_S REMOVE -- java …

It starts the JVM, writes the JVM's process id on stdout, and waits. When the JVM ends, it ends with the same exit code.
When its own parent ends first (normally, by an exception or by ``kill -9``), it stops the JVM (SIGTERM, after GRACE_S
seconds SIGKILL; at once if GRACE_S is 0) and deletes the directory REMOVE, if one is named. When it is itself killed,
Linux kills the JVM.

Why not PR_SET_PDEATHSIG on the JVM alone: Linux ties that signal to the *thread* that forked, so a broker that a worker
thread started would die with that thread. Why not only a pipe: processes that the parent forks keep its end open.
Asking for the parent's id four times a second has neither fault.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from types import FrameType

POLL_S = 0.25  # how late the end of the parent may be noticed
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_guardian(guardian: int) -> None:
    """Runs in the child between fork and exec: ask Linux to kill it when the guardian dies."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guardian:
            os._exit(1)


def wait(child: subprocess.Popen[bytes], parent: int) -> bool:
    """Wait until the child ends (True) or the parent is gone (False)."""
    with contextlib.ExitStack() as stack:
        ended = select.poll() if hasattr(os, "pidfd_open") else None
        if ended is not None:
            descriptor = os.pidfd_open(child.pid)
            stack.callback(os.close, descriptor)
            ended.register(descriptor, select.POLLIN)
        while child.poll() is None:
            if os.getppid() != parent:
                return False
            if ended is not None:
                ended.poll(POLL_S * 1000)
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(POLL_S)
    return True


def end(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Stop the child: politely if there is time for that, then for certain."""
    if grace_s > 0:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
    if child.poll() is None:
        child.kill()
        child.wait()


def main(arguments: list[str]) -> int:
    """Guard one JVM; see the module's text for the arguments."""
    parent, grace_s, remove = int(arguments[0]), float(arguments[1]), arguments[2]
    command = arguments[arguments.index("--") + 1 :]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guardian = os.getpid()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,  # stdout is for the process id; what the JVM says goes to the log
        stderr=2,
        preexec_fn=lambda: die_with_guardian(guardian),  # safe here: this process has one thread
    ) as child:

        def pass_on(number: int, frame: FrameType | None) -> None:
            child.terminate()

        signal.signal(signal.SIGTERM, pass_on)
        try:
            os.write(1, b"%d\n" % child.pid)
            os.close(1)
        except BrokenPipeError:
            end(child, 0)  # nobody is waiting for the answer any more: the parent died meanwhile
        if wait(child, parent):
            return child.returncode if child.returncode >= 0 else 128 - child.returncode
        end(child, grace_s)
    if remove:
        shutil.rmtree(remove, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
