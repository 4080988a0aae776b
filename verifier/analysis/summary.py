"""What a record amounts to: verdict, matrix, bugs. Pure, and the same for terminal and page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from verifier.analysis.baseline_comparison import BaselineComparison, compare_with_baseline
from verifier.analysis.baseline_comparison import number_known_failures as known_numbers
from verifier.analysis.bugs import Bug, find_bugs
from verifier.analysis.labels import run_title
from verifier.analysis.rows import Cell, Cells, Row, make_cell, make_rows
from verifier.analysis.tallies import Tally, count_texts
from verifier.analysis.verdict import describe_missing_shards, explain_inconclusive, find_exit_status, gating_verdicts
from verifier.cases.spec import Depth, applies_to, named_depth
from verifier.errors import ExitStatus
from verifier.judging.outcome import Verdict
from verifier.output import text
from verifier.record import Record, RunLine
from verifier.record.excusing import apply_known_failures, count_cases_looked_at

UPSTREAM_TITLE = "Upstream: Hugging Face disagrees with itself; the adapter is not to blame"
_GATING_WORDS = {
    Verdict.REDUCED: "reduced outcome",
    Verdict.SKIP: "not applicable outcome",
    Verdict.UPSTREAM: "upstream finding",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Everything that a report shows.

    Attributes:
        path: where the record is.
        run: what was run.
        status: the exit status that the record stands for.
        counts: outcomes by verdict.
        valid: cases that HF accepts.
        refused: cases that HF refuses.
        areas: those that ran, in order.
        rows: the matrix; refused combinations whose refusal is as it should be are not in it.
        refusals: why HF refuses the refused ones, and how many, whatever the adapter did with them.
        bugs: the adapter's bugs.
        upstream: Hugging Face's.
        reduced: where the adapter agrees to float32 rounding only.
        skips: why checks did not run.
        cells: by case and area.
        deciding: the same of those checks alone that looked at every case.
        not_started: how many planned cases never came to be run.
        seconds: of the whole run; None where it was cut off.
        notes: of the record's reader.
        hollow: why no verdict can rest on what ran; None where one can.
        expected: how many outcomes the cases that were run were to give.
        looked: how many outcomes are of a check that looked, and so no skips.
        baselined: what the baseline did to the run; None where there was none.
    """

    path: Path
    run: RunLine
    status: ExitStatus
    counts: Mapping[Verdict, int]
    valid: int
    refused: int
    areas: tuple[str, ...]
    rows: tuple[Row, ...]
    refusals: tuple[Tally, ...]
    bugs: tuple[Bug, ...]
    upstream: tuple[Bug, ...]
    reduced: tuple[Tally, ...]
    skips: tuple[Tally, ...]
    cells: Cells
    deciding: Cells
    not_started: int
    seconds: float | None
    notes: tuple[str, ...]
    hollow: str | None
    expected: int
    looked: int
    baselined: BaselineComparison | None

    @property
    def narrow_checks(self) -> int:
        """How many of the checks looked at some of the valid cases only, because no more was asked for."""
        if self.run.asked.get("everywhere"):
            return 0
        return len(_narrow(self.run))

    @property
    def title(self) -> str:
        """`falcon × mine:Adapter (mine 1.0)`."""
        return run_title(self.run)

    @property
    def scope(self) -> str:
        """`242 valid cases, 14 refused by HF, 116 checks (62 on a covering of the flags): 13,421 of 13,679 looked`: of
        the outcomes that were to come, how many are of a check that looked."""
        checks = text.plural(len(self.run.checks), "check")
        checks += f" ({self.narrow_checks} on a covering of the flags)" if self.narrow_checks else ""
        return (
            f"{text.plural(self.valid, 'valid case')}, {self.refused:,} refused by HF, {checks}: "
            f"{self.looked:,} of {max(self.expected, self.looked):,} looked"
        )

    @property
    def counted(self) -> str:
        """`42 ok, 6 FAIL`: outcomes by verdict."""
        counts = [f"{number:,} {verdict.word}" for verdict, number in self.counts.items()]
        return ", ".join(counts) or "nothing ran"

    @property
    def reasons(self) -> str:
        """What the verdict rests on, in a few words."""
        said = [text.line(self.hollow)] if self.hollow else []
        if self.baselined is not None:
            said += self.baselined.reasons
            excusing = sum(bool(one.cases) for one in self.baselined.entries)
            said += [text.plural(excusing, "known failure")] if excusing else []
        if self.bugs:
            said.append(f"{text.plural(len(self.bugs), 'bug')} in {text.plural(self.failing_cases, 'case')}")
        gated = gating_verdicts(self.run)
        for verdict, word in _GATING_WORDS.items():
            number = len(self.upstream) if verdict is Verdict.UPSTREAM else self.counts.get(verdict, 0)
            gates = f", which {'gates' if number == 1 else 'gate'} here" if verdict in gated else ""
            said += [text.plural(number, word) + gates] if number and (gates or verdict is Verdict.UPSTREAM) else []
        if self.not_started:
            said.append(f"{text.plural(self.not_started, 'case')} never run")
        return ", ".join(said)

    @property
    def verdict(self) -> str:
        """`DOES NOT CONFORM (1 bug in 6 cases)`."""
        words = text.STATUS_WORDS[self.status]
        return f"{words} ({self.reasons})" if self.reasons else words

    @property
    def failing_cases(self) -> int:
        """How many cases have a bug against the adapter."""
        return len({case for bug in self.bugs for case in bug.cases})


