"""What became of a failure when it was run again alone, as plain values."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Alone(enum.StrEnum):
    """How a failure's check ended when it ran alone in a fresh process."""

    FAILS = "fails"
    """In the same way."""
    DIFFERS = "fails differently"
    """In another way, or another check fails from which this one follows."""
    PASSES = "passes"
    NOT_TRIED = "not tried"
    """There was no time, or no other process to try it in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """A failure's check was run once more on its smallest case, alone in a fresh process.

    Attributes:
        fingerprint: the failure's.
        case: the id of its smallest case.
        alone: how the check ended there.
        narrowed: whether the case had the plainest circumstance of the failure alone, and not all that it was dealt.
    """

    fingerprint: str
    case: str
    alone: Alone
    narrowed: bool = False

    @property
    def caveat(self) -> str | None:
        """What a reader must know who runs the failure again, as the end of `alone …`; None for nothing."""
        words = {Alone.PASSES: "passes", Alone.DIFFERS: "fails in another way"}.get(self.alone)
        return words and f"in a fresh process it {words}: what ran before it in the same process matters"
