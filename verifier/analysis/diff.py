"""Two records compared, case by case and check by check: each pair of outcomes has one `Kind`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from verifier.analysis.bugs import minimal_case
from verifier.analysis.case_changes import differences, nothing_in_common, only, side
from verifier.analysis.changes import EXPLAINED, Change, Changes, Kind, Lost
from verifier.analysis.rules import explain
from verifier.errors import UsageError
from verifier.judging.outcome import Verdict
from verifier.record import Entry, Record
from verifier.record.case_description import described, difference

_Key = tuple[str, str]  # case and check

_OF_OLD = (Kind.MENDED, Kind.NO_LONGER_UPSTREAM)  # NEW has no such failure there
_IN_BOTH = (Kind.UNCHANGED, Kind.STILL_UPSTREAM)
_TOLD = (*EXPLAINED, *_IN_BOTH, Kind.NEWLY_UPSTREAM, Kind.NO_LONGER_UPSTREAM)


def compare(old: Record, new: Record) -> Changes:
    """What became of OLD's outcomes in NEW.

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
        raise UsageError(
            f"{str(old.path)!r} and {str(new.path)!r} have no case in common: {nothing_in_common(old.cases, new.cases)}"
        )
    pair = _Pair(old, new)
    return Changes(
        old=side(old),
        new=side(new),
        differences=differences(old.run, new.run),
        only_old_checks=only(old.run, new.run),
        only_new_checks=only(new.run, old.run),
        failures={kind: found for kind in _TOLD if (found := tuple(pair.failures(kind)))},
        lost=tuple(pair.lost()),
        counts={kind: len(pair.keys[kind]) for kind in Kind},
        only_old=tuple(sorted(old.cases.keys() - common)),
        only_new=tuple(sorted(new.cases.keys() - common)),
        common=len(common),
        unseen_failures=sum(_fails(entry) for (case, _), entry in pair.olds.items() if case not in common),
        newly_reduced=pair.newly_reduced(),
    )


def _kind(before: Entry | None, after: Entry | None) -> Kind:
    """What became of one check on one case of NEW."""
    if _fails(after):
        if not _fails(before):
            return Kind.BROKEN
        return Kind.UNCHANGED if _print(before) == _print(after) else Kind.CHANGED
    if not _looked(after):
        return Kind.LOST if _looked(before) else Kind.UNSEEN
    if _upstream(after):
        same = _upstream(before) and _print(before) == _print(after)
        return Kind.STILL_UPSTREAM if same else Kind.NEWLY_UPSTREAM
    if not _looked(before):
        return Kind.GAINED
    if _fails(before):
        return Kind.MENDED
    return Kind.NO_LONGER_UPSTREAM if _upstream(before) else Kind.AGREES


def _fails(entry: Entry | None) -> bool:
    return entry is not None and entry.outcome.verdict.gates


def _upstream(entry: Entry | None) -> bool:
    return entry is not None and entry.outcome.verdict is Verdict.UPSTREAM


def _looked(entry: Entry | None) -> bool:
    return entry is not None and entry.outcome.verdict is not Verdict.SKIP


def _print(entry: Entry | None) -> str:
    """The bug's id, also where a record was written without it."""
    return "" if entry is None else entry.fingerprint or entry.outcome.fingerprint or ""


