"""The cases that took longest, for whoever asks in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from verifier.analysis.timing import slowest
from verifier.output import text
from verifier.record import Record


def show(record: Record, most: int, console: Console) -> None:
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
