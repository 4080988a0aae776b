"""A small process above the forkserver: it ends what is left of a worker, of the forkserver, or of the whole run.

A process that is killed cleans up nothing, and what it had started belongs to nobody. So the guard stands between the
coordinator and the forkserver and adopts whatever loses its parent. An adopted process is a dead worker's, because a
living worker adopts its own, and is ended. When the coordinator or the forkserver ends, everything below the guard
is ended. When the guard itself is killed, the forkserver does that in its place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

import psutil

from verifier.engine.descendants import (
    adopt_orphans,
    kill,
    kill_descendants,
    list_children,
    list_descendants,
    signal_when_parent_ends,
)

# Nobody tells the guard that it has adopted a process, nor that its own parent is gone: it looks, for microseconds.
_LOOK_SECONDS = 0.1
_AGAIN_SECONDS = 0.01  # between two looks at a process that is ending
# A process that is killed is gone at once, unless it waits for a disk or has gigabytes to give back.
_KILL_SECONDS = 4.0

_END = signal.SIGTERM
_HEARD = (_END, signal.SIGCHLD)


def guard_from_above(owner: int) -> None:
    """Fork: the child returns, and goes on as the forkserver; this process guards it, and ends with it.

    Where the system cannot have orphans adopted nothing is done.

    Args:
        owner: the id of the coordinator, whose child this process is.
    """
    if not adopt_orphans():
        return
    with contextlib.suppress(PermissionError):  # it leads its group already
        os.setsid()  # the terminal's signals, to the whole group, are the coordinator's to answer
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    guard = os.getpid()
    server = os.fork()
    if server:
        _guard(server, owner)

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == server:  # a worker that has just been forked has this handler too, for a moment
            adopt_orphans()
            kill_descendants(_KILL_SECONDS)
        os._exit(1)

    server = os.getpid()
    signal.signal(_END, end)
    signal_when_parent_ends(_END)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if os.getppid() != guard:
        os._exit(1)


def end_guarded(process: int) -> None:
    """End a forkserver, given the id by which the coordinator knows it, with everything below it; it is not reaped.

    Raises:
        ProcessLookupError, ChildProcessError: it has ended and was reaped.
    """
    if sys.platform == "linux":  # where there is a guard
        os.kill(process, _END)
        until = time.monotonic() + _KILL_SECONDS
        while time.monotonic() < until:
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                return
            time.sleep(_AGAIN_SECONDS)
    os.kill(process, signal.SIGKILL)
    if hasattr(os, "waitid"):  # so that the next start finds it dead
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)


def _guard(server: int, owner: int) -> NoReturn:
    status = 1
    try:
        for first, end in ((0, 1), (3, os.sysconf("SC_OPEN_MAX"))):
            os.closerange(first, end)  # whoever waits for the end of a pipe does not wait for the guard
        status = _watch(server, owner)
    finally:
        kill_descendants(_KILL_SECONDS)
        os._exit(status)


def _watch(server: int, owner: int) -> int:
    """End what is adopted until the forkserver or the coordinator ends, or an end is asked for; the exit status."""
    while os.getppid() == owner:
        heard = signal.sigtimedwait(_HEARD, _LOOK_SECONDS)
        if heard is not None and heard.si_signo == _END:
            return 0
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == server:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if not process:
                break
        for orphan in list_children(os.getpid()) - {server}:
            with contextlib.suppress(psutil.NoSuchProcess):
                kill([psutil.Process(orphan), *list_descendants(orphan)])
    return 0
