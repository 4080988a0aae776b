"""Find a record's outcomes by case, check and fingerprint, and the rules that tell some of its cases from others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verifier.analysis.rules import Rule, explain
from verifier.judging.outcome import Verdict
from verifier.record import Record, RecordedOutcome
from verifier.record.case_description import LAST_NAMED, NO_SIZES, describe_case


def find_state(entry: RecordedOutcome | None) -> str:
    """`unseen` where no check looked, `fails`, `upstream` or `passes`."""
    if entry is None or entry.outcome.verdict is Verdict.SKIP:
        return "unseen"
    verdict = entry.outcome.verdict
    return "fails" if verdict.gates else "upstream" if verdict is Verdict.UPSTREAM else "passes"


class OutcomeIndex:
    """A record's outcomes, found in one step each; each case is described once, however often rules are asked for.

    Attributes:
        record: the record.
        entries: the outcomes, by case and check.
        written: the outcomes that the record gives a fingerprint, by fingerprint and case: those that `repro` knows.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.entries = {(entry.case, entry.outcome.check): entry for entry in record.entries}
        self.written: dict[str, dict[str, RecordedOutcome]] = {}
        for entry in record.entries:
            if entry.fingerprint:
                self.written.setdefault(entry.fingerprint, {})[entry.case] = entry
        self._descriptions: dict[str, dict[str, Any]] = {}

    def cases(self, holds: Callable[[RecordedOutcome], bool]) -> Mapping[str, Sequence[str]]:
        """Find by check the cases of which the outcome fulfils a condition; both sorted."""
        found: dict[str, list[str]] = {}
        for case, check in sorted(key for key, entry in self.entries.items() if holds(entry)):
            found.setdefault(check, []).append(case)
        return dict(sorted(found.items()))

    def find_rule(self, cases: Sequence[str], others: Sequence[str], shown: str) -> Rule | None:
        """Find the rule that tells cases from others.

        Args:
            cases: the ids of the cases.
            others: the ids of the other cases.
            shown: the id of the case that a reader is shown.

        Returns:
            None where no rule tells them apart, or where the rule is false of the case that is shown.
        """
        described = self._describe(cases), self._describe(others)
        rule = explain(*described, flags=self.record.run.flags, no_sizes=NO_SIZES, last=LAST_NAMED)
        return None if rule is None or any(cases[place] == shown for place in rule.missed) else rule

    def _describe(self, cases: Sequence[str]) -> list[dict[str, Any]]:
        """Describe cases as rules take them, each once."""
        for case in cases:
            if case not in self._descriptions:
                self._descriptions[case] = describe_case(self.record.cases[case])
        return [self._descriptions[case] for case in cases]
