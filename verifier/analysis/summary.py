"""The summary of a record: its verdict, its matrix and its bugs, the same for every report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from verifier.adapter import Capability
from verifier.analysis.baseline_comparison import (
    BaselineComparison,
    compare_with_baseline,
    number_known_failures,
)
from verifier.analysis.bug_groups import BugGroup, group_bugs
from verifier.analysis.bugs import Bug, find_bugs
from verifier.analysis.rows import Cell, Cells, Row, make_cell, make_rows
from verifier.analysis.tallies import Tally, count_reasons, count_texts, count_verdicts
from verifier.analysis.verdict import (
    describe_missing_shards,
    explain_inconclusive,
    find_exit_status,
    gating_verdicts,
    is_about_adapter,
)
from verifier.cases.spec import Depth, applies_to, named_depth
from verifier.errors import ExitStatus
from verifier.judging.outcome import Outcome, Verdict, area_of
from verifier.output import text
from verifier.record import Record, RunLine
from verifier.record.confirmation import Alone
from verifier.record.excusing import apply_known_failures, count_cases_looked_at

UPSTREAM_TITLE = "Upstream: Hugging Face disagrees with itself; the adapter is not to blame"
# How the runner of checks, whose import takes seconds, begins the reason of a skip for want of a capability.
NOT_OFFERED = "not applicable: the adapter offers no "
# How the message begins of the check `hooks.present`, where an adapter says that it lacks points.
NOT_DECLARED = "not offered: "
_GATING_WORDS = {
    Verdict.REDUCED: "reduced outcome",
    Verdict.SKIP: "not applicable outcome",
    Verdict.UPSTREAM: "upstream finding",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a record says of an adapter.

    Attributes:
        path: the record's file.
        run: what was run.
        status: the exit status that the record stands for.
        counts: the number of outcomes of each verdict.
        valid: the number of cases that Hugging Face accepts.
        refused: the number of cases that Hugging Face refuses.
        areas: the areas that ran, in order.
        rows: the matrix, without refused combinations of which the refusal is as it should be.
        refusals: why Hugging Face refuses cases, and how many, whatever the adapter did with them.
        bugs: the adapter's bugs.
        upstream: Hugging Face's bugs.
        reduced: the checks in which the adapter agrees to float32 rounding only.
        skips: why checks did not run.
        cells: the matrix's cell of each case and area.
        deciding: the cells of those checks alone that looked at every case.
        not_started: the number of planned cases that were never run.
        seconds: the time of the whole run; None where it was cut off.
        notes: what a reader should know of the record, in sentences.
        hollow: why no verdict can rest on what ran; None where one can.
        expected: the number of outcomes about the adapter that the cases that were run should give.
        looked: in how many of these a check looked at the adapter, which are those without the skips.
        not_offered: the capabilities that a check needed and the adapter did not offer, and how many kinds of canonical
            hook points it says that it lacks.
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
    not_offered: tuple[str, ...]
    baselined: BaselineComparison | None

    @property
    def scope(self) -> str:
        """How much was looked at.

        `242 valid cases, 14 refused by HF, 116 checks: 13,421 of 13,679 looked at the adapter`. With
        `quick: ` before it if the run was a quick one.
        """
        checks = text.plural(len(self.run.checks), "check")
        narrow = 0 if self.run.asked.get("everywhere") else len(_narrow_checks(self.run))
        checks += f" ({narrow} on a covering of the flags)" if narrow else ""
        quick = "quick: " if self.run.asked.get("quick") else ""
        return (
            f"{quick}{text.plural(self.valid, 'valid case')}, {self.refused:,} refused by HF, {checks}: "
            f"{self.looked:,} of {self.expected:,} looked at the adapter"
        )

    @property
    def bug_groups(self) -> tuple[BugGroup, ...]:
        """The adapter's bugs, those with one origin together."""
        return group_bugs(self.bugs)

    @property
    def upstream_groups(self) -> tuple[BugGroup, ...]:
        """Hugging Face's bugs, as `bug_groups` has the adapter's."""
        return group_bugs(self.upstream)

    @property
    def counted(self) -> str:
        """The number of outcomes of each verdict: `42 ok, 6 FAIL`."""
        counts = [f"{number:,} {verdict.word}" for verdict, number in self.counts.items()]
        return ", ".join(counts) or "nothing ran"

    @property
    def reasons(self) -> str:
        """What the verdict rests on, in clauses."""
        clauses = [text.line(self.hollow)] if self.hollow else []
        if self.baselined is not None:
            clauses += self.baselined.reasons
            excusing = sum(bool(entry.cases) for entry in self.baselined.entries)
            clauses += [text.plural(excusing, "known failure")] if excusing else []
        if self.bugs:
            cases = {case for bug in self.bugs for case in bug.cases}
            clauses.append(f"{text.plural(len(self.bug_groups), 'bug')} in {text.plural(len(cases), 'case')}")
        gating = gating_verdicts(self.run)
        for verdict, word in _GATING_WORDS.items():
            number = len(self.upstream) if verdict is Verdict.UPSTREAM else self.counts.get(verdict, 0)
            gates = f", which {'gates' if number == 1 else 'gate'} here" if verdict in gating else ""
            if number and (gates or verdict is Verdict.UPSTREAM):
                clauses.append(text.plural(number, word) + gates)
        if self.not_started:
            clauses.append(f"{text.plural(self.not_started, 'case')} never run")
        return ", ".join(clauses)

    @property
    def headline(self) -> str:
        """The status in words; of an adapter that conforms also in how much.

        `CONFORMS in what it offers: 110 of 471 looked at; not offered: hooks, cache`.
        """
        words = text.STATUS_WORDS[self.status]
        if self.status is not ExitStatus.CONFORMS:
            return words
        share = f"{self.looked:,} of {self.expected:,} looked at"
        if not self.not_offered:
            return f"{words}: {share}"
        return f"{words} in what it offers: {share}; not offered: {', '.join(self.not_offered)}"

    @property
    def verdict(self) -> str:
        """`DOES NOT CONFORM (1 bug in 6 cases)`."""
        return f"{self.headline} ({self.reasons})" if self.reasons else self.headline


