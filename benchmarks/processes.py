"""Run programs, and measure how long they run and how much memory and CPU time their process tree uses."""

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

VERIFIER = (sys.executable, "-P", "-m", "verifier")  # -P: a `verifier.py` in the current folder is not run
MEASURED = (0, 1, 4)  # the exit statuses of a complete run: it conforms, it does not, it is inconclusive

_POLL_SECONDS = 0.01
_LOOK_SECONDS = 0.25  # between two measurements of the memory, each of which takes the kernel milliseconds
_GRACE_SECONDS = 5.0  # in which a run that is asked to end writes the last of its record


class Failed(Exception):
    """A program could not be started, or ended with an exit status that leaves nothing to measure."""


@dataclass(slots=True, kw_only=True)
class Usage:
    """What a program and all its children used.

    Attributes:
        seconds: from its start to its end, by the wall clock.
        bytes: the most memory that was measured; pages that processes share count once.
        cpu: seconds of CPU time by process id, as last measured.
    """

    seconds: float = 0.0
    bytes: int = 0
    cpu: dict[int, float] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of all processes together."""
        return sum(self.cpu.values())

    def measure(self, process: int) -> None:
        """Measure what the processes of a tree use now; `process` is the id of its root."""
        total = 0
        for one in process_tree(process):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = one.cpu_times()
                self.cpu[one.pid] = times.user + times.system
                total += memory(one)
        self.bytes = max(self.bytes, total)


def process_tree(process: int) -> list[psutil.Process]:
    """List a process and all its descendants; none if it has ended."""
    try:
        root = psutil.Process(process)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def marked(mark: str) -> dict[int, str]:
    """Find the living processes whose command line, or a variable of whose environment, contains the mark.

    Returns:
        Their command lines by their ids.
    """
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            command = " ".join(process.cmdline())
            if any(mark in text for text in (command, *process.environ().values())):
                found[process.pid] = command
    return found


def memory(process: psutil.Process) -> int:
    """Measure the memory of a process in bytes; of shared pages its share counts, if the system tells it."""
    found = process.memory_full_info()
    return int(getattr(found, "pss", found.uss))


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    statuses: Sequence[int] = MEASURED,
    until: Callable[[], bool] = lambda: False,
    output: Path | None = None,
) -> Usage:
    """Run a program to its end, or until something has happened.

    Args:
        command: the program and its arguments.
        environment: environment variables in addition to those of this process.
        statuses: the exit statuses of a program that did its work.
        until: is called again and again; when it returns true, the program is ended, and its status does not matter.
        output: the file that its output is written to; it is dropped if not given.

    Raises:
        Failed: the program cannot be started, or ends with another status.
    """
    usage, next_look, stopped = Usage(), 0.0, False
    with (
        tempfile.TemporaryFile() as errors,
        (output or Path(os.devnull)).open("wb") as said,
        _started(command, environment, said.fileno(), errors.fileno()) as (child, began),
    ):
        while child.poll() is None and not (stopped := until()):
            if time.perf_counter() >= next_look:
                usage.measure(child.pid)
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
    command: Sequence[str], environment: Mapping[str, str] | None, output: int, errors: int
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Start a program in a process group of its own, with the time of its start, and end the group after the block."""
    began = time.perf_counter()
    try:
        child = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
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
    """Whether a record that is being written has its first outcome."""
    return record.exists() and re.search(rb'"kind": ?"outcome"', record.read_bytes()) is not None
