"""How each check fared over all cases: for reports that have a line for a check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from verifier.analysis.baseline_comparison import AcceptedFailure
from verifier.analysis.bugs import Bug
from verifier.analysis.summary import Summary
from verifier.analysis.verdict import gating_verdicts
from verifier.judging import wording
from verifier.judging.outcome import Verdict
from verifier.output import text
from verifier.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSummary:
    """A check that was selected.

    Attributes:
        check: its id.
        counts: its outcomes by verdict; empty where no case was for it.
        reasons: why it did not run, and how often, the most frequent first.
        seconds: what it took, with what it was the first to ask for.
        bugs: the adapter's that it found.
        upstream: Hugging Face's that it found.
        known: the known failures of it.
        gated: the verdicts that it gave and that gate because the run was asked for that.
    """

    check: str
    counts: Mapping[Verdict, int]
    reasons: tuple[tuple[str, int], ...]
    seconds: float
    bugs: tuple[Bug, ...]
    upstream: tuple[Bug, ...]
    known: tuple[AcceptedFailure, ...]
    gated: tuple[Verdict, ...]

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

    @property
    def stale(self) -> tuple[AcceptedFailure, ...]:
        """The known failures that are not true of it any more."""
        return tuple(one for one in self.known if one.settled.state.gates)

    @property
    def excusing(self) -> tuple[AcceptedFailure, ...]:
        """The known failures that excuse something of it, where it fails on their account alone."""
        alone = not (self.bugs or self.stale or self.gated)
        return tuple(one for one in self.known if one.cases) if alone and self.counts.get(Verdict.KNOWN) else ()

    @property
    def result(self) -> str | None:
        """What it comes to: a verdict, or the state of a known failure that is not true any more; None where it
        passes."""
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
        """What its result rests on, in a line; nothing where it passes."""
        if self.bugs:
            cases = len({case for one in self.bugs for case in one.cases})
            facts = wording.outcome_facts(self.bugs[0].entry.outcome)
            number = f"{text.plural(len(self.bugs), 'failure')} in {cases:,} of {_cases(self.bugs[0].ran)}"
            said = [number, *filter(None, (facts[name] for name in ("where", "measured", "said")))]
        elif self.stale or self.gated:
            said = [
                f"the known failure {one.number} is {one.words}: {one.settled.message or 'see below'}"
                for one in self.stale
            ]
            said += [f"{verdict.word} on {_cases(self.counts[verdict])}, which gates" for verdict in self.gated]
        elif excused := self.counts.get(Verdict.KNOWN):
            said = [f"{one.number} {one.failure.reason}".strip() for one in self.excusing]
            return text.line(f"known on {_cases(excused)}: {'; '.join(said)}")
        elif not self.looked:
            said = [self.reasons[0][0] if self.reasons else "no case of this run is one that it looks at"]
        else:
            said = []
        return text.line("; ".join(said))

    @property
    def counted(self) -> str:
        """`12 cases: 6 ok, 6 FAIL`: on how many cases it looked, and what it saw."""
        counts = (f"{count:,} {verdict.word}" for verdict, count in self.counts.items() if verdict is not Verdict.SKIP)
        return f"{_cases(self.looked)}: {', '.join(counts)}"


def summarize_checks(record: Record, summary: Summary) -> tuple[CheckSummary, ...]:
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
    entries = () if summary.baselined is None else summary.baselined.entries
    gates = gating_verdicts(summary.run)
    return tuple(
        CheckSummary(
            check=check,
            counts={verdict: found[verdict] for verdict in Verdict if found[verdict]},
            reasons=tuple(sorted(reasons.get(check, Counter()).items(), key=lambda item: (-item[1], item[0]))),
            seconds=seconds.get(check, 0.0),
            bugs=tuple(one for one in summary.bugs if one.entry.outcome.check == check),
            upstream=tuple(one for one in summary.upstream if one.entry.outcome.check == check),
            known=tuple(one for one in entries if one.failure.check == check),
            gated=tuple(verdict for verdict in Verdict if found[verdict] and verdict in gates),
        )
        for check, found in counts.items()
    )


def _cases(count: int) -> str:
    return text.plural(count, "case")
