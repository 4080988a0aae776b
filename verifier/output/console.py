"""Consoles that let the command decide what a closed pipe means, and facts and tables printed on them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from verifier.output import text
from verifier.output.harmless import own_stream

# A log has no width of its own; a matrix needs some.
LOG_WIDTH = 120


_PADDING = re.compile(r"[ \t]+$", re.MULTILINE)


class QuietConsole(Console):
    """A console whose broken pipe is an exception; rich itself would end the process with status 1.

    Nothing in a text is more than text to a terminal: colours and the movements of a bar are rich's own. Where it is no
    terminal, no line ends in the blanks with which rich fills tables up.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, and write out what a terminal might obey in each text.

        Args:
            renderable: what is rendered.
            options: as rich's `Console.render` takes them.
        """
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(text.visible(segment.text), segment.style)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, but leave no blanks at the ends of lines where this is no terminal.

        Args:
            objects: what is printed.
            options: as rich's `Console.print` takes them.
        """
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write(_PADDING.sub("", captured.get()))
        self.file.flush()

    def on_broken_pipe(self) -> None:
        """Let whoever prints decide what a closed pipe means.

        Raises:
            BrokenPipeError: always.
        """
        raise BrokenPipeError


def standard_output() -> Console:
    """Make the console for results."""
    return _console(stderr=False)


def standard_error() -> Console:
    """Make the console for progress."""
    return _console(stderr=True)


def stream_console(stream: TextIO) -> Console:
    """Make a console that writes into a stream which another program shows."""
    return QuietConsole(file=stream, width=LOG_WIDTH, highlight=False, markup=False, emoji=False)


def show_facts(values: Mapping[str, str | None], console: Console, *, indent: int = 5) -> None:
    """Print each fact that is there, by name, on one line.

    Args:
        values: the facts by name; one that is None or empty is left out.
        console: where they are printed.
        indent: the number of blanks before each line.
    """
    if rows := [(name, value) for name, value in values.items() if value]:
        show_rows(rows, console, indent=indent, style="dim")


def show_rows(rows: Sequence[Sequence[str]], console: Console, *, indent: int, style: str = "") -> None:
    """Print a table without lines, of which the last column is as wide as it may be and every cell one line.

    Args:
        rows: at least one row, all with the same number of cells.
        console: where it is printed.
        indent: the number of blanks before each row.
        style: the style of every column but the last.
    """
    grid = Table.grid(padding=(0, 2))
    for _ in rows[0][1:]:
        grid.add_column(no_wrap=True, style=style)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*(Text(text.line(cell)) for cell in row))
    console.print(Padding(grid, (0, 0, 0, indent), expand=False))


def _console(*, stderr: bool) -> Console:
    stream = own_stream(sys.stderr if stderr else sys.stdout)
    console = QuietConsole(file=stream, highlight=False, markup=False, emoji=False)
    if not stream.isatty() and "COLUMNS" not in console._environ:
        console.width = LOG_WIDTH
    return console
