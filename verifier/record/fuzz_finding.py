"""What a fuzzing campaign found, and how far it is, as plain values."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from verifier.cases.spec import CaseSpec
from verifier.judging.outcome import Verdict
from verifier.output import text


@dataclass(frozen=True, slots=True, kw_only=True)
class PassingNeighbour:
    """A neighbour of a minimal case: one field is the plainest there, and the check does not fail like that."""

    field: str
    value: Any
    case: str
    verdict: Verdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrunkFailure:
    """A distinct failure at its minimal case.

    Attributes:
        fingerprint: which one.
        check: that saw it.
        case: the id of its minimal case.
        differs: the fields of that which are not the plainest.
        first: after how many cases of the campaign it was met.
        calls: how many cases shrinking took.
        again: how often it came again of how many times the minimal case was run in fresh processes.
        neighbours: cases one field away that do not fail like that.
        cut: whether the campaign's time was up before shrinking came to its end.
    """

    fingerprint: str
    check: str
    case: str
    differs: Mapping[str, Any]
    first: int
    calls: int
    again: tuple[int, int]
    neighbours: tuple[PassingNeighbour, ...]
    cut: bool = False

    @property
    def stable(self) -> bool:
        """Whether the failure came again each time."""
        return self.again[0] == self.again[1]


# --- while it goes on ------------------------------------------------------------------------------------------------


class ShrinkStatus(enum.StrEnum):
    """What became of a failure that an earlier campaign kept."""

    STILL = "still failing"
    CHANGED = "changed"
    FIXED = "fixed"
    UNSEEN = "not looked at"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFailure:
    """A failure of an earlier campaign.

    Attributes:
        fingerprint: which one.
        check: that saw it.
        spec: its minimal case.
        differs: the fields of that which are not the plainest.
    """

    fingerprint: str
    check: str
    spec: CaseSpec
    differs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignProgress:
    """How far a campaign is.

    Attributes:
        phase: what it is at.
        cases: how many it has run, those of shrinking aside.
        refused: how many of them HF refuses.
        shrinking: how many cases shrinking took.
        found: how many distinct failures there are.
        pairs: how many pairs of values have met in valid cases, of how many that can.
        seconds: since it began.
    """

    phase: str
    cases: int
    refused: int
    shrinking: int
    found: int
    pairs: tuple[int, int]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedFailure:
    """A failure of an earlier campaign was run again."""

    kept: StoredFailure
    status: ShrinkStatus


def describe_passing_neighbours(found: ShrunkFailure | None) -> str | None:
    """`with alibi=false; with num_kv_heads=none`: what of a minimal case is enough to undo, each alone."""
    if found is None or not found.neighbours:
        return None
    return "; ".join(f"with {text.line(one.field, 80)}={text.value(one.value)}" for one in found.neighbours)
