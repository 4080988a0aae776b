"""The whole matrix in a run of its own, as a user starts it, watched from outside."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verifier import record
from verifier.bench import children
from verifier.bench.processes import Taken, Watch
from verifier.bench.startup import FirstOutcome
from verifier.engine.environment import usable_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What a run took.

    Attributes:
        seconds: from the start of its process to the end.
        first_outcome: from there until its first outcome was in the record; None where it had none.
        status: its exit status.
        valid: its cases that HF accepts.
        refused: its cases that HF refuses.
        outcomes: how many of each verdict.
        workers: its processes.
        cores: those that they can use at the same time.
        taken: memory and CPU time of all its processes.
    """

    seconds: float
    first_outcome: float | None
    status: int
    valid: int
    refused: int
    outcomes: Mapping[str, int]
    workers: int
    cores: int
    taken: Taken

    @property
    def rate(self) -> float:
        """Cases per second and core."""
        return (self.valid + self.refused) / self.seconds / self.cores


def run(family: str, arguments: Sequence[str]) -> Whole:
    """Run the family with these arguments of the command line.

    Raises:
        VerifierError: the run could not be done.
    """
    with tempfile.TemporaryDirectory(prefix="verifier-bench-") as folder:
        path = Path(folder, record.FILE)
        first, watch = FirstOutcome(path, time.perf_counter()), Watch()

        def look(child: subprocess.Popen[bytes]) -> None:
            first.look(time.perf_counter())
            watch.look(child.pid)

        # Known failures would be run twice, and it is the whole matrix of the sample's seed.
        plain = ["--no-baseline", "--seed", "0", "--out", folder]
        ended = children.verifier(["run", family, *arguments, *plain], look=look)
        return _seen(record.read(path), ended, first.seconds, watch.seen)


def _seen(found: record.Record, ended: children.Ended, first: float | None, taken: Taken) -> Whole:
    valid = sum(spec.valid for spec in found.cases.values())
    return Whole(
        seconds=ended.seconds,
        first_outcome=first,
        status=ended.status,
        valid=valid,
        refused=len(found.cases) - valid,
        outcomes=dict(Counter(str(entry.outcome.verdict) for entry in found.entries)),
        workers=found.run.workers,
        cores=min(found.run.workers, usable_cores()),
        taken=taken,
    )
