"""What became of a record's failures in a later one: broken, changed, mended or no longer looked at, and in words."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifier.analysis.rules import Rule
from verifier.analysis.run_differences import describe_run, explain_unfinished
from verifier.analysis.tallies import Tally
from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus
from verifier.judging import wording
from verifier.output import text
from verifier.record import Record, RecordedOutcome


class ChangeKind(enum.StrEnum):
    """What became of a check on a case that NEW has."""

    BROKEN = "broken"  # it fails, and did not: it passed, was upstream, or was not looked at
    CHANGED = "changed"  # it fails, and did in another way
    UNCHANGED = "unchanged"  # it fails as it did
    MENDED = "mended"  # it passes, and failed
    LOST = "lost"  # it is not looked at any more
    GAINED = "gained"  # it passes, and was not looked at
    NEWLY_UPSTREAM = "newly upstream"
    STILL_UPSTREAM = "still upstream"
    NO_LONGER_UPSTREAM = "no longer upstream"
    AGREES = "agrees"  # it passes in both
    UNSEEN = "unseen"  # neither looked


# What a rule is made for, and what says nothing of whether two runs looked at the same thing.
EXPLAINED = (ChangeKind.BROKEN, ChangeKind.CHANGED, ChangeKind.MENDED)
_ONE_SIDED = (ChangeKind.LOST, ChangeKind.GAINED, ChangeKind.UNSEEN)
_UNCOUNTED = (ChangeKind.AGREES, ChangeKind.UNSEEN)  # among the things that happened

# The kinds that people are shown, in this order.
TITLES: Mapping[ChangeKind, str] = {
    ChangeKind.BROKEN: "Broken",
    ChangeKind.CHANGED: "Fails in another way",
    ChangeKind.MENDED: "Mended",
    ChangeKind.LOST: "Lost, because nothing looks there any more",
    ChangeKind.NEWLY_UPSTREAM: "Newly upstream: Hugging Face disagrees with itself; the adapter is not to blame",
    ChangeKind.NO_LONGER_UPSTREAM: "No longer upstream",
    ChangeKind.UNCHANGED: "Fails as it did",
}
STATUS_WORDS: Mapping[ExitStatus, str] = {
    ExitStatus.CONFORMS: "NOTHING BROKEN",
    ExitStatus.DIFFERS: "BROKEN",
    ExitStatus.INCONCLUSIVE: "INCONCLUSIVE",
}
_MOST_NAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureChange:
    """What became of a failure: all cases with one fingerprint of which the same became.

    Attributes:
        kind: that.
        number: among those of its kind, from 1 on.
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

    kind: ChangeKind
    number: str
    fingerprint: str
    entry: RecordedOutcome
    before: RecordedOutcome | None
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
    def facts(self) -> Mapping[str, str | None]:
        """What is said of it in a list, by name; None where there is nothing to say."""
        return {
            **wording.outcome_facts(self.entry.outcome),
            "before": self.was,
            "rule": self.explanation,
            "smallest": text.config(self.differs) or "the plainest config",
            "reproduce": self.reproduce,
        }

    @property
    def share(self) -> str:
        """`6 cases`, with how many more have it in both, and how many were not looked at before."""
        more = []
        if self.unseen and self.kind is ChangeKind.BROKEN:
            every = len(self.unseen) == len(self.cases)
            more.append("OLD looked at none of them" if every else f"OLD did not look at {len(self.unseen):,} of them")
        if self.stays:
            still = "still fails in" if self.kind is ChangeKind.MENDED else "failed before in"
            more.append(f"{still} {self.stays:,} more")
        return text.plural(len(self.cases), "case") + (f" ({', '.join(more)})" if more else "")

    @property
    def was(self) -> str | None:
        """How the check fared before on the case that is shown; None where that goes without saying."""
        if self.before is None or self.kind not in (ChangeKind.BROKEN, ChangeKind.CHANGED):
            return None
        outcome = self.before.outcome
        if not outcome.verdict.is_finding and not self.unseen:
            return None
        said = outcome.where or wording.outcome_message(outcome)
        others = len(self.were) - 1
        elsewhere = f" (elsewhere {text.plural(others, 'other failure')})" if others > 0 else ""
        return outcome.verdict.word + (f": {said}" if said else "") + elsewhere

    @property
    def support(self) -> str | None:
        """`broken 6 of 6, passes 6 of 6`: of the cases of which the rule is true, and of which it is false."""
        return None if self.rule is None else self.rule.count_support(self.kind, self.against)

    @property
    def explanation(self) -> str | None:
        """The rule in words, or why there is nothing to tell apart; None where nothing tells it apart."""
        if self.rule is not None:
            return self.rule.state(self.support)
        if self.kind not in EXPLAINED or self.others:
            return None
        if self.kind is ChangeKind.MENDED:
            return "the check fails in no case any more"
        return "the check passes in no case" if len(self.cases) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LostOutcomes:
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
class RecordDiff:
    """Everything that is told of two records.

    Attributes:
        old: the record before.
        new: the record after.
        differences: what the runs differ in, by name: how it is spelled for OLD and for NEW.
        failures: what became of each failure, by kind; kinds without any are not in it.
        lost: what NEW looks at no more.
        counts: outcomes by kind, of the cases that NEW has.
        unseen_failures: how many failures OLD has in the cases that it alone has.
        newly_reduced: the cases that agree to float32 rounding only, and agreed better, by check.
    """

    old: Record
    new: Record
    differences: Mapping[str, tuple[str | None, str | None]]
    failures: Mapping[ChangeKind, tuple[FailureChange, ...]]
    lost: tuple[LostOutcomes, ...]
    counts: Mapping[ChangeKind, int]
    unseen_failures: int
    newly_reduced: Mapping[str, tuple[str, ...]]

    def of(self, kind: ChangeKind) -> tuple[FailureChange, ...]:
        """The failures of which this became."""
        return self.failures.get(kind, ())

    @property
    def status(self) -> ExitStatus:
        """What the comparison says, as an exit status."""
        if self.of(ChangeKind.BROKEN):
            return ExitStatus.DIFFERS
        return ExitStatus.INCONCLUSIVE if self.doubts else ExitStatus.CONFORMS

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why more may be broken than is seen, in clauses."""
        said = []
        if reason := explain_unfinished(self.new):
            said.append(f"NEW {reason}")
        if self.new.contradicts_itself:
            said.append("NEW's last line counts other outcomes than it holds")
        if lost := self.counts[ChangeKind.LOST]:
            said.append(f"{text.plural(lost, 'outcome')} of OLD lost")
        if not any(count for kind, count in self.counts.items() if kind not in _ONE_SIDED):
            said.append("no check looked at the same case in both")
        return tuple(said)

    @property
    def reason(self) -> str:
        """`2 bugs in 14 cases; 3 outcomes of OLD lost`: what the verdict rests on."""
        said = list(self.doubts)
        if broken := self.of(ChangeKind.BROKEN):
            hit = {case for change in broken for case in change.cases}
            said.insert(0, f"{text.plural(len(broken), 'bug')} in {text.plural(len(hit), 'case')}")
        return "; ".join(said)

    @property
    def verdict(self) -> str:
        """`BROKEN (2 bugs in 14 cases; 3 outcomes of OLD lost)`."""
        return STATUS_WORDS[self.status] + (f" ({self.reason})" if self.reason else "")

    @property
    def counted(self) -> str:
        """What became of how many outcomes, and of how many cases nothing can be said."""
        failing = f" ({text.plural(self.unseen_failures, 'failure')})" if self.unseen_failures else ""
        cases = [f"{text.plural(len(self.old.cases) - len(self.cases_apart['OLD']), 'case')} in both"]
        cases += [
            f"{len(some):,} in {name} only{failing if name == 'OLD' else ''}"
            for name, some in self.cases_apart.items()
            if some
        ]
        agree = self.counts[ChangeKind.AGREES]
        said = [f"{text.plural(agree, 'outcome')} {'passes' if agree == 1 else 'pass'} in both"]
        said += [
            f"{self.counts[kind]:,} {'newly looked at and passed' if kind is ChangeKind.GAINED else kind}"
            for kind in ChangeKind
            if self.counts[kind] and kind not in _UNCOUNTED
        ]
        return f"{', '.join(cases)}: {', '.join(said)}"

    @property
    def facts(self) -> Mapping[str, str]:
        """The two runs, and what they differ in, by name."""
        facts = {"OLD": describe_run(self.old), "NEW": describe_run(self.new)}
        for what, runs in self.differences.items():
            facts[what] = " → ".join("none" if one is None else text.line(one or '""', 160) for one in runs)
        return facts

    @property
    def checks_apart(self) -> Mapping[str, tuple[str, ...]]:
        """The checks that one run alone was asked for, by `OLD` and `NEW`."""
        old, new = ({check["id"]: None for check in record.run.checks} for record in (self.old, self.new))
        return {"OLD": tuple(id_ for id_ in old if id_ not in new), "NEW": tuple(id_ for id_ in new if id_ not in old)}

    @property
    def cases_apart(self) -> Mapping[str, tuple[str, ...]]:
        """The cases that one record alone has, by `OLD` and `NEW`, sorted."""
        old, new = self.old.cases.keys(), self.new.cases.keys()
        return {"OLD": tuple(sorted(old - new)), "NEW": tuple(sorted(new - old))}

    @property
    def reasons_lost(self) -> tuple[Tally, ...]:
        """Why NEW does not look any more, the most frequent reason first."""
        by_reason: dict[str, list[LostOutcomes]] = {}
        for one in self.lost:
            by_reason.setdefault(one.reason, []).append(one)
        found = []
        for reason, some in by_reason.items():
            failed = sum(one.failed for one in some)
            said = text.line(reason, 160) + (f"; {failed:,} failed in OLD" if failed else "")
            count = sum(len(one.cases) for one in some)
            found.append((-count, reason, Tally(text=said, count=count, checks=tuple(one.check for one in some))))
        return tuple(tally for *_, tally in sorted(found, key=lambda one: one[:2]))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the two files."""
        said = [f"{name}: {note}" for name, run in (("OLD", self.old), ("NEW", self.new)) for note in run.notes]
        if reason := explain_unfinished(self.old):
            said.append(f"OLD {reason}: what it did not come to counts as not looked at")
        if self.old.contradicts_itself:
            said.append("OLD's last line counts other outcomes than it holds: lines are missing, or were changed")
        if reduced := self.newly_reduced:
            number = text.plural(sum(map(len, reduced.values())), "outcome")
            said.append(f"{number} that agreed now agree to float32 rounding only: {name_some(tuple(reduced))}")
        return tuple(said)


def name_some(checks: Sequence[str]) -> str:
    """Name the first of several checks, and say how many more there are."""
    return text.first_of([text.line(check, 60) for check in checks], _MOST_NAMES)
