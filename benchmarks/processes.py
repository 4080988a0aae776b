"""Programs that a benchmark starts: how long they run, and what memory and CPU time their process tree uses."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

VERIFIER = (sys.executable, "-P", "-m", "verifier")  # -P: whatever the current folder holds that has our name
MEASURED = (0, 1, 4)  # the statuses of a run that was done: it conforms, it does not, it is inconclusive

_POLL_SECONDS = 0.01
_LOOK_SECONDS = 0.25  # between two looks at the memory, each of which takes the kernel milliseconds
_GRACE_SECONDS = 5.0  # in which a run that is asked to end writes the last of its record


class Failed(Exception):
    """A program ended with a status that says that there is nothing to measure."""


@dataclass(slots=True, kw_only=True)
class Usage:
    """What a program used, with all its children.

    Attributes:
        seconds: from its start to its end, by the clock on the wall.
        bytes: the most memory at any look, where pages that processes share count once.
        cpu: seconds of CPU time by process, at the last look at each.
    """

    seconds: float = 0.0
    bytes: int = 0
    cpu: dict[int, float] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of all processes together."""
        return sum(self.cpu.values())

    def look(self, process: int) -> None:
        """Add what the processes of the tree use now."""
        total = 0
        for one in process_tree(process):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = one.cpu_times()
                self.cpu[one.pid] = times.user + times.system
                total += memory(one)
        self.bytes = max(self.bytes, total)


def process_tree(process: int) -> list[psutil.Process]:
    """The process and all that descend from it; nothing where it has ended."""
    try:
        root = psutil.Process(process)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory(process: psutil.Process) -> int:
    """The bytes of a process: of pages that it shares its share, where the system tells that (Linux does)."""
    found = process.memory_full_info()
    return int(getattr(found, "pss", found.uss))


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    statuses: Sequence[int] = MEASURED,
    until: Callable[[], bool] = lambda: False,
) -> Usage:
    """Run a program to its end, or until something has happened; what it prints is dropped.

    Args:
        command: the program and its arguments.
        environment: variables beside those of this process.
        statuses: those that say that the program did its work.
        until: asked again and again; when it says so the program is ended, and its status does not matter.

    Raises:
        Failed: the program cannot be started, or ends with another status.
    """
    usage, next_look, stopped = Usage(), 0.0, False
    with tempfile.TemporaryFile() as errors, _started(command, environment, errors.fileno()) as (child, began):
        while child.poll() is None and not (stopped := until()):
            if time.perf_counter() >= next_look:
                usage.look(child.pid)
                next_look = time.perf_counter() + _LOOK_SECONDS
            time.sleep(_POLL_SECONDS)
        usage.seconds = time.perf_counter() - began
        if not stopped and child.returncode not in statuses:
            errors.seek(0)
            last = errors.read().decode(errors="replace").split("\n")[-2:]
            raise Failed(f"`{' '.join(command)}` ended with status {child.returncode}: {' '.join(last).strip()}")
    return usage


@contextlib.contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str] | None, errors: int
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The program in a group of its own, and when it was started; the whole group is ended on the way out."""
    began = time.perf_counter()
    try:
        child = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    except OSError as error:
        raise Failed(f"`{' '.join(command)}` cannot be started: {error.strerror}") from error
    try:
        yield child, began
    finally:
        if child.poll() is None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def has_outcome(record: Path) -> bool:
    """Whether the first outcome is in a record that is being written."""
    return record.exists() and re.search(rb'"kind": ?"outcome"', record.read_bytes()) is not None
