"""The distinct failures of a record: one for each fingerprint, with its smallest case, its rule and its evidence."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from verifier.analysis.outcome_index import OutcomeIndex
from verifier.analysis.rules import Rule
from verifier.cases.spec import CaseSpec
from verifier.judging import wording
from verifier.judging.evidence import Evidence, Ladder
from verifier.judging.outcome import Verdict
from verifier.output import text
from verifier.output.text import plural
from verifier.record import Record, RecordedOutcome, RunLine
from verifier.record.case_description import config_difference, same_value
from verifier.record.fuzz_finding import ShrunkFailure, describe_passing_neighbours


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
    """One bug: every failure with one fingerprint.

    Attributes:
        number: `1` in the matrix and the list; `U1` for an upstream one.
        fingerprint: what `repro` takes.
        entry: the failure on the smallest case.
        smallest: that case.
        differs: what its config has that the plainest has not.
        cases: the ids of all its cases.
        ran: on how many cases the check gave anything but a skip.
        passes: on how many of these it agreed.
        proves: what the check proves, and what a failure means.
        reproduce: the command line.
        rule: what its cases have in common that those have not which the check passes, or, where it passes none, those
            that fail in another way; None where nothing is to be told apart, or nothing tells them apart.
        missed: cases that fail like this although the rule is false of them.
        unjust: cases that do not although the rule is true of them.
        around: how its check fared where one flag of the smallest case is another.
        shrunk: how a fuzzing campaign came to the smallest case; None where there was none.
        evidence: what a closer look at the smallest case found; None where there was none.
        ladder: that case's hook points.
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
    evidence: Evidence | None = None
    ladder: Ladder | None = None

    @property
    def facts(self) -> Mapping[str, str | None]:
        """What is said of it in a list, by name; None where there is nothing to say."""
        return {
            **wording.outcome_facts(self.entry.outcome),
            "rule": self.explanation,
            "starts": self.starts,
            "smallest": text.config(self.differs) or "the plainest config",
            "shrunk": self.shrinking,
            "passes": describe_passing_neighbours(self.shrunk),
            "reproduce": self.reproduce,
        }

    @property
    def share(self) -> str:
        """`6 of 12 cases`: how many of the cases that the check looked at have it."""
        return f"{len(self.cases):,} of {plural(self.ran, 'case')}"

    @property
    def shrinking(self) -> str | None:
        """How a campaign came to the smallest case, in words."""
        found = self.shrunk
        if found is None:
            return None
        said = (
            "it was kept from before"
            if not found.first
            else f"after {plural(found.first, 'case')}, shrunk in {found.calls:,}"
        )
        if found.cut:
            said += ", which the campaign's time cut off: there may be a smaller one"
        again, times = found.again
        if times:
            said += f"; it came again {again} of {times} times in fresh processes"
        return said if found.stable else f"UNSTABLE: {said}"

    @property
    def starts(self) -> str | None:
        """Where the smallest case's activations, or else its gradients, begin to differ; None where the failure says
        that itself, or nothing was seen to differ."""
        if self.ladder is None or not self.entry.outcome.verdict.gates:
            return None
        for rung, what in (
            (self.ladder.starts, "the first activation that differs"),
            (
                self.ladder.starts_backward,
                "the first gradient that differs on the way back, where every activation agrees",
            ),
        ):
            if rung is not None:
                return None if rung.where == self.entry.outcome.where else f"{rung.where}, {what}"
        return None

    @property
    def explanation(self) -> str | None:
        """The rule in words; None where there is none."""
        if self.rule is not None:
            return self.rule.state(self.support)
        if self.passes:
            return None
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


def smallest_case(specs: Iterable[CaseSpec], run: RunLine) -> CaseSpec:
    """Choose the case that is easiest to think about.

    A case of the flag matrix comes before a named one, then fewer flags off their plainest value, then smaller dims.
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
    """Choose the case at which a failure is shown: the one that a campaign shrank it to, or else the smallest."""
    shrunk = record.found.get(fingerprint)
    if shrunk is not None and shrunk.case in cases:
        return record.cases[shrunk.case]
    return smallest_case((record.cases[case] for case in cases), record.run)


def case_differences(record: Record, fingerprint: str, spec: CaseSpec) -> Mapping[str, Any]:
    """What the case has that the plainest has not; of one that a campaign shrank its inputs too."""
    shrunk = record.found.get(fingerprint)
    return (
        shrunk.differs if shrunk is not None and shrunk.case == spec.id else config_difference(spec.config, record.run)
    )


def find_bugs(record: Record, *, upstream: bool) -> tuple[Bug, ...]:
    """Find the bugs of a record, one for each fingerprint: in the order of the checks, the most frequent first.

    Args:
        record: what was run.
        upstream: whether Hugging Face's own are wanted, or the adapter's.
    """
    index = OutcomeIndex(record)
    order = {check["id"]: place for place, check in enumerate(record.run.checks)}
    docs = {check["id"]: check.get("doc", "") for check in record.run.checks}
    ran = index.cases(lambda entry: entry.outcome.verdict is not Verdict.SKIP)
    passing = index.cases(lambda entry: entry.outcome.verdict in (Verdict.PASS, Verdict.REDUCED))
    failing = index.cases(lambda entry: bool(entry.fingerprint))
    found = []
    for fingerprint, written in index.written.items():
        verdicts = {case: entry.outcome.verdict for case, entry in written.items()}
        cases = sorted(case for case, one in verdicts.items() if (one is Verdict.UPSTREAM if upstream else one.gates))
        if cases:
            spec = minimal_case(record, fingerprint, cases)
            check = written[spec.id].outcome.check
            found.append((order.get(check, len(order)), -len(cases), fingerprint, spec, cases))
    made = []
    for number, (_, _, fingerprint, spec, cases) in enumerate(sorted(found, key=lambda one: one[:3]), start=1):
        entry = index.written[fingerprint][spec.id]
        check = entry.outcome.check
        # Where no case passes, these failures are told from the check's other ones.
        others = passing.get(check) or sorted({*failing[check]} - {*cases})
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
                cases=tuple(cases),
                ran=len(ran[check]),
                passes=len(passing.get(check, ())),
                proves=docs.get(check, ""),
                reproduce=f"verifier repro {shlex.quote(fingerprint)} {where}",
                rule=rule,
                missed=tuple(cases[place] for place in rule.missed) if rule else (),
                unjust=tuple(others[place] for place in rule.unjust) if rule else (),
                around=tuple(_around(index, spec, check, fingerprint)),
                shrunk=record.found.get(fingerprint),
                evidence=record.evidence.get((fingerprint, spec.id)),
                ladder=record.ladders.get(spec.id),
            )
        )
    return tuple(made)


def _around(index: OutcomeIndex, spec: CaseSpec, check: str, fingerprint: str) -> Iterator[Neighbour]:
    """The cases that differ from this one in one flag alone, where the check ran."""
    for flag, values in index.record.run.flags.items():
        for value in values:
            case = replace(spec, config={**spec.config, flag: value}).id
            entry = index.entries.get((case, check))
            if case != spec.id and entry is not None:
                same = entry.fingerprint == fingerprint
                yield Neighbour(flag=flag, value=value, case=case, verdict=entry.outcome.verdict, same=same)
