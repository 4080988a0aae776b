"""What became of a record's failures in a later one: broken, changed, mended or no longer looked at; plain data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from verifier.analysis.case_changes import Difference, Side
from verifier.analysis.rules import Rule
from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus
from verifier.output import text
from verifier.record import Entry


class Kind(enum.StrEnum):
    """What became of a check on a case that NEW has."""

    BROKEN = "broken"  # it fails, and did not: it passed, was upstream, or was not looked at
    CHANGED = "changed"  # it fails, and did in another way
    UNCHANGED = "unchanged"  # it fails as it did
    MENDED = "mended"  # it passes, and failed
    LOST = "lost"  # it is not looked at any more
    NEWLY_UPSTREAM = "newly upstream"
    NO_LONGER_UPSTREAM = "no longer upstream"
    STILL_UPSTREAM = "still upstream"
    AGREES = "agrees"  # it passes in both
    GAINED = "gained"  # it passes, and was not looked at
    UNSEEN = "unseen"  # neither looked


# What a rule is made for, and what says nothing of whether two runs looked at the same thing.
EXPLAINED = (Kind.BROKEN, Kind.CHANGED, Kind.MENDED)
_ONE_SIDED = (Kind.LOST, Kind.GAINED, Kind.UNSEEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of a failure: all cases with one fingerprint of which the same became.

    Attributes:
        kind: that.
        fingerprint: NEW's; OLD's of what NEW has no more.
        entry: the failure on the smallest case, of the record whose fingerprint it is.
        before: what OLD had there; None where it had nothing.
        were: OLD's fingerprints, in any of its cases, of what fails in another way now.
        smallest: that case.
        differs: what its config has that the plainest has not.
        cases: the ids of all its cases, sorted.
        unseen: those of them that OLD did not look at.
        stays: in how many other cases both records have it.
        reproduce: the command line.
        rule: what its cases have in common that those have not which it is set against; None where nothing tells them
            apart.
        against: what those cases are, in words: they pass in NEW, or fail there.
        others: how many they are.
    """

    kind: Kind
    fingerprint: str
    entry: Entry
    before: Entry | None
    were: tuple[str, ...]
    smallest: CaseSpec
    differs: Mapping[str, Any]
    cases: tuple[str, ...]
    unseen: tuple[str, ...]
    stays: int
    reproduce: str
    rule: Rule | None = None
    against: str = ""
    others: int = 0

    @property
    def support(self) -> str | None:
        """`broken 6 of 6, passes 6 of 6`: of the cases of which the rule is true, and of which it is false."""
        rule = self.rule
        if rule is None:
            return None
        true, false = rule.caught + rule.passing - rule.spared, rule.spared + rule.failing - rule.caught
        return f"{self.kind} {rule.caught:,} of {true:,}, {self.against} {rule.spared:,} of {false:,}"

    @property
    def explanation(self) -> str | None:
        """The rule in words, or why there is nothing to tell apart; None where nothing tells it apart."""
        if self.rule is not None:
            return f"{'' if self.rule.exact else 'nearly '}{self.rule.text} ({self.support})"
        if self.kind not in EXPLAINED or self.others:
            return None
        if self.kind is Kind.MENDED:
            return "the check fails in no case any more"
        return "the check passes in no case" if len(self.cases) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Outcomes of a check in OLD that NEW has no more.

    Attributes:
        check: id.
        reason: why NEW does not look there.
        cases: their ids, sorted.
        failed: in how many of them it failed.
    """

    check: str
    reason: str
    cases: tuple[str, ...]
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Everything that is told of two records.

    Attributes:
        old: the run before.
        new: the run after.
        differences: what the runs differ in.
        only_old_checks: the checks that OLD alone was asked for.
        only_new_checks: those that NEW alone was.
        failures: what became of each failure, by kind; kinds without any are not in it.
        lost: what NEW looks at no more.
        counts: outcomes by kind, of the cases that NEW has.
        only_old: the cases that OLD alone has, sorted.
        only_new: those that NEW alone has.
        common: how many cases both have.
        unseen_failures: how many failures OLD has in the cases that it alone has.
        newly_reduced: the cases that agree to float32 rounding only, and agreed better, by check.
    """

    old: Side
    new: Side
    differences: tuple[Difference, ...]
    only_old_checks: tuple[str, ...]
    only_new_checks: tuple[str, ...]
    failures: Mapping[Kind, tuple[Change, ...]]
    lost: tuple[Lost, ...]
    counts: Mapping[Kind, int]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    common: int
    unseen_failures: int
    newly_reduced: Mapping[str, tuple[str, ...]]

    def of(self, kind: Kind) -> tuple[Change, ...]:
        """The failures of which this became."""
        return self.failures.get(kind, ())

    @property
    def status(self) -> ExitStatus:
        """What the comparison says, as an exit status."""
        if self.of(Kind.BROKEN):
            return ExitStatus.DIFFERS
        return ExitStatus.INCONCLUSIVE if self.doubts else ExitStatus.CONFORMS

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why more may be broken than is seen, in clauses."""
        said = []
        if self.new.unfinished:
            said.append(f"NEW {self.new.unfinished}")
        if self.new.contradicts_itself:
            said.append("NEW's last line counts other outcomes than it holds")
        if lost := self.counts[Kind.LOST]:
            said.append(f"{text.plural(lost, 'outcome')} of OLD lost")
        if not any(count for kind, count in self.counts.items() if kind not in _ONE_SIDED):
            said.append("no check looked at the same case in both")
        return tuple(said)
