"""Print a summary in the terminal: the matrix, the bugs with the line that reproduces each, and the verdict last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from verifier.analysis.baseline_comparison import BaselineComparison
from verifier.analysis.bug_groups import BugGroup
from verifier.analysis.causes import find_causes
from verifier.analysis.rows import Cell, Row
from verifier.analysis.summary import UPSTREAM_TITLE, Summary
from verifier.analysis.tallies import Tally
from verifier.analysis.timing import find_slowest_cases
from verifier.canonical import template_of
from verifier.errors import ExitStatus
from verifier.judging import wording
from verifier.judging.outcome import Outcome, Verdict
from verifier.output import text
from verifier.output.console import show_facts
from verifier.record import Record
from verifier.record.known_failure import EntryState

# More is read in the report, not in a terminal.
MAX_BUGS = 20
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
_STATUS_STYLES: Mapping[ExitStatus, str] = {ExitStatus.CONFORMS: "bold green", ExitStatus.DIFFERS: "bold red"}


def show(summary: Summary, console: Console) -> None:
    """Print everything of a summary but its verdict, which `show_verdict` prints last.

    Args:
        summary: what is printed.
        console: where it is printed.
    """
    _show_matrix(summary, console)
    _show_tallies(summary.refusals, "Refused by HF", "case", console)
    _show_causes(summary, console)
    _show_bugs(summary.bug_groups, "Failures", console)
    _show_bugs(summary.upstream_groups, UPSTREAM_TITLE, console)
    _show_baselined(summary.baselined, console)
    _show_tallies(summary.reduced, "Agrees to float32 rounding only", "outcome", console)
    _show_tallies(summary.skips, "Did not run", "check run", console)
    for note in summary.notes:
        console.print(Text(f"Note: {text.line(note)}", style="yellow"))


def show_verdict(summary: Summary, console: Console) -> None:
    """Print the counts, and the verdict with what it rests on.

    Args:
        summary: whose counts and verdict are printed.
        console: where it is printed.
    """
    time = "" if summary.seconds is None else f", {text.duration(summary.seconds)}"
    console.print(Text(f"{summary.scope}; {summary.counted.lower()}{time}, seed {summary.run.seed}"))
    show_status(summary.run.title, summary.status, summary.headline, summary.reasons, console)


def show_status(title: str, status: ExitStatus, words: str, reason: str, console: Console) -> None:
    """Print the last line of a command, on one line whatever the width: it is what people search a log for.

    Args:
        title: what the status is of, at the beginning of the line.
        status: the exit status, which decides the colour.
        words: the status in words.
        reason: what it rests on; an empty one is left out.
        console: where it is printed.
    """
    line = Text(f"{title}: ", style="bold")
    line.append(words, style=_STATUS_STYLES.get(status, "bold yellow"))
    line.append(f" ({reason})" if reason else "")
    console.print(line, soft_wrap=True)


def headline(number: str, outcome: Outcome, share: str, style: str) -> Text:
    """Make the first line of a failure: its number, its check, its verdict, and in how many cases it is.

    Args:
        number: its number in the list, which need not be a whole number: `3`, `U1`.
        outcome: an outcome that has the failure.
        share: in how many cases it is, in words.
        style: rich's style of the verdict.
    """
    head = Text(f"{number:>3}  ", style="bold")
    head.append(text.line(outcome.check, 100), style="bold")
    head.append(f"  {outcome.verdict.word}", style=style)
    head.append(f"  {share}", style="not bold")
    head.append(_spell_place(outcome), style="not bold")
    return head


def _spell_place(outcome: Outcome) -> str:
    """Spell the place, and what the circumstance must have, which belong to the failure's name; empty without any."""
    when = wording.circumstance_words(outcome.circumstance)
    place = template_of(outcome.where) if outcome.where else outcome.site or ""
    words = f"{text.line(place, 60)} {when}".strip()
    return f"  {words}" if words else ""


def show_left(left: int, console: Console, elsewhere: str = "in the report") -> None:
    """Print how many of a list are not shown, if any.

    Args:
        left: how many are not shown; 0 or less prints nothing.
        console: where it is printed.
        elsewhere: where they can be found.
    """
    if left > 0:
        between = "," if elsewhere.startswith("which") else ""
        console.print(f"     … and {left:,} more{between} {elsewhere}")


