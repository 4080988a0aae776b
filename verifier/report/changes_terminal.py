"""What a change broke and mended, in the terminal: what differs between the runs first, the verdict last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from verifier.analysis.changes import Change, Changes, Kind
from verifier.analysis.summary import Tally
from verifier.errors import ExitStatus
from verifier.judging import wording
from verifier.output import text
from verifier.output.console import show_facts
from verifier.report import changes_words as words

# More is read in the JSON, not in a terminal.
MOST_FAILURES, MOST_IN_A_LIST, MOST_DIFFERENCES = 20, 12, 20

_STYLES: Mapping[Kind, str] = {
    Kind.BROKEN: "bold red",
    Kind.CHANGED: "bold yellow",
    Kind.MENDED: "bold green",
    Kind.UNCHANGED: "bold",
    Kind.NEWLY_UPSTREAM: "yellow",
    Kind.NO_LONGER_UPSTREAM: "yellow",
}
_STATUS_STYLES: Mapping[ExitStatus, str] = {ExitStatus.CONFORMS: "bold green", ExitStatus.DIFFERS: "bold red"}


def show(changes: Changes, console: Console) -> None:
    """Everything."""
    _show_header(changes, console)
    for kind in (Kind.BROKEN, Kind.CHANGED, Kind.MENDED):
        _show_failures(changes.of(kind), kind, console)
    _show_lost(words.lost(changes), console)
    for kind in (Kind.NEWLY_UPSTREAM, Kind.NO_LONGER_UPSTREAM, Kind.UNCHANGED):
        _show_list(changes.of(kind), kind, console)
    for note in words.notes(changes):
        console.print(Text(f"Note: {text.line(note)}", style="yellow"))
    console.print(Text(words.counts(changes)))
    line = Text("OLD → NEW: ", style="bold")
    said, _, reason = words.verdict(changes).partition(" (")
    line.append(said, style=_STATUS_STYLES.get(changes.status, "bold yellow"))
    line.append(f" ({reason}" if reason else "")
    console.print(line, soft_wrap=True)  # one line, whatever the width: it is what a log is searched for


def _show_header(changes: Changes, console: Console) -> None:
    facts = {"OLD": words.ran(changes.old), "NEW": words.ran(changes.new)}
    facts |= {
        text.line(one.what, 60): words.different(one.old, one.new) for one in changes.differences[:MOST_DIFFERENCES]
    }
    left = len(changes.differences) - MOST_DIFFERENCES
    if left > 0:
        facts["…"] = f"and {text.plural(left, 'more difference')}"
    facts["checks in OLD only"] = words.names(changes.only_old_checks)
    facts["checks in NEW only"] = words.names(changes.only_new_checks)
    show_facts(facts, console, indent=0)
    console.print()


def _show_failures(failures: Sequence[Change], kind: Kind, console: Console) -> None:
    if not failures:
        return
    console.print(Text(words.TITLES[kind], style="bold underline"))
    for number, one in enumerate(failures[:MOST_FAILURES], start=1):
        console.print(_head(number, one))
        outcome = one.entry.outcome
        show_facts(
            {
                "where": outcome.where,
                "measured": wording.against_bound(outcome),
                "said": wording.said(outcome),
                "in": outcome.site,
                "before": words.before(one),
                "rule": one.explanation,
                "smallest": text.config(one.differs) or "the plainest config",
                "reproduce": one.reproduce,
            },
            console,
        )
    _show_left(len(failures) - MOST_FAILURES, console)
    console.print()


def _show_list(failures: Sequence[Change], kind: Kind, console: Console) -> None:
    """A line each."""
    if not failures:
        return
    console.print(Text(words.TITLES[kind], style="bold"))
    for number, one in enumerate(failures[:MOST_IN_A_LIST], start=1):
        head = _head(number, one)
        said = one.entry.outcome.where or wording.said(one.entry.outcome)
        head.append(f"  {text.line(said, 100)}" if said else "", style="default")
        console.print(head, no_wrap=True, overflow="ellipsis")
    _show_left(len(failures) - MOST_IN_A_LIST, console)
    console.print()


def _head(number: int, one: Change) -> Text:
    outcome = one.entry.outcome
    head = Text(f"{number:>3}  ", style="bold")
    head.append(text.line(outcome.check, 100), style="bold")
    head.append(f"  {wording.VERDICT_WORDS[outcome.verdict]}", style=_STYLES[one.kind])
    head.append(f"  {words.cases(one)}  ", style="not bold")
    head.append(text.line(one.fingerprint, 40), style="dim")
    return head


def _show_lost(tallies: Sequence[Tally], console: Console) -> None:
    if not tallies:
        return
    total = sum(tally.count for tally in tallies)
    console.print(Text(f"Lost, because nothing looks there any more: {text.plural(total, 'outcome')}", style="bold"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True)
    for tally in tallies[:MOST_IN_A_LIST]:
        grid.add_row(f"{tally.count:,}", Text(f"{text.line(tally.text, 200)} ({words.names(tally.checks)})"))
    console.print(Padding(grid, (0, 0, 0, 2), expand=False))
    _show_left(len(tallies) - MOST_IN_A_LIST, console)
    console.print()


def _show_left(left: int, console: Console) -> None:
    if left > 0:
        console.print(f"     … and {left:,} more, which --json has")
