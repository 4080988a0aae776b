"""How far a run is: a bar on a terminal, a plain line every few seconds and at the end elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from verifier.engine.events import CaseFinished, Event, OutcomeReady, RunStarted
from verifier.report import text

PLAIN_SECONDS = 5.0  # often enough to show life in a CI log, seldom enough not to fill it


class Meter:
    """Counts what the events say and shows it on the console until it is left.

    It writes to a terminal's bar what it writes as lines elsewhere: cases, outcomes' bugs so far, and the rate.
    """

    def __init__(self, console: Console, *, title: str, cases: int) -> None:
        self._console = console
        self._cases = cases
        self._title = title
        self._finished = self._said = 0
        self._bugs: set[str] = set()
        self._began = self._spoken = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}", markup=False),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(title, total=cases, state="loading")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        else:
            self._console.print(f"{self._title}: loading, then {text.plural(self._cases, 'case')}", markup=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif kind is None and self._finished > self._said:
            self._say()

    def note(self, event: Event) -> None:
        """Take the event in, and show it if it is time."""
        match event:
            case OutcomeReady(outcome=outcome) if outcome.verdict.gates and outcome.fingerprint:
                self._bugs.add(outcome.fingerprint)
            case CaseFinished():
                self._finished += 1
            case RunStarted():
                self._began = time.monotonic()
            case _:
                return
        if self._bar:
            self._bar.update(self._task, completed=self._finished, state=self._state())
        elif time.monotonic() - self._spoken >= PLAIN_SECONDS:
            self._say()

    def _say(self) -> None:
        self._spoken = time.monotonic()
        self._said = self._finished
        line = f"{self._title}: {self._finished:,} of {text.plural(self._cases, 'case')}, {self._state()}"
        self._console.print(line, markup=False)

    def _state(self) -> str:
        passed = time.monotonic() - self._began
        rate = f"{self._finished / passed:.1f}/s" if self._finished and passed > 0 else ""
        bugs = text.plural(len(self._bugs), "bug") if self._bugs else ""
        return ", ".join(part for part in (rate, bugs) if part) or "running"
