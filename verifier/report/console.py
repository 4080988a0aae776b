"""Consoles that leave it to the command what a closed pipe means."""

from __future__ import annotations

import sys

from rich.console import Console

# A log has no width of its own; a matrix needs some.
LOG_WIDTH = 120


class QuietConsole(Console):
    """A console whose broken pipe is an exception; rich itself would end the process with status 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def standard_output() -> Console:
    """For results."""
    return _console(stderr=False)


def standard_error() -> Console:
    """For progress."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = QuietConsole(stderr=stderr, highlight=False, markup=False, emoji=False)
    stream = sys.stderr if stderr else sys.stdout
    if not stream.isatty() and "COLUMNS" not in console._environ:
        console.width = LOG_WIDTH
    return console
