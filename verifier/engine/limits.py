"""Limits of one case, in seconds and bytes, and the memory of a process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# A tiny case takes a second or two and some hundred megabytes, on a slow machine too.
TINY_SECONDS = 60.0
TINY_BYTES = 2 * 2**30
# Importing torch and transformers takes some seconds, from a cold disk some more.
LOADING_SECONDS = 120.0
# A published checkpoint's shape takes what it takes.
LARGE_SECONDS = 3600.0

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much time and memory one case may take; None where there is no limit.

    Attributes:
        seconds: how long a case may take, from the moment at which a worker gets it.
        bytes: how much resident memory a case may take, on top of what the worker had before.
        loading: how many seconds importing everything may take, before the first case.
    """

    seconds: float | None = None
    bytes: int | None = None
    loading: float | None = LOADING_SECONDS

    def with_asked(self, seconds: float | None, memory: int | None) -> Limits:
        """Replace the limits that were asked for.

        Args:
            seconds: of a case; 0 for no limit, None to keep this one. Importing may take as long, if it is longer.
            memory: of a case, in bytes; 0 for no limit, None to keep this one.
        """
        return Limits(
            seconds=self.seconds if seconds is None else seconds or None,
            bytes=self.bytes if memory is None else memory or None,
            loading=None if seconds == 0 else max(LOADING_SECONDS, seconds or 0.0),
        )


def default_limits(*, large: bool, workers: int) -> Limits:
    """Give the limits of a case that apply if none were asked for.

    Args:
        large: whether models are as wide as a published checkpoint.
        workers: how many processes share the memory.
    """
    if not large:
        return Limits(seconds=TINY_SECONDS, bytes=TINY_BYTES)
    there = free_memory()
    return Limits(seconds=LARGE_SECONDS, bytes=None if there is None else there // workers)


def resident_memory(process: int) -> int | None:
    """Measure the resident memory of a process, in bytes; None if it is gone, or if the system does not say."""
    try:
        with open(f"/proc/{process}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def free_memory() -> int | None:
    """Measure the memory that is free, in bytes, in the machine and the container; None if the system does not say."""
    try:
        (line,) = [line for line in _MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:")]
        machine = int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    try:
        return min(machine, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return machine
