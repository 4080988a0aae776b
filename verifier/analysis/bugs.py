"""The distinct failures of a record: one for each fingerprint, with its smallest case, its rule and its evidence."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from verifier.analysis.outcome_index import OutcomeIndex
from verifier.analysis.rules import Rule
from verifier.cases.circumstances import has_met
from verifier.cases.spec import CaseSpec
from verifier.judging import wording
from verifier.judging.evidence import Evidence, Ladder
from verifier.judging.outcome import Outcome, Verdict
from verifier.output import text
from verifier.output.text import plural
from verifier.record import Record, RecordedOutcome, RunLine
from verifier.record.case_description import config_difference, same_value
from verifier.record.confirmation import Confirmation
from verifier.record.fuzz_finding import ShrunkFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A case that differs from a bug's smallest one in one flag alone, and how the bug's check fared there."""

    flag: str
    value: Any
    case: str
    verdict: Verdict
    same: bool  # whether it is the same failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A bug: every failure with one fingerprint.

    Attributes:
        number: its name in the matrix and the list: `1`, or `U1` for one of Hugging Face's. Bugs with one origin have
            one number.
        fingerprint: what `repro` takes.
        entry: the failure on the smallest case.
        smallest: the smallest case.
        differs: what the smallest case's config has that the plainest has not.
        cases: the ids of all its cases.
        ran: the number of cases on which the check gave anything but a skip.
        passes: the number of these on which it agreed.
        proves: what the check proves, and what a failure means.
        reproduce: the command line that shows it.
        rule: what its cases have in common that other cases have not: those that the check passes, or, where it passes
            none, those that fail in another way. None where there are no others, or no rule tells them apart.
        missed: the cases that fail like this although the rule is false of them.
        unjust: the cases that do not fail like this although the rule is true of them.
        around: how the check fared on cases that differ from the smallest in one flag.
        shrunk: how a fuzzing campaign came to the smallest case; None without one.
        confirmation: what became of it when it was run again alone; None where that was not to be done.
        evidence: what a closer look at the smallest case found; None without one.
        ladder: the smallest case's hook points, in causal order.
    """

    number: str
    fingerprint: str
    entry: RecordedOutcome
    smallest: CaseSpec
    differs: Mapping[str, Any]
    cases: tuple[str, ...]
    ran: int
    passes: int
    proves: str
    reproduce: str
    rule: Rule | None
    missed: tuple[str, ...] = ()
    unjust: tuple[str, ...] = ()
    around: tuple[Neighbour, ...] = ()
    shrunk: ShrunkFailure | None = None
    confirmation: Confirmation | None = None
    evidence: Evidence | None = None
    ladder: Ladder | None = None

    @property
    def facts(self) -> Mapping[str, str | None]:
        """What a list says of the bug, by name; None where there is nothing to say."""
        return {
            **wording.outcome_facts(self.entry.outcome),
            "rule": self.explanation,
            "starts": self.starts,
            "smallest": text.config(self.differs) or "the plainest config",
            "shrunk": self.shrinking,
            "passes": None if self.shrunk is None else self.shrunk.passing_words,
            "alone": None if self.confirmation is None else self.confirmation.caveat,
            "reproduce": self.reproduce,
        }

    @property
    def share(self) -> str:
        """`6 of 12 cases`: how many of the cases that the check looked at have it."""
        return f"{len(self.cases):,} of {plural(self.ran, 'case')}"

    @property
    def shrinking(self) -> str | None:
        """How a campaign came to the smallest case, in words."""
        shrunk = self.shrunk
        if shrunk is None:
            return None
        words = "it was kept from before"
        if shrunk.first:
            words = f"after {plural(shrunk.first, 'case')}, shrunk in {shrunk.calls:,}"
        if shrunk.cut:
            words += ", which the campaign's time cut off: there may be a smaller one"
        again, times = shrunk.again
        if times:
            words += f"; it came again {again} of {times} times in fresh processes"
        return words if shrunk.stable else f"UNSTABLE: {words}"

    @property
    def starts(self) -> str | None:
        """The first activation of the smallest case that differs, or else the first gradient on the way back.

        None where the failure says that itself, or nothing was seen to differ.
        """
        if self.ladder is None or not self.entry.outcome.verdict.gates:
            return None
        first, what = self.ladder.starts, "the first activation that differs"
        if first is None:
            first = self.ladder.starts_backward
            what = "the first gradient that differs on the way back, where every activation agrees"
        return None if first is None or first.where == self.entry.outcome.where else f"{first.where}, {what}"

    @property
    def explanation(self) -> str | None:
        """The rule in words, or why there is none; None where that goes without saying."""
        if self.rule is not None:
            return self.rule.state(self.support)
        if self.passes:
            return "nothing that is known of the cases tells them from those that pass"
        if len(self.cases) < self.ran:
            return "of the cases that the check looked at, none passes"
        return "every case that the check looked at" if self.ran > 1 else None

    @property
    def support(self) -> str | None:
        """How far the rule holds, in numbers."""
        if self.rule is None or self.passes:
            return None if self.rule is None else self.rule.count_support()
        every = self.rule.failing + self.rule.passing
        return f"all {every:,} cases fail; {self.rule.count_support('this way in', 'another way in')}"


Origin = tuple[str | None, ...]


def find_origin(outcome: Outcome) -> Origin | None:
    """Find what the exception behind an outcome has in common with others that one mistake of the adapter raises.

    That is its type and the function of the adapter that raised it. Where no code of the adapter's was running, as
    where a method has the wrong signature or gives something of the wrong type, the message takes the function's place.

    Returns:
        None where the outcome is no failure, or nothing was raised, or nobody knows where.
    """
    if not outcome.verdict.gates or outcome.exception is None:
        return None
    if outcome.site is not None:
        return outcome.verdict, outcome.exception, outcome.site
    if outcome.verdict is not Verdict.ERROR or outcome.message is None:
        return None  # two processes that died somewhere may have died of two things
    return outcome.verdict, outcome.exception, None, outcome.message


def smallest_case(specs: Iterable[CaseSpec], run: RunLine) -> CaseSpec:
    """Choose the case that is easiest to understand.

    A case of the flag matrix comes before a named one, then fewer flags off their plainest value, then smaller dims.

    Args:
        specs: the cases to choose from, at least one.
        run: the run that they are of, for its flags.

    Raises:
        ValueError: there is no case.
    """

    def size(spec: CaseSpec) -> tuple[bool, int, int | float, str]:
        strange = sum(not same_value(spec.config.get(name, values[0]), values[0]) for name, values in run.flags.items())
        dims = [
            value
            for name, value in spec.config.items()
            if name not in run.flags and isinstance(value, int | float) and not isinstance(value, bool)
        ]
        return spec.label is not None, strange, sum(dims), spec.id

    return min(specs, key=size)


def minimal_case(record: Record, fingerprint: str, cases: Collection[str]) -> CaseSpec:
    """Choose the case on which a failure is shown: the one to which a campaign shrank it, or else the smallest.

    Args:
        record: the record that has the failure.
        fingerprint: the fingerprint of the failure.
        cases: the ids of the cases to choose from.
    """
    shrunk = record.found.get(fingerprint)
    if shrunk is not None and shrunk.case in cases:
        return record.cases[shrunk.case]
    return smallest_case((record.cases[case] for case in cases), record.run)


def case_differences(record: Record, fingerprint: str, spec: CaseSpec) -> Mapping[str, Any]:
    """List what a case has that the plainest has not; if a campaign shrank it, its inputs are compared too.

    Args:
        record: the record that has the case.
        fingerprint: the fingerprint of the failure that is shown on the case.
        spec: the case.

    Returns:
        What differs, by name, with its value in this case.
    """
    shrunk = record.found.get(fingerprint)
    if shrunk is not None and shrunk.case == spec.id:
        return shrunk.differs
    return config_difference(spec.config, record.run)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistinctFailure:
    """Every failure with one fingerprint.

    Attributes:
        fingerprint: what they have in common.
        entry: the failure on the smallest case.
        smallest: the smallest case.
        cases: the ids of all its cases.
    """

    fingerprint: str
    entry: RecordedOutcome
    smallest: CaseSpec
    cases: tuple[str, ...]


def distinct_failures(index: OutcomeIndex, *, upstream: bool) -> list[DistinctFailure]:
    """List the distinct failures of a record: in the order of the checks, the most frequent first.

    Args:
        index: of the record.
        upstream: whether Hugging Face's own are wanted, or the adapter's.
    """
    record = index.record
    order = {check["id"]: place for place, check in enumerate(record.run.checks)}
    found = []
    for fingerprint, written in index.written.items():
        verdicts = {case: entry.outcome.verdict for case, entry in written.items()}
        cases = sorted(case for case, one in verdicts.items() if (one is Verdict.UPSTREAM if upstream else one.gates))
        if cases:
            spec = minimal_case(record, fingerprint, cases)
            found.append(
                DistinctFailure(fingerprint=fingerprint, entry=written[spec.id], smallest=spec, cases=tuple(cases))
            )
    return sorted(
        found, key=lambda one: (order.get(one.entry.outcome.check, len(order)), -len(one.cases), one.fingerprint)
    )


def find_bugs(record: Record, *, upstream: bool) -> tuple[Bug, ...]:
    """Find the bugs of a record, one for each fingerprint: in the order of the checks, the most frequent first.

    Args:
        record: what was run.
        upstream: whether Hugging Face's own are wanted, or the adapter's.
    """
    index = OutcomeIndex(record)
    docs = {check["id"]: check.get("doc", "") for check in record.run.checks}
    ran = index.cases(lambda entry: entry.outcome.verdict is not Verdict.SKIP)
    passing = index.cases(lambda entry: entry.outcome.verdict in (Verdict.PASS, Verdict.REDUCED))
    failing = index.cases(lambda entry: bool(entry.fingerprint))
    made = []
    numbers: dict[Origin | str, int] = {}
    for failure in distinct_failures(index, upstream=upstream):
        fingerprint, entry, spec, cases = failure.fingerprint, failure.entry, failure.smallest, failure.cases
        number = numbers.setdefault(find_origin(entry.outcome) or fingerprint, len(numbers) + 1)
        check = entry.outcome.check
        # Of a failure that needs a circumstance only those cases tell anything that were looked at in it.
        wanted = entry.outcome.circumstance
        looked = [case for case in ran[check] if not wanted or has_met(check, record.cases[case].circumstances, wanted)]
        passed = [case for case in passing.get(check, ()) if case in set(looked)]
        # Where no case passes, these failures are told from the check's other ones.
        others = passed or sorted({*failing[check]} - {*cases})
        rule = index.find_rule(cases, others, spec.id)
        # Adapters share fingerprints, so the id alone does not say which record it is in.
        where = shlex.quote(str(record.folder_of(spec.id)))
        made.append(
            Bug(
                number=f"U{number}" if upstream else str(number),
                fingerprint=fingerprint,
                entry=entry,
                smallest=spec,
                differs=case_differences(record, fingerprint, spec),
                cases=cases,
                ran=len(looked),
                passes=len(passed),
                proves=docs.get(check, ""),
                reproduce=f"verifier repro {shlex.quote(fingerprint)} {where}",
                rule=rule,
                missed=tuple(cases[place] for place in rule.missed) if rule else (),
                unjust=tuple(others[place] for place in rule.unjust) if rule else (),
                around=tuple(_find_neighbours(index, spec, check, fingerprint)),
                shrunk=record.found.get(fingerprint),
                confirmation=record.confirmations.get((fingerprint, spec.id)),
                evidence=record.evidence.get((fingerprint, spec.id)),
                ladder=record.ladders.get(spec.id),
            )
        )
    return tuple(made)


def _find_neighbours(index: OutcomeIndex, spec: CaseSpec, check: str, fingerprint: str) -> Iterator[Neighbour]:
    """Find the cases that differ from this one in one flag alone and on which the check ran."""
    for flag, values in index.record.run.flags.items():
        for value in values:
            case = replace(spec, config={**spec.config, flag: value}).id
            entry = index.entries.get((case, check))
            if case != spec.id and entry is not None:
                same = entry.fingerprint == fingerprint
                yield Neighbour(flag=flag, value=value, case=case, verdict=entry.outcome.verdict, same=same)
