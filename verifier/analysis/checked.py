"""How each check fared over all cases: for reports that have a line for a check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from verifier.judging.outcome import Verdict
from verifier.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A check that was selected.

    Attributes:
        check: its id.
        counts: its outcomes by verdict; empty where no case was for it.
        reasons: why it did not run, and how often, the most frequent first.
        seconds: what it took, with what it was the first to ask for.
    """

    check: str
    counts: Mapping[Verdict, int]
    reasons: tuple[tuple[str, int], ...]
    seconds: float

    @property
    def area(self) -> str:
        return self.check.partition(".")[0]

    @property
    def looked(self) -> int:
        """On how many cases it looked."""
        return sum(count for verdict, count in self.counts.items() if verdict is not Verdict.SKIP)

    @property
    def skipped(self) -> int:
        """On how many it did not."""
        return self.counts.get(Verdict.SKIP, 0)


def checked(record: Record) -> tuple[Checked, ...]:
    """Every check of the record, in the order in which they ran."""
    counts: dict[str, Counter[Verdict]] = {check["id"]: Counter() for check in record.run.checks}
    reasons: dict[str, Counter[str]] = {}
    seconds: dict[str, float] = {}
    for entry in record.entries:
        outcome = entry.outcome
        counts.setdefault(outcome.check, Counter())[outcome.verdict] += 1
        seconds[outcome.check] = seconds.get(outcome.check, 0.0) + outcome.seconds
        if outcome.verdict is Verdict.SKIP:
            reasons.setdefault(outcome.check, Counter())[outcome.message or "no reason given"] += 1
    return tuple(
        Checked(
            check=check,
            counts={verdict: found[verdict] for verdict in Verdict if found[verdict]},
            reasons=tuple(sorted(reasons.get(check, Counter()).items(), key=lambda item: (-item[1], item[0]))),
            seconds=seconds.get(check, 0.0),
        )
        for check, found in counts.items()
    )