def summarize(record: Record) -> Summary:
    """Summarize a record, in which the failures that its baseline excuses have the verdict `known`."""
    record = apply_known_failures(record)
    outcomes = [entry.outcome for entry in record.entries]
    bugs, upstream = find_bugs(record, upstream=False), find_bugs(record, upstream=True)
    cells = _make_cells(record, (*bugs, *upstream))
    deciding = _make_cells(record, (*bugs, *upstream), without=_narrow_checks(record.run))
    areas = tuple(dict.fromkeys(area_of(check) for check, given in record.outcomes_by_check.items() if given))
    specs = record.cases.values()
    quiet = {
        spec.id
        for spec in specs
        if not spec.valid and not any(cell.verdict and cell.verdict.is_finding for cell in cells[spec.id].values())
    }
    status = find_exit_status(record)
    baselined = compare_with_baseline(record)
    looks_at_less = baselined is not None and bool(baselined.looking_at_less)
    return Summary(
        path=record.path,
        run=record.run,
        status=status,
        counts=count_verdicts(outcomes),
        valid=sum(spec.valid for spec in specs),
        refused=sum(not spec.valid for spec in specs),
        areas=areas,
        rows=make_rows(record, cells, deciding, areas, quiet),
        refusals=count_texts((spec.reason or "no reason given", None) for spec in specs if not spec.valid),
        bugs=bugs,
        upstream=upstream,
        reduced=count_texts((one.check, one.check) for one in outcomes if one.verdict is Verdict.REDUCED),
        skips=count_reasons(outcomes),
        cells=cells,
        deciding=deciding,
        not_started=max(0, sum(record.run.planned.values()) - len(record.cases)),
        seconds=record.end.seconds if record.end else None,
        notes=(*record.notes, *_list_notes(record, (*bugs, *upstream))),
        hollow=explain_inconclusive(record) if status is ExitStatus.INCONCLUSIVE and not looks_at_less else None,
        expected=max(_count_expected(record), sum(is_about_adapter(one.check) for one in outcomes)),
        looked=sum(count for check, count in count_cases_looked_at(record).items() if is_about_adapter(check)),
        not_offered=_list_not_offered(outcomes),
        baselined=baselined,
    )


def _count_expected(record: Record) -> int:
    """Count the outcomes about the adapter that the selected checks should give on the cases that were run."""
    applies = Counter(check.get("applies", "") for check in record.run.checks if is_about_adapter(check["id"]))
    return sum(
        number
        for spec in record.cases.values()
        for words, number in applies.items()
        if words and applies_to(words, spec)
    )


def _list_not_offered(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """List the capabilities for want of which checks did not look, in the order of the protocol."""
    reasons = {one.message or "" for one in outcomes if one.verdict is Verdict.SKIP}
    lacking = {
        name
        for reason in reasons
        if reason.startswith(NOT_OFFERED)
        for name in reason.removeprefix(NOT_OFFERED).split(" and no ")
    }
    points = {
        template
        for one in outcomes
        if one.check == "hooks.present" and one.verdict is Verdict.PASS and one.message
        for template in one.message.removeprefix(NOT_DECLARED).partition("; ")[0].split(", ")
    }
    kinds = [text.plural(len(points), "kind") + " of hook points"] if points else []
    return (*(name for name in get_args(Capability) if name in lacking), *kinds)


def _narrow_checks(run: RunLine) -> set[str]:
    """Find the checks that look at some of the valid cases only."""
    return {check["id"] for check in run.checks if named_depth(check.get("applies", "")) not in (None, Depth.ALL)}


def _list_notes(record: Record, bugs: Sequence[Bug]) -> list[str]:
    """Say in sentences what no verdict tells: missing shards or lines, processes that died once, a resumed run.

    Args:
        record: what was run.
        bugs: all of its bugs.
    """
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
    untried = sum(bug.confirmation is not None and bug.confirmation.alone is Alone.NOT_TRIED for bug in bugs)
    if untried:
        was = "failure was" if untried == 1 else "failures were"
        notes.append(f"{untried:,} {was} not run again alone in a fresh process")
    if record.resumed:
        notes.append("the run was taken up again; its time is counted from then on")
    return notes


def _make_cells(record: Record, bugs: Sequence[Bug], without: Set[str] = frozenset()) -> dict[str, dict[str, Cell]]:
    """Make the matrix's cell of each case and area, of all checks but those without which it is to be made."""
    numbers = {bug.fingerprint: bug.number for bug in bugs}
    known = number_known_failures(record.held)
    verdicts: dict[tuple[str, str], set[Verdict]] = {}
    found: dict[tuple[str, str], set[str]] = {}
    for entry in record.entries:
        if entry.outcome.check in without:
            continue
        place = entry.case, area_of(entry.outcome.check)
        verdicts.setdefault(place, set()).add(entry.outcome.verdict)
        number = (known if entry.outcome.verdict is Verdict.KNOWN else numbers).get(entry.fingerprint or "")
        if number is not None:
            found.setdefault(place, set()).add(number)
    cells: dict[str, dict[str, Cell]] = {case: {} for case in record.cases}
    for (case, area), seen in verdicts.items():
        cells[case][area] = make_cell(seen, found.get((case, area), ()))
    return cells