def show_tallies(
    rows: Sequence[tuple[int, str]], title: str, console: Console, *, most: int, elsewhere: str = "in the report"
) -> None:
    """Print sentences, each with the number of outcomes of which it is true, and how many of them are left out.

    Args:
        rows: each number with its sentence, in the order in which they are printed.
        title: the line above them.
        console: where it is printed.
        most: how many of the sentences are shown.
        elsewhere: where the others can be found.
    """
    console.print(Text(title, style="bold"))
    _show_grid([(f"{count:,}", sentence) for count, sentence in rows[:most]], console)
    show_left(len(rows) - most, console, elsewhere)
    console.print()


def _show_grid(rows: Sequence[Sequence[str]], console: Console, below: int = 0) -> None:
    """Print rows of texts, of which the last may be long."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True)
    for row in rows:
        grid.add_row(*map(Text, row))
    console.print(Padding(grid, (0, 0, below, 2), expand=False))


def show_outcome(outcome: Outcome, console: Console) -> None:
    """Print one check's outcome with its evidence, as `repro` shows it.

    Args:
        outcome: what is printed.
        console: where it is printed.
    """
    line = Text(f"{outcome.verdict.word:>8}", style=_STYLES[outcome.verdict])
    line.append(f"  {text.line(outcome.check)}", style="default")
    line.append(_spell_place(outcome), style="default")
    if measured := wording.error_against_bound(outcome):
        line.append(f"  {measured}", style="dim")
    console.print(line)
    if outcome.verdict.is_finding or outcome.verdict is Verdict.REDUCED:
        show_facts({**wording.outcome_facts(outcome), "measured": None}, console)
    elif outcome.message:
        show_facts({"": outcome.message}, console)
    if outcome.verdict.gates and outcome.detail:
        console.print(Padding(Text(text.detail(outcome.detail), style="dim"), (0, 0, 0, 10), expand=False))


def show_slowest(record: Record, most: int, console: Console) -> None:
    """Print at most that many cases, the slowest first, each with the check that took most of its time.

    Args:
        record: what was run.
        most: the largest number of cases.
        console: where it is printed.
    """
    rows = []
    for slow in find_slowest_cases(record, most):
        dearest = f"; {slow.check} took {text.duration(slow.of_check)}" if slow.check else ""
        rows.append((text.duration(slow.seconds), slow.case, text.line(slow.name) + dearest))
    if rows:
        console.print(Text("Slowest cases", style="bold"))
        _show_grid(rows, console, below=1)


def _show_matrix(summary: Summary, console: Console) -> None:
    """Print the matrix with a column for each flag, or, where that is too wide, with one for all flags."""
    if not summary.rows:
        return
    flags = list(summary.run.flags)
    rows = summary.rows[:MAX_ROWS]
    table = _make_matrix(rows, flags, summary.areas, wide=True)
    wide = console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width
    console.print(table if wide else _make_matrix(rows, flags, summary.areas, wide=False))
    if any(None in row.flags.values() for row in rows):
        mark = "  * is" if wide else "  A flag that is not named takes"
        console.print(f"{mark} every value that occurs in that row's cases.")
    if len(summary.rows) > MAX_ROWS:
        console.print(f"  … and {text.plural(len(summary.rows) - MAX_ROWS, 'more row')} in the report")
    console.print()


def _make_matrix(rows: Sequence[Row], flags: Sequence[str], areas: Sequence[str], *, wide: bool) -> Table:
    """Make the matrix, a row for combinations that fared alike.

    `*` is every value that the row's cases have, and `-` means that no check of the area applies.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name in flags if wide else ["combination"]:
        table.add_column(text.line(name, 60).replace("_", "_\n"), no_wrap=wide)
    table.add_column("cases", justify="right", no_wrap=True)
    for area in areas:
        table.add_column(text.line(area, 20), no_wrap=True)
    for row in rows:
        if row.labels:
            described = [
                Text(_spell_labels(row.labels), style="italic"),
                *([Text("")] * (len(flags) - 1 if wide else 0)),
            ]
        elif wide:
            described = [Text(row.terse_values[name]) for name in flags]
        else:
            described = [Text(row.words)]
        count = f"{len(row.cases)}" + ("" if row.valid else " refused")
        table.add_row(*described, count, *(_spell_cell(row.cells.get(area)) for area in areas))
    return table


def _spell_labels(labels: Sequence[str]) -> str:
    """Name the first label, and say how many more there are."""
    first = text.line(labels[0], 22)
    return first if len(labels) == 1 else f"{first} +{len(labels) - 1}"


