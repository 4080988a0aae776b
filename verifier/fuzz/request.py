"""The request of a fuzzing campaign."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from verifier.engine.plan import Plan
from verifier.fuzz.fields import Space
from verifier.record.fuzz_finding import StoredFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignRequest:
    """Everything that a campaign is asked for.

    Attributes:
        space: what varies.
        plan: the plan that workers are started with, and failures are diagnosed with; it has no cases.
        workers: the number of processes.
        seconds: how long the campaign goes on; None for no limit.
        most: how many cases it runs, not counting those of shrinking; None for no limit.
        kept: the failures that earlier campaigns kept.
        choices: the folder with the minimal choices of earlier campaigns; None for no such folder.
    """

    space: Space
    plan: Plan
    workers: int = 1
    seconds: float | None = None
    most: int | None = None
    kept: tuple[StoredFailure, ...] = ()
    choices: Path | None = None
