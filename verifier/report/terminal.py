"""A summary in the terminal: matrix, bugs with the line that reproduces each, and the verdict last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from verifier.analysis.accepted import Baselined
from verifier.analysis.bugs import Bug
from verifier.analysis.causes import causes
from verifier.analysis.rows import Cell, Row
from verifier.analysis.summary import Summary, Tally, gating
from verifier.analysis.timing import slowest
from verifier.errors import ExitStatus
from verifier.judging import wording
from verifier.judging.outcome import Outcome, Verdict
from verifier.output import text
from verifier.output.console import show_facts
from verifier.record import Record

# More is read in the report, not in a terminal.
MAX_FINDINGS = 20
MAX_ROWS = 60
MAX_TALLIES = 8
MAX_CAUSES = 12
MAX_NAMES = 4

_STYLES: Mapping[Verdict, str] = {
    Verdict.PASS: "green",
    Verdict.REDUCED: "cyan",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold red",
    Verdict.CRASH: "bold magenta",
    Verdict.TIMEOUT: "bold magenta",
    Verdict.SKIP: "dim",
    Verdict.UPSTREAM: "yellow",
    Verdict.KNOWN: "yellow",
}
_GATING_WORDS = {Verdict.REDUCED: "reduced outcome", Verdict.SKIP: "not applicable outcome"}
_STATUS_STYLES: Mapping[ExitStatus, str] = {ExitStatus.CONFORMS: "bold green", ExitStatus.DIFFERS: "bold red"}


def show(summary: Summary, console: Console) -> None:
    """Everything but the verdict, which `show_verdict` says last."""
    _show_matrix(summary, console)
    _show_tallies(summary.refusals, "Refused by HF", "case", console)
    _show_causes(summary.findings, console)
    _show_findings(summary.findings, "Failures", console)
    _show_findings(
        summary.upstream, "Upstream: Hugging Face disagrees with itself; the adapter is not to blame", console
    )
    _show_baselined(summary.baselined, console)
    _show_tallies(summary.reduced, "Agrees to float32 rounding only", "outcome", console)
    _show_tallies(summary.skips, "Did not run", "check run", console)
    for note in summary.notes:
        console.print(Text(f"Note: {text.line(note)}", style="yellow"))


def show_verdict(summary: Summary, console: Console) -> None:
    """Counts, and the verdict with what it rests on."""
    counts = [f"{number:,} {wording.VERDICT_WORDS[verdict].lower()}" for verdict, number in summary.counts.items()]
    time = "" if summary.seconds is None else f", {text.duration(summary.seconds)}"
    console.print(
        Text(
            f"{text.plural(summary.valid, 'valid case')}, {summary.refused:,} refused by HF, "
            f"{checks(summary)}: {looked(summary)}; {', '.join(counts) or 'nothing ran'}"
            f"{time}, seed {summary.run.seed}"
        )
    )
    run = summary.run
    adapter = text.subject(run.adapter, run.adapter_name, run.adapter_version)
    line = Text(f"{text.line(run.family)} × {adapter}: ", style="bold")
    line.append(text.STATUS_WORDS[summary.status], style=_STATUS_STYLES.get(summary.status, "bold yellow"))
    if reason := reasons(summary):
        line.append(f" ({reason})")
    console.print(line, soft_wrap=True)  # one line, whatever the width: it is what a log is searched for


def checks(summary: Summary) -> str:
    """`116 checks (62 on a covering of the flags)`."""
    number = text.plural(len(summary.run.checks), "check")
    return f"{number} ({summary.narrow_checks} on a covering of the flags)" if summary.narrow_checks else number


def looked(summary: Summary) -> str:
    """`13,421 of 13,679 looked`: of the outcomes that were to come, how many are of a check that looked."""
    return f"{summary.looked:,} of {max(summary.expected, summary.looked):,} looked"


def reasons(summary: Summary) -> str:
    """What the verdict rests on, in a few words."""
    said = [text.line(summary.hollow)] if summary.hollow else []
    if summary.baselined is not None:
        said += summary.baselined.reasons
        excusing = sum(bool(one.cases) for one in summary.baselined.entries)
        said += [text.plural(excusing, "known failure")] if excusing else []
    if summary.findings:
        said.append(f"{text.plural(len(summary.findings), 'bug')} in {text.plural(summary.failing_cases, 'case')}")
    gated = gating(summary.run)
    for verdict, word in _GATING_WORDS.items():
        number = summary.counts.get(verdict, 0)
        said += [f"{text.plural(number, word)}, which {_gate(number)}"] if number and verdict in gated else []
    if summary.upstream:
        gates = f", which {_gate(len(summary.upstream))}" if Verdict.UPSTREAM in gated else ""
        said.append(text.plural(len(summary.upstream), "upstream finding") + gates)
    if summary.not_started:
        said.append(f"{text.plural(summary.not_started, 'case')} never run")
    return ", ".join(said)


def _gate(number: int) -> str:
    return "gates here" if number == 1 else "gate here"


def show_outcome(outcome: Outcome, console: Console) -> None:
    """One check's result with its evidence, as `repro` shows it."""
    line = Text(f"{wording.VERDICT_WORDS[outcome.verdict]:>8}", style=_STYLES[outcome.verdict])
    line.append(f"  {text.line(outcome.check)}", style="default")
    if measured := wording.against_bound(outcome):
        line.append(f"  {measured}", style="dim")
    console.print(line)
    if outcome.verdict.is_finding or outcome.verdict is Verdict.REDUCED:
        show_facts({"where": outcome.where, "said": wording.said(outcome), "in": outcome.site}, console)
    elif outcome.message:
        show_facts({"": outcome.message}, console)
    if outcome.verdict.gates and outcome.detail:
        console.print(Padding(Text(text.detail(outcome.detail), style="dim"), (0, 0, 0, 10), expand=False))


