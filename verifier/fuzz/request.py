"""The request for a fuzzing campaign."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from verifier.engine.limits import Limits
from verifier.engine.plan import Plan
from verifier.fuzz.fields import Space
from verifier.record.fuzz_finding import StoredFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignRequest:
    """What is asked of a campaign.

    Attributes:
        space: what varies.
        adapter: reference of the adapter under test.
        only: globs that select checks; all where there is none.
        limits: what one case may take.
        workers: processes.
        seconds: how long it goes on; None for no limit.
        most: how many cases it runs, those of shrinking aside; None for no limit.
        kept: failures of earlier campaigns.
        choices: the folder in which shrinking finds what it ended with in earlier ones; None for no such folder.
    """

    space: Space
    adapter: str
    only: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    workers: int = 1
    seconds: float | None = None
    most: int | None = None
    kept: tuple[StoredFailure, ...] = ()
    choices: Path | None = None

    @property
    def plan(self) -> Plan:
        """What workers are started with, and failures are diagnosed with; it has no case yet."""
        return Plan(
            family=self.space.reference,
            adapter=self.adapter,
            specs=(),
            only=self.only,
            device=self.space.device,
            limits=self.limits,
        )
