"""A fuzzing campaign in a run of its own: how many cases it gets through."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verifier import record
from verifier.bench import children
from verifier.engine.environment import usable_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzed:
    """What a campaign got through.

    Attributes:
        seconds: that it took, without loading.
        valid: cases that HF accepts, those of shrinking among them.
        refused: cases that HF refuses.
        found: distinct failures, each of which is shrunk.
        cores: that its processes could use at the same time.
    """

    seconds: float
    valid: int
    refused: int
    found: int
    cores: int

    @property
    def rate(self) -> float:
        """Cases per second and core."""
        return (self.valid + self.refused) / self.seconds / self.cores


def run(family: str, arguments: Sequence[str], cases: int) -> Fuzzed:
    """Fuzz the family for so many cases, with these arguments of the command line.

    Raises:
        VerifierError: the campaign could not be run.
    """
    with tempfile.TemporaryDirectory(prefix="verifier-bench-") as folder:
        children.verifier(["fuzz", family, *arguments, "--max-examples", str(cases), "--out", folder])
        found = record.read(Path(folder, record.FILE))
    valid = sum(spec.valid for spec in found.cases.values())
    return Fuzzed(
        seconds=found.end.seconds if found.end else 0.0,
        valid=valid,
        refused=len(found.cases) - valid,
        found=len(found.found),
        cores=min(found.run.workers, usable_cores()),
    )