class _Pair:
    """Both records by case and check, and what became of each pair."""

    def __init__(self, old: Record, new: Record) -> None:
        self.old, self.new = old, new
        self.olds = {(entry.case, entry.outcome.check): entry for entry in old.entries}
        self.news = {(entry.case, entry.outcome.check): entry for entry in new.entries}
        self.keys: dict[Kind, list[_Key]] = {kind: [] for kind in Kind}
        for key in sorted(self.olds.keys() | self.news.keys()):
            if key[0] in new.cases:
                self.keys[_kind(self.olds.get(key), self.news.get(key))].append(key)
        self._descriptions: dict[str, dict[str, Any]] = {}  # of a passing case every failure of its checks asks

    @cached_property
    def _order(self) -> Mapping[str, int]:
        """The place of each check: as NEW ran them, then those that OLD alone ran."""
        ids = [check["id"] for record in (self.new, self.old) for check in record.run.checks]
        return {check: place for place, check in enumerate(dict.fromkeys(ids))}

    @cached_property
    def _passing(self) -> Mapping[str, Sequence[str]]:
        """The cases of NEW that each check passes."""
        return _by_check(
            key for key, entry in self.news.items() if entry.outcome.verdict in (Verdict.PASS, Verdict.REDUCED)
        )

    @cached_property
    def _failing(self) -> Mapping[str, Sequence[str]]:
        """The cases of NEW in which each check fails."""
        return _by_check(key for key, entry in self.news.items() if _fails(entry))

    @cached_property
    def _stays(self) -> Counter[str]:
        """In how many cases both records have each failure."""
        return Counter(_print(self.news[key]) for kind in _IN_BOTH for key in self.keys[kind])

    @cached_property
    def _cases(self) -> tuple[Mapping[str, set[str]], Mapping[str, set[str]]]:
        """All cases of each fingerprint that was written, in OLD and in NEW: what `repro` chooses from."""
        both: tuple[dict[str, set[str]], dict[str, set[str]]] = ({}, {})
        for known, record in zip(both, (self.old, self.new), strict=True):
            for entry in record.entries:
                if entry.fingerprint:
                    known.setdefault(entry.fingerprint, set()).add(entry.case)
        return both

    def failures(self, kind: Kind) -> Iterator[Change]:
        """Those of which this became, in the order of the checks, the most frequent first."""
        entries = self.olds if kind in _OF_OLD else self.news
        groups: dict[tuple[str, str], list[str]] = {}
        for case, check in self.keys[kind]:
            groups.setdefault((check, _print(entries[case, check])), []).append(case)
        last = len(self._order)
        for (check, fingerprint), cases in sorted(
            groups.items(), key=lambda group: (self._order.get(group[0][0], last), -len(group[1]), group[0])
        ):
            yield self._change(kind, check, fingerprint, cases)

    def _change(self, kind: Kind, check: str, fingerprint: str, cases: Sequence[str]) -> Change:
        of_old = kind in _OF_OLD
        record, entries = (self.old, self.olds) if of_old else (self.new, self.news)
        spec = minimal_case(record, fingerprint, cases)
        shrunk = record.found.get(fingerprint)
        is_shrunk = shrunk is not None and shrunk.case == spec.id
        # `repro` takes a fingerprint for the smallest of all its cases, which may be one that was there before.
        written = self._cases[0 if of_old else 1].get(fingerprint, ())
        by_print = spec.id in written and minimal_case(record, fingerprint, written).id == spec.id
        identity = fingerprint if by_print else spec.id
        return Change(
            kind=kind,
            fingerprint=fingerprint,
            entry=entries[spec.id, check],
            before=self.olds.get((spec.id, check)),
            were=tuple(sorted({_print(self.olds[case, check]) for case in cases})) if kind is Kind.CHANGED else (),
            smallest=spec,
            differs=shrunk.differs if shrunk is not None and is_shrunk else difference(spec.config, record.run),
            cases=tuple(cases),
            unseen=tuple(case for case in cases if not _looked(self.olds.get((case, check)))),
            stays=0 if kind in _IN_BOTH else self._stays[fingerprint],
            reproduce=f"verifier repro {shlex.quote(identity)} {shlex.quote(str(side(record).place))}",
            **(self._explained(kind, check, cases, spec.id) if kind in EXPLAINED else {}),
        )

    def _explained(self, kind: Kind, check: str, cases: Sequence[str], shown: str) -> dict[str, Any]:
        """What the cases have in common: broken ones against those that pass, mended ones against those that fail."""
        passing = () if kind is Kind.MENDED else self._passing.get(check, ())
        failing = sorted({*self._failing.get(check, ())} - {*cases})
        others = passing or failing
        against = "still fails" if kind is Kind.MENDED else "passes" if passing else "fails otherwise"
        rule = explain(
            *([self._described(case) for case in some] for some in (cases, others)), flags=self.new.run.flags
        )
        if rule is not None and any(cases[place] == shown for place in rule.missed):
            rule = None  # what is not even true of the case that is shown explains nothing
        return {"rule": rule, "against": against, "others": len(others)}

    def _described(self, case: str) -> dict[str, Any]:
        if case not in self._descriptions:
            self._descriptions[case] = described(self.new.cases[case])
        return self._descriptions[case]

    def lost(self) -> Iterator[Lost]:
        """What NEW looks at no more, by check and reason."""
        checks = {check["id"] for check in self.new.run.checks}
        groups: dict[tuple[str, str], list[str]] = {}
        for case, check in self.keys[Kind.LOST]:
            groups.setdefault((check, self._why_lost(case, check, checks)), []).append(case)
        last = len(self._order)
        for (check, reason), cases in sorted(
            groups.items(), key=lambda group: (self._order.get(group[0][0], last), -len(group[1]), group[0])
        ):
            failed = sum(_fails(self.olds[case, check]) for case in cases)
            yield Lost(check=check, reason=reason, cases=tuple(cases), failed=failed)

    def _why_lost(self, case: str, check: str, checks: Collection[str]) -> str:
        entry, spec = self.news.get((case, check)), self.new.cases[case]
        if entry is not None:
            return entry.outcome.message or "skipped without a reason"
        if check not in checks:
            return "NEW did not run the check"
        if spec.valid != self.old.cases[case].valid:
            return f"in NEW, HF refuses the case: {spec.reason}" if not spec.valid else "in NEW, HF accepts the case"
        if case not in self.new.done and self.new.end is None:
            return "NEW did not finish the case"
        return "NEW did not run the check on this case"

    def newly_reduced(self) -> Mapping[str, tuple[str, ...]]:
        """Where the adapter agrees to float32 rounding only, and agreed better."""
        return {
            check: tuple(cases)
            for check, cases in _by_check(
                key
                for key in self.keys[Kind.AGREES]
                if self.olds[key].outcome.verdict is Verdict.PASS and self.news[key].outcome.verdict is Verdict.REDUCED
            ).items()
        }


def _by_check(keys: Iterable[_Key]) -> dict[str, list[str]]:
    """The cases of each check, both sorted."""
    found: dict[str, list[str]] = {}
    for case, check in sorted(keys):
        found.setdefault(check, []).append(case)
    return dict(sorted(found.items()))
