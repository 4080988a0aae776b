"""How each check fared over all cases, for reports that have a line for a check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from verifier.analysis.baseline_comparison import AcceptedFailure
from verifier.analysis.bugs import Bug
from verifier.analysis.summary import Summary
from verifier.analysis.tallies import Tally, count_reasons, count_verdicts
from verifier.analysis.verdict import gating_verdicts
from verifier.judging import wording
from verifier.judging.outcome import Verdict
from verifier.output import text
from verifier.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSummary:
    """How a check that was selected fared over all cases.

    Attributes:
        check: its id.
        counts: its outcomes by verdict; empty where it applies to no case.
        reasons: why it did not run, and how often, the most frequent first.
        seconds: the time that it took, with all that it was the first to ask for.
        bugs: the adapter's bugs that it found.
        upstream: Hugging Face's bugs that it found.
        known: the known failures of this check.
        gated: the verdicts that it gave and that gate because the run's `--gate` names them.
    """

    check: str
    counts: Mapping[Verdict, int]
    reasons: tuple[Tally, ...]
    seconds: float
    bugs: tuple[Bug, ...]
    upstream: tuple[Bug, ...]
    known: tuple[AcceptedFailure, ...]
    gated: tuple[Verdict, ...]

    @property
    def looked(self) -> int:
        """The number of cases on which it looked."""
        return sum(count for verdict, count in self.counts.items() if verdict is not Verdict.SKIP)

    @property
    def skipped(self) -> int:
        """The number of cases on which it did not look."""
        return self.counts.get(Verdict.SKIP, 0)

    @property
    def stale(self) -> tuple[AcceptedFailure, ...]:
        """The known failures of this check that are not true any more."""
        return tuple(one for one in self.known if one.settled.state.gates)

    @property
    def excusing(self) -> tuple[AcceptedFailure, ...]:
        """The known failures that excuse outcomes of this check, where nothing else is wrong with it."""
        alone = not (self.bugs or self.stale or self.gated)
        return tuple(one for one in self.known if one.cases) if alone and self.counts.get(Verdict.KNOWN) else ()

    @property
    def result(self) -> str | None:
        """A verdict, or the state of a known failure that is not true any more; None where the check passes."""
        verdicts = [one.entry.outcome.verdict for one in self.bugs]
        if verdicts:
            return str(Verdict.FAIL if Verdict.FAIL in verdicts else verdicts[0])
        if self.stale or self.gated:
            return str(self.stale[0].settled.state if self.stale else self.gated[0])
        if self.counts.get(Verdict.KNOWN):
            return str(Verdict.KNOWN)
        return None if self.looked else str(Verdict.SKIP)

    @property
    def message(self) -> str:
        """What the result rests on, in a line; nothing where the check passes."""
        if self.bugs:
            cases = len({case for bug in self.bugs for case in bug.cases})
            facts = wording.outcome_facts(self.bugs[0].entry.outcome)
            number = f"{text.plural(len(self.bugs), 'failure')} in {cases:,} of {_cases(self.bugs[0].ran)}"
            return _join([number, *(facts[name] for name in ("where", "measured", "said"))])
        if self.stale or self.gated:
            stale = [
                f"the known failure {entry.number} is {entry.words}: {entry.settled.message or 'see below'}"
                for entry in self.stale
            ]
            gated = (f"{one.word} on {_cases(self.counts[one])}, which gates" for one in self.gated)
            return _join([*stale, *gated])
        if excused := self.counts.get(Verdict.KNOWN):
            reasons = _join(f"{entry.number} {entry.failure.reason}".strip() for entry in self.excusing)
            return text.line(f"known on {_cases(excused)}: {reasons}")
        if self.looked:
            return ""
        return text.line(self.reasons[0].text if self.reasons else "no case of this run is one that it looks at")

    @property
    def counted(self) -> str:
        """`12 cases: 6 ok, 6 FAIL`: on how many cases it looked, and what it saw."""
        counts = (f"{count:,} {verdict.word}" for verdict, count in self.counts.items() if verdict is not Verdict.SKIP)
        return f"{_cases(self.looked)}: {', '.join(counts)}"


def summarize_checks(record: Record, summary: Summary) -> tuple[CheckSummary, ...]:
    """Summarize every check of a record, in the order in which they ran.

    Args:
        record: what was run.
        summary: the summary of the same record.
    """
    entries = () if summary.baselined is None else summary.baselined.entries
    gates = gating_verdicts(summary.run)
    return tuple(
        CheckSummary(
            check=check,
            counts=count_verdicts(outcomes),
            reasons=count_reasons(outcomes),
            seconds=sum(outcome.seconds for outcome in outcomes),
            bugs=tuple(one for one in summary.bugs if one.entry.outcome.check == check),
            upstream=tuple(one for one in summary.upstream if one.entry.outcome.check == check),
            known=tuple(one for one in entries if one.failure.check == check),
            gated=tuple(verdict for verdict in count_verdicts(outcomes) if verdict in gates),
        )
        for check, outcomes in record.outcomes_by_check.items()
    )


def _cases(count: int) -> str:
    return text.plural(count, "case")


def _join(clauses: Iterable[str | None]) -> str:
    """Put the clauses that there are on one line."""
    return text.line("; ".join(filter(None, clauses)))
