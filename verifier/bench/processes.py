"""What a process takes with all that it started, in memory and CPU time, as the system tells it (Linux alone does)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc")
_SECONDS_BETWEEN = 0.25
# Asking a process with much memory takes the kernel milliseconds; no more than this share of a core goes into it.
_MOST_OF_A_CORE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The most that was seen of a process tree; None of what the system does not say.

    Attributes:
        memory: bytes of all its processes together, where what several share counts once (PSS).
        largest: bytes that the largest of them ever had resident, shared or not.
        cpu: seconds of the processor of all of them, but for what came after the last look.
        looks: how often was looked.
    """

    memory: int | None = None
    largest: int | None = None
    cpu: float | None = None
    looks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process as it is now.

    Attributes:
        number: its own.
        parent: its parent's.
        session: that of the process that began its session.
        ticks: of the processor, by now.
    """

    number: int
    parent: int
    session: int
    ticks: int


@dataclass(slots=True, kw_only=True)
class Watch:
    """Looks at the tree of a process, a few times a second at most."""

    seen: Taken = field(default_factory=Taken)
    _ticks: dict[int, int] = field(default_factory=dict)
    _next: float = 0.0

    def look(self, root: int) -> None:
        """Look at it, if it is time."""
        began = time.perf_counter()
        if began < self._next:
            return
        found = tree(root)
        self._ticks |= {process.number: process.ticks for process in found}
        sizes = [size for process in found if (size := shared_out(process.number)) is not None]
        peaks = [peak for process in found if (peak := most_resident(process.number)) is not None]
        if found:
            self.seen = Taken(
                memory=max([self.seen.memory or 0, sum(sizes)]) if sizes else self.seen.memory,
                largest=max([self.seen.largest or 0, *peaks]) if peaks else self.seen.largest,
                cpu=sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK"),
                looks=self.seen.looks + 1,
            )
        now = time.perf_counter()
        self._next = now + max(_SECONDS_BETWEEN, (now - began) / _MOST_OF_A_CORE)


def tree(root: int) -> list[Process]:
    """The process, what descends from it, and what is of its session, whose parent may have gone before."""
    children: dict[int, list[Process]] = {}
    found = []
    for process in _processes():
        children.setdefault(process.parent, []).append(process)
        if root in (process.number, process.session):
            found.append(process)
    for process in found:  # grows while it is walked
        found += [child for child in children.get(process.number, []) if child not in found]
    return found


def _processes() -> Iterator[Process]:
    """Every process there is (proc_pid_stat(5))."""
    for folder in _PROC.glob("[0-9]*"):
        try:
            # What stands before is its name, in brackets, which may hold anything.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        yield Process(
            number=int(folder.name),
            parent=int(fields[1]),
            session=int(fields[3]),
            ticks=int(fields[11]) + int(fields[12]),
        )


def shared_out(process: int) -> int | None:
    """The bytes of its memory, of what it shares with others its share; None where it is gone or nobody says."""
    return _bytes(process, "smaps_rollup", "Pss:")


def most_resident(process: int) -> int | None:
    """The most bytes that it ever had resident; None where it is gone or nobody says."""
    return _bytes(process, "status", "VmHWM:")


def _bytes(process: int, file: str, name: str) -> int | None:
    try:
        lines = (_PROC / str(process) / file).read_text().splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith(name)]
    return kilobytes[0] * 1024 if kilobytes else None
