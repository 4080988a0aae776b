"""What a record amounts to: verdict, matrix, bugs. Pure, and the same for terminal and page."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from verifier.errors import ExitStatus
from verifier.outcome import Verdict
from verifier.record import Entry, Record, RunLine
from verifier.report.rows import Cell, Row, cell, rows, same_value
from verifier.rules import Rule, explain
from verifier.spec import DEPTHS, CaseSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One bug: every failure with one fingerprint.

    Attributes:
        number: `1` in the matrix and the list; `U1` for an upstream one.
        fingerprint: what `repro` takes.
        entry: the failure on the smallest case.
        smallest: that case.
        differs: what its config has that the plainest has not.
        cases: the ids of all its cases.
        ran: on how many cases the check gave anything but a skip.
        proves: what the check proves, and what a failure means.
        reproduce: the command line.
        rule: what its cases have in common that those have not which the check passes; None where nothing is to be
            told apart.
    """

    number: str
    fingerprint: str
    entry: Entry
    smallest: CaseSpec
    differs: Mapping[str, Any]
    cases: tuple[str, ...]
    ran: int
    proves: str
    reproduce: str
    rule: Rule | None

    @property
    def explanation(self) -> str | None:
        """The rule in words; None where there is none."""
        if self.rule is not None:
            return self.rule.words
        return "every case that the check looked at" if len(self.cases) == self.ran > 1 else None


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
        unrun: how many planned cases never came to be run.
        seconds: of the whole run; None where it was cut off.
        notes: of the record's reader.
        hollow: why no verdict can rest on what ran; None where one can.
    """

    run: RunLine
    status: ExitStatus
    counts: Mapping[Verdict, int]
    valid: int
    refused: int
    areas: tuple[str, ...]
    rows: tuple[Row, ...]
    refusals: tuple[Tally, ...]
    findings: tuple[Finding, ...]
    upstream: tuple[Finding, ...]
    reduced: tuple[Tally, ...]
    skips: tuple[Tally, ...]
    unrun: int
    seconds: float | None
    notes: tuple[str, ...]
    hollow: str | None

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


def exit_status(valid: Set[str], verdicts: Mapping[tuple[str, str], Verdict]) -> ExitStatus:
    """What a run that came to its end says: a green one needs a check that looked at the adapter on a valid case.

    Args:
        valid: the ids of the cases that HF accepts.
        verdicts: by case and check.
    """
    if any(verdict.gates for verdict in verdicts.values()):
        return ExitStatus.DIFFERS
    looked = any(
        case in valid and verdict is not Verdict.SKIP and _about_the_adapter(check)
        for (case, check), verdict in verdicts.items()
    )
    return ExitStatus.CONFORMS if looked else ExitStatus.INCONCLUSIVE


def _about_the_adapter(check: str) -> bool:
    return check.partition(".")[0] != _NOT_ABOUT_THE_ADAPTER


def _hollow(record: Record) -> str:
    """Why no check looked at the adapter on a valid case."""
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
    """The record's summary."""
    counts = Counter(entry.outcome.verdict for entry in record.entries)
    order = {check["id"]: place for place, check in enumerate(record.run.checks)}
    ours = _findings(record, order, upstream=False)
    theirs = _findings(record, order, upstream=True)
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
    return Summary(
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
        unrun=max(0, sum(record.run.planned.values()) - len(record.cases)),
        seconds=record.end.seconds if record.end else None,
        notes=(*record.notes, *_of_processes(record)),
        hollow=_hollow(record) if status is ExitStatus.INCONCLUSIVE else None,
    )


def _narrow(run: RunLine) -> set[str]:
    """The checks that look at some of the valid cases only."""
    return {check["id"] for check in run.checks if check.get("applies") in DEPTHS[1:]}


