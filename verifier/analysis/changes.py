"""What became of a record's failures in a later record: broken, changed, mended or lost; and how people read it."""

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
    """What became of an outcome of OLD, the record before, in NEW, the record after."""

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
    SUPERSEDED = "superseded"  # its check is gone, and NEW looks at the case in other circumstances


# The kinds for which a rule is made, and those that say nothing of whether two runs looked at the same thing.
EXPLAINED = (ChangeKind.BROKEN, ChangeKind.CHANGED, ChangeKind.MENDED)
_ONE_SIDED = (ChangeKind.LOST, ChangeKind.GAINED, ChangeKind.UNSEEN, ChangeKind.SUPERSEDED)
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
    """What became of a failure: all cases with one fingerprint in which its outcome changed in the same way.

    Attributes:
        kind: what became of it.
        fingerprint: of NEW; where NEW has the failure no more, of OLD.
        entry: the failure on the smallest case, of the record that has the fingerprint.
        before: OLD's outcome there; None where it had none.
        were: OLD's fingerprints, in any of the cases, of what fails in another way now.
        smallest: the smallest case.
        differs: what its config has that the plainest has not.
        cases: the ids of all its cases, sorted.
        unseen: the cases that OLD did not look at.
        stays: the number of other cases in which both records have the failure.
        reproduce: the command line that shows it.
        rule: what its cases have in common that other cases have not; None where nothing tells them apart.
        against: what the other cases do: they pass in NEW, or fail there.
        others: the number of the other cases.
    """

    kind: ChangeKind
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
        """What a list says of the failure, by name; None where there is nothing to say."""
        return {
            **wording.outcome_facts(self.entry.outcome),
            "before": self.was,
            "rule": self.explanation,
            "smallest": text.config(self.differs) or "the plainest config",
            "reproduce": self.reproduce,
        }

    @property
    def share(self) -> str:
        """The number of cases, and of those that OLD did not look at or that have the failure in both: `6 cases`."""
        more = []
        if self.unseen and self.kind is ChangeKind.BROKEN:
            some = len(self.unseen) < len(self.cases)
            more.append(f"OLD did not look at {len(self.unseen):,} of them" if some else "OLD looked at none of them")
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
        place = outcome.where or wording.outcome_message(outcome)
        others = len(self.were) - 1
        elsewhere = f" (elsewhere {text.plural(others, 'other failure')})" if others > 0 else ""
        check = "" if outcome.check == self.entry.outcome.check else f"{outcome.check} "
        return check + outcome.verdict.word + (f": {place}" if place else "") + elsewhere

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
        check: its id.
        reason: why NEW does not look there.
        cases: the ids of the cases, sorted.
        failed: the number of cases in which the check failed.
    """

    check: str
    reason: str
    cases: tuple[str, ...]
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SupersededCheck:
    """A check of OLD that is gone, and whose outcomes are those of observables in NEW.

    Attributes:
        check: its id.
        apart: the ids of the cases that NEW does not look at in all the circumstances that took its place, sorted.
        failed: the number of these on which the check failed.
    """

    check: str
    apart: tuple[str, ...]
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDiff:
    """How two records differ.

    Attributes:
        old: the record before.
        new: the record after.
        differences: what the runs differ in, by name: how it is spelled for OLD and for NEW.
        failures: what became of each failure, by kind; a kind that has none is left out.
        lost: what NEW looks at no more.
        superseded: the checks of OLD whose place observables took in NEW.
        counts: the number of outcomes of each kind, on the cases that NEW has.
        unseen_failures: the number of failures of OLD in cases that NEW has not.
        newly_reduced: by check the cases that agree to float32 rounding only, and agreed better.
    """

    old: Record
    new: Record
    differences: Mapping[str, tuple[str | None, str | None]]
    failures: Mapping[ChangeKind, tuple[FailureChange, ...]]
    lost: tuple[LostOutcomes, ...]
    superseded: tuple[SupersededCheck, ...]
    counts: Mapping[ChangeKind, int]
    unseen_failures: int
    newly_reduced: Mapping[str, tuple[str, ...]]

    def of(self, kind: ChangeKind) -> tuple[FailureChange, ...]:
        """The failures of which this became."""
        return self.failures.get(kind, ())

    @property
    def status(self) -> ExitStatus:
        """The exit status that the comparison stands for."""
        if self.of(ChangeKind.BROKEN):
            return ExitStatus.DIFFERS
        return ExitStatus.INCONCLUSIVE if self.doubts else ExitStatus.CONFORMS

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why more may be broken than NEW shows, in clauses."""
        doubts = []
        if reason := explain_unfinished(self.new):
            doubts.append(f"NEW {reason}")
        if self.new.contradicts_itself:
            doubts.append("NEW's last line counts other outcomes than it holds")
        if lost := self.counts[ChangeKind.LOST]:
            doubts.append(f"{text.plural(lost, 'outcome')} of OLD lost")
        if not any(count for kind, count in self.counts.items() if kind not in _ONE_SIDED):
            doubts.append("no check looked at the same case in both")
        return tuple(doubts)

    @property
    def reason(self) -> str:
        """What the status rests on: `2 bugs in 14 cases; 3 outcomes of OLD lost`."""
        broken = self.of(ChangeKind.BROKEN)
        cases = {case for change in broken for case in change.cases}
        bugs = [f"{text.plural(len(broken), 'bug')} in {text.plural(len(cases), 'case')}"] if broken else []
        return "; ".join([*bugs, *self.doubts])

    @property
    def verdict(self) -> str:
        """`BROKEN (2 bugs in 14 cases; 3 outcomes of OLD lost)`."""
        return STATUS_WORDS[self.status] + (f" ({self.reason})" if self.reason else "")

    @property
    def counted(self) -> str:
        """The number of cases in both records and in one alone, and of outcomes by what became of them."""
        failing = f" ({text.plural(self.unseen_failures, 'failure')})" if self.unseen_failures else ""
        cases = [f"{text.plural(len(self.old.cases) - len(self.cases_apart['OLD']), 'case')} in both"]
        cases += [
            f"{len(apart):,} in {name} only{failing if name == 'OLD' else ''}"
            for name, apart in self.cases_apart.items()
            if apart
        ]
        agree = self.counts[ChangeKind.AGREES]
        outcomes = [f"{text.plural(agree, 'outcome')} {'passes' if agree == 1 else 'pass'} in both"]
        outcomes += [
            f"{self.counts[kind]:,} {'newly looked at and passed' if kind is ChangeKind.GAINED else kind}"
            for kind in ChangeKind
            if self.counts[kind] and kind not in _UNCOUNTED
        ]
        return f"{', '.join(cases)}: {', '.join(outcomes)}"

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
        """The reasons why NEW looks no more, the most frequent one first."""
        by_reason: dict[str, list[LostOutcomes]] = {}
        for lost in self.lost:
            by_reason.setdefault(lost.reason, []).append(lost)
        tallies = []
        for reason, group in sorted(by_reason.items()):
            failed = sum(lost.failed for lost in group)
            words = text.line(reason, 160) + (f"; {failed:,} failed in OLD" if failed else "")
            count, checks = sum(len(lost.cases) for lost in group), tuple(lost.check for lost in group)
            tallies.append(Tally(text=words, count=count, checks=checks))
        return tuple(sorted(tallies, key=lambda tally: -tally.count))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the two records, in sentences."""
        notes = [f"{name}: {note}" for name, run in (("OLD", self.old), ("NEW", self.new)) for note in run.notes]
        if reason := explain_unfinished(self.old):
            notes.append(f"OLD {reason}: what it did not come to counts as not looked at")
        if self.old.contradicts_itself:
            notes.append("OLD's last line counts other outcomes than it holds: lines are missing, or were changed")
        if superseded := self.superseded:
            named = name_some([one.check for one in superseded])
            note = f"{text.plural(len(superseded), 'check')} of OLD superseded by observables: {named}"
            if failed := sum(one.failed for one in superseded):
                failures = text.plural(failed, "failure")
                note += f"; of {failures} in OLD nothing is known, because NEW does not look at the case in that way"
            notes.append(note)
        if reduced := self.newly_reduced:
            number = text.plural(sum(map(len, reduced.values())), "outcome")
            notes.append(f"{number} that agreed now agree to float32 rounding only: {name_some(tuple(reduced))}")
        return tuple(notes)


def name_some(checks: Sequence[str]) -> str:
    """Name the first of several checks, and say how many more there are."""
    return text.first_of([text.line(check, 60) for check in checks], _MOST_NAMES)
