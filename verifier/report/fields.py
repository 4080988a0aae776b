"""Facts in a terminal: a name and what it is in a line each, those that there are."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from verifier.output import text


def show(values: Mapping[str, str | None], console: Console, *, indent: int = 5) -> None:
    """Print each fact that is there; a text from outside is put on one line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in values.items():
        if value:
            grid.add_row(name, Text(text.line(value)))
    console.print(Padding(grid, (0, 0, 0, indent), expand=False))
