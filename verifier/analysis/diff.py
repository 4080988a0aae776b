"""Compare two records, case by case and check by check: each pair of outcomes has one `ChangeKind`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from verifier.analysis.bugs import case_differences, minimal_case
from verifier.analysis.changes import EXPLAINED, ChangeKind, FailureChange, LostOutcomes, RecordDiff
from verifier.analysis.outcome_index import OutcomeIndex, find_state
from verifier.analysis.run_differences import explain_nothing_in_common, list_run_differences
from verifier.analysis.succession import Succession
from verifier.checks.superseded import SUPERSEDED
from verifier.errors import UsageError
from verifier.judging.outcome import Verdict
from verifier.record import Record, RecordedOutcome

_Key = tuple[str, str]  # case and check

_OF_OLD = (ChangeKind.MENDED, ChangeKind.NO_LONGER_UPSTREAM)  # NEW has no such failure there
_IN_BOTH = (ChangeKind.UNCHANGED, ChangeKind.STILL_UPSTREAM)
_SHOWN = (*EXPLAINED, *_IN_BOTH, ChangeKind.NEWLY_UPSTREAM, ChangeKind.NO_LONGER_UPSTREAM)


def compare_records(old: Record, new: Record) -> RecordDiff:
    """Compare two records: what became of OLD's outcomes in NEW.

    Args:
        old: the record that is compared with.
        new: the record that is compared.

    Raises:
        UsageError: the records are of different families, or have no case in common.
    """
    if old.run.family != new.run.family:
        raise UsageError(
            f"{str(old.path)!r} is of the family {old.run.family!r} and {str(new.path)!r} of {new.run.family!r}: "
            f"only records of one family can be compared"
        )
    common = old.cases.keys() & new.cases.keys()
    if not common:
        why = explain_nothing_in_common(old.cases, new.cases)
        raise UsageError(f"{str(old.path)!r} and {str(new.path)!r} have no case in common: {why}")
    pair = _Comparison(OutcomeIndex(old), OutcomeIndex(new))
    return RecordDiff(
        old=old,
        new=new,
        differences=list_run_differences(old.run, new.run),
        failures={kind: found for kind in _SHOWN if (found := tuple(pair.failures(kind)))},
        lost=tuple(pair.lost()),
        superseded=pair.succession.checks,
        counts={kind: len(pair.keys[kind]) for kind in ChangeKind},
        unseen_failures=sum(_fails(entry) for (case, _), entry in pair.old.entries.items() if case not in common),
        newly_reduced=pair.newly_reduced(),
    )


# What became of an outcome, by OLD's state (the row) and NEW's (the column), where both have the same fingerprint.
_KINDS: Mapping[str, Mapping[str, ChangeKind]] = {
    old: dict(zip(("unseen", "upstream", "fails", "passes"), kinds, strict=True))
    for old, kinds in {
        "unseen": (ChangeKind.UNSEEN, ChangeKind.NEWLY_UPSTREAM, ChangeKind.BROKEN, ChangeKind.GAINED),
        "upstream": (ChangeKind.LOST, ChangeKind.STILL_UPSTREAM, ChangeKind.BROKEN, ChangeKind.NO_LONGER_UPSTREAM),
        "fails": (ChangeKind.LOST, ChangeKind.NEWLY_UPSTREAM, ChangeKind.UNCHANGED, ChangeKind.MENDED),
        "passes": (ChangeKind.LOST, ChangeKind.NEWLY_UPSTREAM, ChangeKind.BROKEN, ChangeKind.AGREES),
    }.items()
}
# What the same becomes where the fingerprints differ.
_OTHERWISE = {
    ChangeKind.UNCHANGED: ChangeKind.CHANGED,
    ChangeKind.STILL_UPSTREAM: ChangeKind.NEWLY_UPSTREAM,
}


def _find_kind(old: RecordedOutcome | None, new: RecordedOutcome | None) -> ChangeKind:
    """Find what became of one check on one case of NEW."""
    kind = _KINDS[find_state(old)][find_state(new)]
    return kind if _fingerprint(old) == _fingerprint(new) else _OTHERWISE.get(kind, kind)


def _fails(entry: RecordedOutcome | None) -> bool:
    return find_state(entry) == "fails"


def _fingerprint(entry: RecordedOutcome | None) -> str:
    """The bug's id, also where a record was written without it; an empty text where there is none."""
    return "" if entry is None else entry.fingerprint or entry.outcome.fingerprint or ""