def _spell_cell(cell: Cell | None) -> Text:
    """Spell a cell of the matrix: its verdict, and the bugs' numbers."""
    if cell is None or cell.verdict is None:
        return Text("-", style="dim")
    return Text(" ".join([cell.verdict.word, _spell_numbers(cell.numbers)]).strip(), _STYLES[cell.verdict])


def _spell_numbers(bugs: Sequence[str], most: int = 4) -> str:
    """Name the first bugs by their numbers: `1,2,3,4…`."""
    return ",".join(bugs[:most]) + ("…" if len(bugs) > most else "")


def _show_causes(summary: Summary, console: Console) -> None:
    """Print what explains many failures, where several have one explanation or some are not shown."""
    found = find_causes(summary.bugs)
    if len(found) == len(summary.bug_groups) <= MAX_BUGS:
        return
    console.print(
        Text("Why: failures with the same rule that start at the same place are likely one", "bold underline")
    )
    for cause in found[:MAX_CAUSES]:
        numbers = _spell_numbers([group.lead.number for group in cause.groups], 12)
        line = Text(f"{text.plural(cause.cases, 'case'):>10}  ", no_wrap=False)
        line.append(f"at {text.line(cause.place, 100)}" if cause.place else "nowhere in particular", "bold")
        line.append(f"  ({numbers})", "dim")
        console.print(line)
        show_facts({"rule": cause.lead.explanation}, console)
    show_left(len(found) - MAX_CAUSES, console)
    console.print()


def _show_bugs(groups: Sequence[BugGroup], title: str, console: Console) -> None:
    """Print the first bugs with all that is known of them, those with one origin once."""
    if not groups:
        return
    console.print(Text(title, style="bold underline"))
    for group in groups[:MAX_BUGS]:
        lead = group.lead
        outcome = lead.entry.outcome
        console.print(headline(lead.number, outcome, lead.share, _STYLES[outcome.verdict]))
        show_facts(group.facts, console)
    show_left(len(groups) - MAX_BUGS, console)
    console.print()


def _show_baselined(found: BaselineComparison | None, console: Console) -> None:
    """Print the known failures, those that are not true any more first."""
    if found is None:
        return
    console.print(
        Text(f"Known failures, of {text.line(found.path)}: they excuse {found.share}", style="bold underline")
    )
    for entry in found.stale[:MAX_BUGS]:
        failure = entry.failure
        head = Text(f"{entry.number:>4} ", style="bold")
        head.append(f"{text.line(failure.fingerprint)} {text.line(failure.check)}", style="bold")
        head.append(f"  {entry.words}", style="bold red")
        console.print(head)
        facts = {
            "said": entry.settled.message,
            "rule": failure.rule,
            "reason": failure.reason,
            "see": entry.follow_up,
        }
        show_facts(facts, console)
    grid = Table.grid(padding=(0, 2))
    still_failing = found.in_state(EntryState.KNOWN)
    for entry in still_failing[:MAX_TALLIES]:
        parts = (entry.number, entry.failure.fingerprint, entry.failure.check, text.plural(entry.cases, "case"))
        reason = Text(text.line(entry.failure.reason, 120), style="dim")
        grid.add_row(*(Text(text.line(part)) for part in parts), reason)
    console.print(Padding(grid, (0, 0, 0, 2), expand=False))
    show_left(max(0, len(still_failing) - MAX_TALLIES) + max(0, len(found.stale) - MAX_BUGS), console)
    if not_run := found.in_state(EntryState.NOT_RUN):
        console.print(f"     {text.plural(len(not_run), 'entry', 'entries')} of checks that were not selected")
    if found.removal:
        console.print(Text(f"     What is fixed must go: {found.removal}"), soft_wrap=True)
    console.print()


def _show_tallies(tallies: Sequence[Tally], title: str, word: str, console: Console) -> None:
    """Print why cases or checks are as they are, each reason with the checks that it concerns."""
    rows = []
    for tally in tallies:
        few = len(tally.checks) <= MAX_NAMES
        checks = text.line(", ".join(tally.checks)) if few else text.plural(len(tally.checks), "check")
        named = f" ({checks})" if set(tally.checks) - {tally.text} else ""
        rows.append((tally.count, text.line(tally.text, 160) + named))
    if rows:
        total = text.plural(sum(tally.count for tally in tallies), word)
        show_tallies(rows, f"{title}: {total}", console, most=MAX_TALLIES)
