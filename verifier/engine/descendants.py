"""What a process has started, in whatever session or group: adopt it, list it, and end it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

# Of Linux's prctl.
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36

# A process that is being killed may just have started another one.
_AGAIN_SECONDS = 0.01


def adopt_orphans(adopts: bool = True) -> bool:
    """Become the parent of each descendant whose own parent ends; without that the system's first process does.

    Args:
        adopts: whether this process adopts from now on.

    Returns:
        Whether the system can do it; Linux can.
    """
    return _prctl(_SET_CHILD_SUBREAPER, int(adopts))


def signal_when_parent_ends(number: int) -> bool:
    """Have the system send this process a signal when its parent ends, and say whether the system can do it."""
    return _prctl(_SET_PDEATHSIG, number)


def list_children(process: int) -> set[int]:
    """List the ids of the children of a process, dead ones included.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    try:
        files = [file.read_text() for file in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:  # one of its threads has ended meanwhile
        files = []
    if files:
        return {int(child) for text in files for child in text.split()}
    return {child.pid for child in psutil.Process(process).children()}  # which looks at all processes of the machine


def list_descendants(process: int) -> list[psutil.Process]:
    """List the processes below a process that run, or are stopped.

    Of a process that has ended nothing is listed. Where the system adopts no orphans for us (not Linux), neither are
    those whose parent has ended.
    """
    try:
        if not list_children(process):
            return []
        return [one for one in psutil.Process(process).children(recursive=True) if _is_alive(one)]
    except psutil.NoSuchProcess:
        return []


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes; one that has ended, or that another user owns by now, is left alone."""
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            one.kill()


def kill_descendants(seconds: float) -> None:
    """Kill and reap everything below this process, until it has no child.

    Args:
        seconds: how long that may take: the system may hold on to one that waits for a disk.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        kill(list_descendants(os.getpid()))
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_AGAIN_SECONDS)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    nothing = ctypes.c_ulong(0)
    return bool(ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), nothing, nothing, nothing) == 0)