def show_slowest(record: Record, most: int, console: Console) -> None:
    """Print at most that many cases, the slowest first, each with the check that took most of its time."""
    found = slowest(record, most)
    if not found:
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    for one in found:
        most_of_it = f"; {one.check} took {text.duration(one.of_check)}" if one.check else ""
        grid.add_row(text.duration(one.seconds), one.case, Text(text.line(one.name) + most_of_it))
    console.print(Text("Slowest cases", style="bold"))
    console.print(Padding(grid, (0, 0, 1, 2), expand=False))


def _show_matrix(summary: Summary, console: Console) -> None:
    if summary.rows:
        flags = list(summary.run.flags)
        rows = summary.rows[:MAX_ROWS]
        table = _matrix(rows, flags, summary.areas, wide=True)
        wide = console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width
        if not wide:
            table = _matrix(rows, flags, summary.areas, wide=False)
        console.print(table)
        if any(None in row.flags.values() for row in rows):
            mark = "  * is" if wide else "  A flag that is not named takes"
            console.print(f"{mark} every value that occurs in that row's cases.")
        if len(summary.rows) > MAX_ROWS:
            console.print(f"  … and {text.plural(len(summary.rows) - MAX_ROWS, 'more row')} in the report")
        console.print()


def _matrix(rows: Sequence[Row], flags: Sequence[str], areas: Sequence[str], *, wide: bool) -> Table:
    """One row for combinations that fared alike.

    `*` is every value that its cases have, and `-` that no check of the area applies.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    if wide:
        for name in flags:
            table.add_column(text.line(name, 60).replace("_", "_\n"), no_wrap=True)
    else:
        table.add_column("combination")
    table.add_column("cases", justify="right", no_wrap=True)
    for area in areas:
        table.add_column(text.line(area, 20), no_wrap=True)
    for row in rows:
        if row.labels:
            described = [Text(_labels(row.labels), style="italic"), *([Text("")] * (len(flags) - 1 if wide else 0))]
        elif wide:
            described = [Text(_values(row.flags[name])) for name in flags]
        else:
            described = [Text(in_words(row))]
        count = f"{len(row.cases)}" + ("" if row.valid else " refused")
        table.add_row(*described, count, *(_cell(row.cells.get(area)) for area in areas))
    return table


def in_words(row: Row) -> str:
    """Only the flags that matter."""
    said = [f"{name}={_values(values)}" for name, values in row.flags.items() if values is not None]
    return " ".join(said) or "every combination"


def _labels(labels: Sequence[str]) -> str:
    """The first of them, and how many more."""
    first = text.line(labels[0], 22)
    return first if len(labels) == 1 else f"{first} +{len(labels) - 1}"


def _values(values: tuple[Any, ...] | None) -> str:
    return "*" if values is None else "|".join(text.value(one) for one in values)


def _cell(cell: Cell | None) -> Text:
    if cell is None or cell.verdict is None:
        return Text("-", style="dim")
    return Text(" ".join([wording.VERDICT_WORDS[cell.verdict], _numbers(cell.findings)]).strip(), _STYLES[cell.verdict])


def _numbers(findings: Sequence[str], most: int = 4) -> str:
    return ",".join(findings[:most]) + ("…" if len(findings) > most else "")


def _show_causes(findings: Sequence[Bug], console: Console) -> None:
    """What explains many failures, where several are explained alike or some are not shown."""
    found = causes(findings)
    if len(found) == len(findings) <= MAX_FINDINGS:
        return
    console.print(
        Text("Why: failures with the same rule that start at the same place are likely one", "bold underline")
    )
    for cause in found[:MAX_CAUSES]:
        numbers = _numbers([finding.number for finding in cause.findings], 12)
        line = Text(f"{text.plural(cause.cases, 'case'):>10}  ", no_wrap=False)
        line.append(f"at {text.line(cause.place, 100)}" if cause.place else "nowhere in particular", "bold")
        line.append(f"  ({numbers})", "dim")
        console.print(line)
        show_facts({"rule": cause.explanation}, console)
    if len(found) > MAX_CAUSES:
        console.print(f"     … and {len(found) - MAX_CAUSES} more in the report")
    console.print()


def _show_findings(findings: Sequence[Bug], title: str, console: Console) -> None:
    if not findings:
        return
    console.print(Text(title, style="bold underline"))
    for finding in findings[:MAX_FINDINGS]:
        outcome = finding.entry.outcome
        head = Text(f"{finding.number:>3}  ", style="bold")
        head.append(text.line(outcome.check), style="bold")
        head.append(f"  {wording.VERDICT_WORDS[outcome.verdict]}", style=_STYLES[outcome.verdict])
        head.append(f"  {len(finding.cases)} of {text.plural(finding.ran, 'case')}")
        console.print(head)
        show_facts(finding.facts, console)
    if len(findings) > MAX_FINDINGS:
        console.print(f"     … and {len(findings) - MAX_FINDINGS} more in the report")
    console.print()


def _show_baselined(found: Baselined | None, console: Console) -> None:
    """The known failures, what is not true of them any more first."""
    if found is None:
        return
    console.print(
        Text(f"Known failures, of {text.line(found.path)}: they excuse {found.share}", style="bold underline")
    )
    for one in found.stale[:MAX_FINDINGS]:
        head = Text(f"{one.number:>4} ", style="bold")
        head.append(f"{text.line(one.failure.fingerprint)} {text.line(one.failure.check)}", style="bold")
        head.append(f"  {one.words}", style="bold red")
        console.print(head)
        show_facts(
            {
                "said": one.settled.message,
                "rule": one.failure.rule or None,
                "reason": one.failure.reason,
                "see": one.follow_up or None,
            },
            console,
        )
    grid = Table.grid(padding=(0, 2))
    for one in found.steady[:MAX_TALLIES]:
        said = [one.number, one.failure.fingerprint, one.failure.check, text.plural(one.cases, "case")]
        grid.add_row(*(Text(text.line(part)) for part in said), Text(text.line(one.failure.reason, 120), style="dim"))
    console.print(Padding(grid, (0, 0, 0, 2), expand=False))
    more = max(0, len(found.steady) - MAX_TALLIES) + max(0, len(found.stale) - MAX_FINDINGS)
    if more:
        console.print(f"     … and {more} more in the report")
    if found.unlooked:
        console.print(f"     {text.plural(found.unlooked, 'entry', 'entries')} of checks that were not selected")
    if found.removal:
        console.print(Text(f"     What is fixed must go: {found.removal}"), soft_wrap=True)
    console.print()


def _few(checks: Sequence[str]) -> str:
    """Their names, or how many they are."""
    return text.line(", ".join(checks)) if len(checks) <= MAX_NAMES else text.plural(len(checks), "check")


def _show_tallies(tallies: Sequence[Tally], title: str, word: str, console: Console) -> None:
    if not tallies:
        return
    total = sum(tally.count for tally in tallies)
    console.print(Text(f"{title}: {text.plural(total, word)}", style="bold"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True)
    for tally in tallies[:MAX_TALLIES]:
        checks = f" ({_few(tally.checks)})" if set(tally.checks) - {tally.text} else ""
        grid.add_row(f"{tally.count:,}", Text(text.line(tally.text, 160) + checks))
    console.print(Padding(grid, (0, 0, 0, 2), expand=False))
    if len(tallies) > MAX_TALLIES:
        console.print(f"          … and {len(tallies) - MAX_TALLIES} more in the report")
    console.print()
