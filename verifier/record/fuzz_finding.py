"""What a fuzzing campaign found, and how far it has come, as plain values."""

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
        fingerprint: the failure's.
        check: the check that saw it.
        case: the id of its minimal case.
        differs: the fields of the minimal case that are not the plainest.
        first: the number of cases of the campaign after which it was met; 0 where it was kept from before.
        calls: the number of cases that shrinking took.
        again: how often it came again, and how often the minimal case was run again in fresh processes.
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

    @property
    def passing_words(self) -> str | None:
        """The changes of the minimal case each of which makes it pass: `with alibi=false; with num_kv_heads=none`."""
        changes = (f"with {text.line(one.field, 80)}={text.value(one.value)}" for one in self.neighbours)
        return "; ".join(changes) or None


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
        fingerprint: the failure's.
        check: the check that saw it.
        spec: its minimal case.
        differs: the fields of the minimal case that are not the plainest.
    """

    fingerprint: str
    check: str
    spec: CaseSpec
    differs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignProgress:
    """How far a campaign has come.

    Attributes:
        phase: what it does now.
        cases: the number of cases that it has run, without those of shrinking.
        refused: the number of these cases that Hugging Face refuses.
        shrinking: the number of cases that shrinking took.
        found: the number of distinct failures.
        pairs: the number of pairs of values that have met in valid cases, and of those that can.
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
    """What became of a failure of an earlier campaign, which was run again."""

    kept: StoredFailure
    status: ShrinkStatus
