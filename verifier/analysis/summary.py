"""What a record amounts to: verdict, matrix, bugs. Pure, and the same for terminal and page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from verifier.analysis.accepted import Baselined, baselined
from verifier.analysis.accepted import numbers as known_numbers
from verifier.analysis.bugs import Bug, find_bugs
from verifier.analysis.rows import Cell, Cells, Row, cell, rows
from verifier.cases.spec import DEPTHS, applies_to
from verifier.errors import ExitStatus
from verifier.judging.outcome import Verdict
from verifier.record import Record, RunLine
from verifier.record.excusing import dropped, judged, looked


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """A sentence and how many outcomes it is true of, by check."""

    text: str
    count: int
    checks: tuple[str, ...]


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
        findings: the adapter's bugs.
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
    findings: tuple[Bug, ...]
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
    baselined: Baselined | None

    @property
    def narrow_checks(self) -> int:
        """How many of the checks looked at some of the valid cases only, because no more was asked for."""
        if self.run.asked.get("everywhere"):
            return 0
        return len(_narrow(self.run))

    @property
    def failing_cases(self) -> int:
        """How many cases have a finding against the adapter."""
        return len({case for finding in self.findings for case in finding.cases})


# Its checks look at Hugging Face alone, so no verdict on an adapter can rest on them.
_NOT_ABOUT_THE_ADAPTER = "reference"
_MOST_NAMED = 8  # of the shards that are missing


def exit_status(
    valid: Set[str], verdicts: Mapping[tuple[str, str], Verdict], also: Set[Verdict] = frozenset()
) -> ExitStatus:
    """What a run that came to its end says: a green one needs a check that looked at the adapter on a valid case.

    Args:
        valid: the ids of the cases that HF accepts.
        verdicts: by case and check.
        also: the verdicts that gate besides those that always do.
    """
    if any(verdict.gates or verdict in also for verdict in verdicts.values()):
        return ExitStatus.DIFFERS
    looked = any(
        case in valid and verdict is not Verdict.SKIP and _about_the_adapter(check)
        for (case, check), verdict in verdicts.items()
    )
    return ExitStatus.CONFORMS if looked else ExitStatus.INCONCLUSIVE


def gating(run: RunLine) -> frozenset[Verdict]:
    """The verdicts that gate in this run besides those that always do, because it was asked for."""
    asked = run.asked.get("gate")
    return frozenset(verdict for verdict in Verdict if isinstance(asked, list) and verdict in asked)


def _about_the_adapter(check: str) -> bool:
    return check.partition(".")[0] != _NOT_ABOUT_THE_ADAPTER


def missing(record: Record) -> str | None:
    """`shards 2/4 and 3/4 are missing`; None where none is."""
    names = record.missing
    if not names:
        return None
    if len(names) == 1:
        return f"shard {names[0]} is missing"
    few = names if len(names) <= _MOST_NAMED else (*names[: _MOST_NAMED - 1], f"{len(names) - _MOST_NAMED + 1} more")
    return f"shards {', '.join(few[:-1])} and {few[-1]} are missing"


def _hollow(record: Record) -> str:
    """Why no verdict can rest on what ran."""
    if record.missing:
        return missing(record) or ""
    if record.contradicts_itself:
        return "the record is not as it was written"
    if not any(spec.valid for spec in record.cases.values()):
        return "no valid case was selected"
    reasons = _tallies(
        (entry.outcome.message or "no reason given", None)
        for entry in record.entries
        if entry.outcome.verdict is Verdict.SKIP
        and record.cases[entry.case].valid
        and _about_the_adapter(entry.outcome.check)
    )
    commonest = reasons[0].text if reasons else "none was selected for a valid case"
    return f"no check that looks at the adapter ran: {commonest}"


def summarise(record: Record) -> Summary:
    """The record's summary; failures that its baseline excuses are `known` in it."""
    record = judged(record)
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
    status = _status(record)
    held_against = baselined(record)
    held_back = held_against is not None and bool(held_against.dropped)
    return Summary(
        path=record.path,
        run=record.run,
        status=status,
        counts={verdict: counts[verdict] for verdict in Verdict if counts[verdict]},
        valid=sum(spec.valid for spec in specs),
        refused=sum(not spec.valid for spec in specs),
        areas=areas,
        rows=rows(record, cells, deciding, areas, quiet),
        refusals=_tallies((spec.reason or "no reason given", None) for spec in specs if not spec.valid),
        findings=ours,
        upstream=theirs,
        reduced=_tallies(
            (entry.outcome.check, entry.outcome.check)
            for entry in record.entries
            if entry.outcome.verdict is Verdict.REDUCED
        ),
        skips=_tallies(
            (entry.outcome.message or "no reason given", entry.outcome.check)
            for entry in record.entries
            if entry.outcome.verdict is Verdict.SKIP
        ),
        cells=cells,
        deciding=deciding,
        not_started=max(0, sum(record.run.planned.values()) - len(record.cases)),
        seconds=record.end.seconds if record.end else None,
        notes=(*record.notes, *_of_processes(record)),
        hollow=_hollow(record) if status is ExitStatus.INCONCLUSIVE and not held_back else None,
        expected=_expected(record),
        looked=sum(looked(record).values()),
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
    return {check["id"] for check in run.checks if check.get("applies") in DEPTHS[1:]}


def _of_processes(record: Record) -> list[str]:
    """Sentences on what no verdict tells: deaths that did not come again, and that the run was taken up again."""
    notes = []
    if record.missing:
        notes.append(f"{missing(record)}: this is of the cases of the others alone")
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


def _status(record: Record) -> ExitStatus:
    if record.end is None or record.end.stop == "interrupted":
        return ExitStatus.INTERRUPTED
    return ExitStatus.BROKEN if record.end.stop == "broken" else concluded(record)


def concluded(record: Record) -> ExitStatus:
    """What the record says if nothing more comes."""
    record = judged(record)
    valid = {spec.id for spec in record.cases.values() if spec.valid}
    verdicts = {(entry.case, entry.outcome.check): entry.outcome.verdict for entry in record.entries}
    found = exit_status(valid, verdicts, gating(record.run))
    if any(one.state.gates for one in (record.held.settled if record.held else ())):
        return ExitStatus.DIFFERS
    # What is no longer there, or no longer looked at, may be what failed.
    hollow = found is ExitStatus.CONFORMS and (record.contradicts_itself or record.missing or dropped(record))
    return ExitStatus.INCONCLUSIVE if hollow else found


def _areas(record: Record, order: Mapping[str, int]) -> tuple[str, ...]:
    seen = {entry.outcome.check for entry in record.entries}
    ordered = sorted(seen, key=lambda check: (order.get(check, len(order)), check))
    return tuple(dict.fromkeys(check.partition(".")[0] for check in ordered))


def _cells(record: Record, findings: Sequence[Bug], leaving: Set[str] = frozenset()) -> dict[str, dict[str, Cell]]:
    """Case → area → cell, of all checks but those that are to be left aside."""
    numbers = {finding.fingerprint: finding.number for finding in findings}
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
        cells[case][area] = cell(found, hit.get((case, area), ()))
    return cells


def _tallies(pairs: Iterable[tuple[str, str | None]]) -> tuple[Tally, ...]:
    """Equal texts counted together with the checks beside them, the most frequent first."""
    counts: Counter[str] = Counter()
    checks: dict[str, set[str]] = {}
    for text, check in pairs:
        counts[text] += 1
        checks.setdefault(text, set()).update([check] if check else [])
    ordered = sorted(counts, key=lambda text: (-counts[text], text))
    return tuple(Tally(text=text, count=counts[text], checks=tuple(sorted(checks[text]))) for text in ordered)