def summarize(record: Record) -> Summary:
    """The record's summary; failures that its baseline excuses are `known` in it."""
    record = apply_known_failures(record)
    counts = Counter(entry.outcome.verdict for entry in record.entries)
    order = {check["id"]: place for place, check in enumerate(record.run.checks)}
    ours, theirs = find_bugs(record, upstream=False), find_bugs(record, upstream=True)
    cells = _cells(record, (*ours, *theirs))
    deciding = _cells(record, (*ours, *theirs), leaving=_narrow(record.run))
    areas = _areas(record, order)
    specs = record.cases.values()
    quiet = {
        spec.id
        for spec in specs
        if not spec.valid and not any(cell.verdict and cell.verdict.is_finding for cell in cells[spec.id].values())
    }
    status = find_exit_status(record)
    held_against = compare_with_baseline(record)
    held_back = held_against is not None and bool(held_against.looking_at_less)
    return Summary(
        path=record.path,
        run=record.run,
        status=status,
        counts={verdict: counts[verdict] for verdict in Verdict if counts[verdict]},
        valid=sum(spec.valid for spec in specs),
        refused=sum(not spec.valid for spec in specs),
        areas=areas,
        rows=make_rows(record, cells, deciding, areas, quiet),
        refusals=count_texts((spec.reason or "no reason given", None) for spec in specs if not spec.valid),
        bugs=ours,
        upstream=theirs,
        reduced=count_texts(
            (entry.outcome.check, entry.outcome.check)
            for entry in record.entries
            if entry.outcome.verdict is Verdict.REDUCED
        ),
        skips=count_texts(
            (entry.outcome.message or "no reason given", entry.outcome.check)
            for entry in record.entries
            if entry.outcome.verdict is Verdict.SKIP
        ),
        cells=cells,
        deciding=deciding,
        not_started=max(0, sum(record.run.planned.values()) - len(record.cases)),
        seconds=record.end.seconds if record.end else None,
        notes=(*record.notes, *_of_processes(record)),
        hollow=explain_inconclusive(record) if status is ExitStatus.INCONCLUSIVE and not held_back else None,
        expected=_expected(record),
        looked=sum(count_cases_looked_at(record).values()),
        baselined=held_against,
    )


def _expected(record: Record) -> int:
    """How many outcomes the checks that were selected give on the cases that were run."""
    applies = Counter(check.get("applies", "") for check in record.run.checks)
    return sum(
        number
        for spec in record.cases.values()
        for words, number in applies.items()
        if words and applies_to(words, spec)
    )


def _narrow(run: RunLine) -> set[str]:
    """The checks that look at some of the valid cases only."""
    return {check["id"] for check in run.checks if named_depth(check.get("applies", "")) not in (None, Depth.ALL)}


def _of_processes(record: Record) -> list[str]:
    """Sentences on what no verdict tells: deaths that did not come again, and that the run was taken up again."""
    notes = []
    if record.missing:
        notes.append(f"{describe_missing_shards(record)}: this is of the cases of the others alone")
    if record.contradicts_itself:
        notes.append("the last line counts other outcomes than the record holds: lines are missing, or were changed")
    notes += [
        f"the process {lost.reason} in {lost.check} on case {lost.case}, and did not when the case was run again "
        f"alone: it is not held against the adapter, but look at it"
        for lost in record.unrepeated
    ]
    notes += [
        f"the process {lost.reason} in {lost.check} on case {lost.case}, which was not run again before the run stopped"
        for lost in record.lost
        if lost.case not in record.done
    ]
    if record.resumed:
        notes.append("the run was taken up again; its time is counted from then on")
    return notes


def _areas(record: Record, order: Mapping[str, int]) -> tuple[str, ...]:
    seen = {entry.outcome.check for entry in record.entries}
    ordered = sorted(seen, key=lambda check: (order.get(check, len(order)), check))
    return tuple(dict.fromkeys(check.partition(".")[0] for check in ordered))


def _cells(record: Record, bugs: Sequence[Bug], leaving: Set[str] = frozenset()) -> dict[str, dict[str, Cell]]:
    """Case → area → cell, of all checks but those that are to be left aside."""
    numbers = {bug.fingerprint: bug.number for bug in bugs}
    accepted = known_numbers(record.held)
    verdicts: dict[tuple[str, str], set[Verdict]] = {}
    hit: dict[tuple[str, str], set[str]] = {}
    for entry in record.entries:
        if entry.outcome.check in leaving:
            continue
        place = entry.case, entry.outcome.check.partition(".")[0]
        verdicts.setdefault(place, set()).add(entry.outcome.verdict)
        if entry.outcome.verdict is Verdict.KNOWN:
            hit.setdefault(place, set()).add(accepted[entry.fingerprint or ""])
        elif entry.fingerprint in numbers:
            hit.setdefault(place, set()).add(numbers[entry.fingerprint])
    cells: dict[str, dict[str, Cell]] = {case: {} for case in record.cases}
    for (case, area), found in verdicts.items():
        cells[case][area] = make_cell(found, hit.get((case, area), ()))
    return cells