def _of_processes(record: Record) -> list[str]:
    """Sentences on what no verdict tells: deaths that did not come again, and that the run was taken up again."""
    notes = [
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


def plainest(run: RunLine) -> dict[str, Any]:
    """The config that others are described by their difference from."""
    return {**run.dims, **{name: values[0] for name, values in run.flags.items()}}


def difference(config: Mapping[str, Any], run: RunLine) -> dict[str, Any]:
    """What the config has that the plainest one has not."""
    plain = plainest(run)
    return {name: value for name, value in config.items() if name not in plain or not same_value(plain[name], value)}


def smallest(specs: Iterable[CaseSpec], run: RunLine) -> CaseSpec:
    """The one that is easiest to think about: of the flag matrix if one is, whose dims are all the same; then with
    the fewest flags that are not plainest, then with the smallest dims."""

    def size(spec: CaseSpec) -> tuple[bool, int, float, str]:
        strange = sum(not same_value(spec.config.get(name, values[0]), values[0]) for name, values in run.flags.items())
        dims = [
            value
            for name, value in spec.config.items()
            if name not in run.flags and isinstance(value, int | float) and not isinstance(value, bool)
        ]
        return spec.label is not None, strange, float(sum(dims)), spec.id

    return min(specs, key=size)


def _status(record: Record) -> ExitStatus:
    if record.end is None or record.end.stop == "interrupted":
        return ExitStatus.INTERRUPTED
    if record.end.stop == "broken":
        return ExitStatus.BROKEN
    valid = {spec.id for spec in record.cases.values() if spec.valid}
    return exit_status(valid, {(entry.case, entry.outcome.check): entry.outcome.verdict for entry in record.entries})


def _findings(record: Record, order: Mapping[str, int], *, upstream: bool) -> tuple[Finding, ...]:
    by_print: dict[str, dict[str, Entry]] = {}
    ran: Counter[str] = Counter()
    passing: dict[str, list[str]] = {}
    for entry in record.entries:
        verdict = entry.outcome.verdict
        if verdict in (Verdict.PASS, Verdict.REDUCED):
            passing.setdefault(entry.outcome.check, []).append(entry.case)
        ran[entry.outcome.check] += verdict is not Verdict.SKIP
        if entry.fingerprint and (verdict is Verdict.UPSTREAM if upstream else verdict.gates):
            by_print.setdefault(entry.fingerprint, {})[entry.case] = entry

    def rule_of(entries: Mapping[str, Entry], check: str) -> Rule | None:
        sides = ([record.cases[case].config for case in sorted(cases)] for cases in (entries, passing.get(check, ())))
        return explain(*sides, flags=record.run.flags)

    docs = {check["id"]: check.get("doc", "") for check in record.run.checks}
    found = []
    for fingerprint, entries in by_print.items():
        spec = smallest((record.cases[case] for case in entries), record.run)
        check = entries[spec.id].outcome.check
        found.append((order.get(check, len(order)), -len(entries), fingerprint, spec, entries))
    found.sort(key=lambda one: one[:3])
    where = shlex.quote(str(record.path.parent))  # adapters share fingerprints, so the id alone does not say which
    return tuple(
        Finding(
            number=f"U{number}" if upstream else str(number),
            fingerprint=fingerprint,
            entry=entries[spec.id],
            smallest=spec,
            differs=difference(spec.config, record.run),
            cases=tuple(sorted(entries)),
            ran=ran[entries[spec.id].outcome.check],
            proves=docs.get(entries[spec.id].outcome.check, ""),
            reproduce=f"verifier repro {fingerprint} {where}",
            rule=rule_of(entries, entries[spec.id].outcome.check),
        )
        for number, (_, _, fingerprint, spec, entries) in enumerate(found, start=1)
    )


def _areas(record: Record, order: Mapping[str, int]) -> tuple[str, ...]:
    seen = {entry.outcome.check for entry in record.entries}
    ordered = sorted(seen, key=lambda check: (order.get(check, len(order)), check))
    return tuple(dict.fromkeys(check.partition(".")[0] for check in ordered))


def _cells(record: Record, findings: Sequence[Finding], leaving: Set[str] = frozenset()) -> dict[str, dict[str, Cell]]:
    """Case → area → cell, of all checks but those that are to be left aside."""
    numbers = {finding.fingerprint: finding.number for finding in findings}
    verdicts: dict[tuple[str, str], set[Verdict]] = {}
    hit: dict[tuple[str, str], set[str]] = {}
    for entry in record.entries:
        if entry.outcome.check in leaving:
            continue
        place = entry.case, entry.outcome.check.partition(".")[0]
        verdicts.setdefault(place, set()).add(entry.outcome.verdict)
        if entry.fingerprint in numbers:
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
