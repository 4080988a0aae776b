"""The request for a fuzzing campaign."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from verifier.engine.plan import Plan
from verifier.fuzz.fields import Space
from verifier.record.fuzz_finding import StoredFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignRequest:
    """What is asked of a campaign.

    Attributes:
        space: what varies.
        plan: what workers are started with, and failures are diagnosed with; it has no case yet.
        workers: processes.
        seconds: how long it goes on; None for no limit.
        most: how many cases it runs, those of shrinking aside; None for no limit.
        kept: failures of earlier campaigns.
        choices: the folder in which shrinking finds what it ended with in earlier ones; None for no such folder.
    """

    space: Space
    plan: Plan
    workers: int = 1
    seconds: float | None = None
    most: int | None = None
    kept: tuple[StoredFailure, ...] = ()
    choices: Path | None = None
