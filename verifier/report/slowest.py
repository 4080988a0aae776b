"""The cases that took longest, for whoever asks."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from verifier.outcome import Outcome
from verifier.record import Record
from verifier.report import text
from verifier.report.summary import difference


def show(record: Record, most: int, console: Console) -> None:
    """Print at most that many cases, the slowest first, each with the check that took most of its time."""
    if most < 1 or not record.done:
        return
    dearest = _dearest(record)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    for case, seconds in sorted(record.done.items(), key=lambda item: (-item[1], item[0]))[:most]:
        spec = record.cases[case]
        name = spec.label or text.config(difference(spec.config, record.run)) or "the plainest config"
        outcome = dearest.get(case)
        most_of_it = f"; {outcome.check} took {text.duration(outcome.seconds)}" if outcome else ""
        grid.add_row(text.duration(seconds), case, Text(text.line(name) + most_of_it))
    console.print(Text("Slowest cases", style="bold"))
    console.print(Padding(grid, (0, 0, 1, 2), expand=False))


def _dearest(record: Record) -> Mapping[str, Outcome]:
    found: dict[str, Outcome] = {}
    for entry in record.entries:
        if entry.case not in found or entry.outcome.seconds > found[entry.case].seconds:
            found[entry.case] = entry.outcome
    return found