class _Comparison:
    """The outcomes of both records by case and check, and what became of each pair."""

    def __init__(self, old: OutcomeIndex, new: OutcomeIndex) -> None:
        self.old, self.new = old, new
        self.succession = Succession(old, new)
        self.before = self.succession.before
        self.keys: dict[ChangeKind, list[_Key]] = {kind: [] for kind in ChangeKind}
        self.keys[ChangeKind.SUPERSEDED] += self.succession.apart
        for key in sorted(self.before.keys() | new.entries.keys()):
            if key[0] in new.record.cases:
                self.keys[_find_kind(self.before.get(key), new.entries.get(key))].append(key)
        # As NEW ran the checks, then those that OLD alone ran.
        ids = [check["id"] for one in (new, old) for check in one.record.run.checks]
        self._order = {check: place for place, check in enumerate(dict.fromkeys(ids))}
        self._passing = new.cases(lambda entry: entry.outcome.verdict in (Verdict.PASS, Verdict.REDUCED))
        self._failing = new.cases(_fails)
        self._stays = Counter(_fingerprint(new.entries[key]) for kind in _IN_BOTH for key in self.keys[kind])

    def _group(self, kind: ChangeKind, label: Callable[[_Key], str]) -> Iterator[tuple[str, str, list[str]]]:
        """Group the cases of a kind by check and label, in the order of the checks, the most frequent first.

        Yields:
            The check, the label and the ids of the cases.
        """
        groups: dict[tuple[str, str], list[str]] = {}
        for key in self.keys[kind]:
            groups.setdefault((key[1], label(key)), []).append(key[0])

        def order(group: tuple[str, str]) -> tuple[int, int, tuple[str, str]]:
            return self._order.get(group[0], len(self._order)), -len(groups[group]), group

        for group in sorted(groups, key=order):
            yield *group, groups[group]

    def failures(self, kind: ChangeKind) -> Iterator[FailureChange]:
        """Describe the failures of which this became, by check and fingerprint."""
        side, entries = (self.old, self.before) if kind in _OF_OLD else (self.new, self.new.entries)
        for check, fingerprint, cases in self._group(kind, lambda key: _fingerprint(entries[key])):
            spec = minimal_case(side.record, fingerprint, cases)
            # `repro` takes a fingerprint for the smallest of all its cases, which may be one that was there before.
            written = side.written.get(fingerprint, ())
            by_fingerprint = spec.id in written and minimal_case(side.record, fingerprint, written).id == spec.id
            # A check that is gone cannot be run again: NEW's checks of the case can.
            gone = entries[spec.id, check].outcome.check != check
            identity = fingerprint if by_fingerprint and not gone else spec.id
            place = shlex.quote(str((self.new if gone else side).record.location))
            old = {case: self.before.get((case, check)) for case in cases}
            were = {_fingerprint(entry) for entry in old.values()} if kind is ChangeKind.CHANGED else ()
            yield FailureChange(
                kind=kind,
                fingerprint=fingerprint,
                entry=entries[spec.id, check],
                before=old[spec.id],
                were=tuple(sorted(were)),
                smallest=spec,
                differs=case_differences(side.record, fingerprint, spec),
                cases=tuple(cases),
                unseen=tuple(case for case, entry in old.items() if find_state(entry) == "unseen"),
                stays=0 if kind in _IN_BOTH else self._stays[fingerprint],
                reproduce=f"verifier repro {shlex.quote(identity)} {place}",
                **(self._explain(kind, check, cases, spec.id) if kind in EXPLAINED else {}),
            )

    def _explain(self, kind: ChangeKind, check: str, cases: Sequence[str], shown: str) -> dict[str, Any]:
        """Find what broken cases have that passing ones have not, or mended ones that failing ones have not."""
        passing = () if kind is ChangeKind.MENDED else self._passing.get(check, ())
        others = passing or sorted({*self._failing.get(check, ())} - {*cases})
        against = "still fails" if kind is ChangeKind.MENDED else "passes" if passing else "fails otherwise"
        return {"rule": self.new.find_rule(cases, others, shown), "against": against, "others": len(others)}

    def lost(self) -> Iterator[LostOutcomes]:
        """List what NEW looks at no more, by check and reason."""
        for check, reason, cases in self._group(ChangeKind.LOST, self._why_lost):
            failed = sum(_fails(self.before[case, check]) for case in cases)
            yield LostOutcomes(check=check, reason=reason, cases=tuple(cases), failed=failed)

    def _why_lost(self, key: _Key) -> str:
        """Say why NEW has no outcome of a check that looked in OLD."""
        case, check = key
        record, entry = self.new.record, self.new.entries.get(key)
        spec = record.cases[case]
        if entry is not None:
            return entry.outcome.message or "skipped without a reason"
        if all(one["id"] != check for one in record.run.checks):
            return f"NEW did not run {'what took its place' if check in SUPERSEDED else 'the check'}"
        if spec.valid != self.old.record.cases[case].valid:
            return f"in NEW, HF refuses the case: {spec.reason}" if not spec.valid else "in NEW, HF accepts the case"
        if case not in record.done and record.end is None:
            return "NEW did not finish the case"
        return "NEW did not run the check on this case"

    def newly_reduced(self) -> Mapping[str, tuple[str, ...]]:
        """List by check the cases in which the adapter agrees to float32 rounding only, and agreed better."""
        found: dict[str, tuple[str, ...]] = {}
        for case, check in sorted(self.keys[ChangeKind.AGREES]):
            was, now = (entries[case, check].outcome.verdict for entries in (self.before, self.new.entries))
            if was is Verdict.PASS and now is Verdict.REDUCED:
                found[check] = (*found.get(check, ()), case)
        return dict(sorted(found.items()))
