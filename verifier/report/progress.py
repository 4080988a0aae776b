"""Show how far a run is: a bar on a terminal, a plain line every few seconds and at the end elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from verifier.analysis.bugs import Origin, find_origin
from verifier.engine.events import CaseFinished, Event, Heartbeat, OutcomeReady, RunStarted, WorkerLost
from verifier.judging.outcome import Outcome
from verifier.output import text

PLAIN_SECONDS = 5.0  # often enough to show life in a CI log, seldom enough not to fill it
LONG_SECONDS = 10.0  # a case that is named because it takes so long
MOST_BUGS = 5
MOST_IN_A_LINE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFailures:
    """What stands below the bar: another thread draws it, so nobody changes it once it is made.

    Attributes:
        lines: the most frequent failures so far, each in a few words.
        number: how many there are, shown or not.
    """

    lines: tuple[str, ...] = ()
    number: int = 0


class Meter:
    """Counts the events of a run, and shows on a console how far it is, until its block is left.

    A terminal gets a bar with the rate and the time that is left, and below it the most frequent bugs, those with one
    origin together; elsewhere all of it is a line.

    Invariant: rich draws the bar in a thread of its own, which reads nothing but the bar (rich locks it) and the
    `ShownFailures` of the moment. Everything else belongs to the thread that notes events.

    Args:
        console: where to show it.
        title: what is run.
        cases: the number of cases.
        done: the number of cases that an earlier run has done.
        plain: whether a terminal gets lines too, because others write to it.

    Attributes:
        excuse: says whether a failure on a case, by id and fingerprint, is a known failure.
    """

    def __init__(self, console: Console, *, title: str, cases: int, done: int = 0, plain: bool = False) -> None:
        self._console = console
        self._cases = cases
        self._title = title
        self._before = self._finished = self._said = done
        self._failures: dict[tuple[str, str], Outcome] = {}
        self._counts: Counter[Origin | str] = Counter()  # of the failures, by origin or fingerprint
        self._examples: dict[Origin | str, Outcome] = {}  # the latest outcome that was counted there
        self._shown = ShownFailures()
        self._known: set[tuple[str, str]] = set()
        self.excuse: Callable[[str, str | None], bool] = lambda case, fingerprint: False
        self._again: set[str] = set()
        self._running: Mapping[str, float] = {}
        self._left: float | None = None
        self._began = self._spoken = time.monotonic()
        self._live: Live | None = None
        if console.is_terminal and not plain:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}", markup=False),
                console=console,
            )
            self._task = self._bar.add_task(title, total=cases, completed=done, state="loading")
            self._live = Live(console=console, transient=True, refresh_per_second=8, get_renderable=self._frame)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        else:
            there = f" ({self._before:,} {'is' if self._before == 1 else 'are'} there already)" if self._before else ""
            self._console.print(f"{self._title}: loading, then {text.plural(self._cases, 'case')}{there}", markup=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        elif kind is None and self._finished > self._said:
            self._say()

    def note(self, event: Event) -> None:
        """Take the event in, and show it if it is time."""
        match event:
            case OutcomeReady(case=case, outcome=outcome):
                self._note_outcome(case, outcome)
                return
            case CaseFinished(case=case):
                self._finished += 1
                self._again.discard(case)
            case WorkerLost(case=case, again=True):
                self._again.add(case)
            case Heartbeat(running=running, left=left):
                self._running, self._left = running, left
            case RunStarted():
                self._began = time.monotonic()
            case _:
                return
        if self._live:
            self._bar.update(self._task, completed=self._finished, state=self._state())
        elif time.monotonic() - self._spoken >= PLAIN_SECONDS:
            self._say()

    def _note_outcome(self, case: str, outcome: Outcome) -> None:
        """Count an outcome; a case that is run again may give another one, and the later one counts."""
        earlier = self._failures.pop((case, outcome.check), None)
        self._known.discard((case, outcome.check))
        if earlier is not None:
            self._counts[_bug_of(earlier)] -= 1
        fingerprint = outcome.fingerprint if outcome.verdict.gates else None
        if outcome.verdict.gates and self.excuse(case, fingerprint):
            self._known.add((case, outcome.check))
        elif fingerprint:
            self._failures[case, outcome.check] = outcome
            self._counts[_bug_of(outcome)] += 1
            self._examples[_bug_of(outcome)] = outcome
        if earlier is not None or fingerprint:
            self._shown = self._choose_shown()

    def announce_replay(self, failures: int) -> None:
        """Say that the cases of a number of known failures are run again first."""
        self._announce(f"running the cases of {text.plural(failures, 'known failure')} again first")

    def announce_diagnosis(self, cases: int) -> None:
        """Say that everything has been run, and that a number of failing cases is looked at once more."""
        self._announce(f"looking closer at {text.plural(cases, 'failing case')}")

    def announce_confirming(self, failures: int) -> None:
        """Say that a number of failures is run again, each alone."""
        self._announce(f"running {text.plural(failures, 'failure')} again, each alone")

    def _announce(self, what: str) -> None:
        """Show what the run does now."""
        if self._live:
            self._bar.update(self._task, completed=self._finished, state=what)
        else:
            self._console.print(f"{self._title}: {what}", markup=False, soft_wrap=True)

    def _say(self) -> None:
        """Print how far the run is, on one line."""
        self._spoken = time.monotonic()
        self._said = self._finished
        line = f"{self._title}: {self._finished:,} of {text.plural(self._cases, 'case')}, {self._state()}"
        bugs = "; ".join(self._shown.lines[:MOST_IN_A_LINE])
        self._console.print(f"{line}: {bugs}" if bugs else line, markup=False, soft_wrap=True)

    def _state(self) -> str:
        """Spell the rate, the time that is left, and what wants attention."""
        passed = time.monotonic() - self._began
        here = self._finished - self._before
        parts = []
        if here and passed > 0:
            parts.append(f"{here / passed:.1f}/s")
        if self._left is not None and self._left >= 1 and self._finished < self._cases:
            parts.append(f"{text.duration(self._left)} left")
        if self._running and max(self._running.values()) > LONG_SECONDS:
            case = max(self._running, key=lambda case: self._running[case])
            parts.append(f"at {case} for {text.duration(self._running[case])}")
        if self._again:
            parts.append(f"{text.plural(len(self._again), 'case')} to be run again alone")
        if self._known:
            parts.append(text.plural(len(self._known), "known failure"))
        if self._shown.number:
            parts.append(text.plural(self._shown.number, "bug"))
        return ", ".join(parts) or "running"

    def _choose_shown(self) -> ShownFailures:
        """Choose the most frequent failures so far, and spell each in a few words."""
        counts = +self._counts
        lines = []
        for bug, count in counts.most_common(MOST_BUGS):
            outcome = self._examples[bug]
            place = f" at {text.line(outcome.where, 60)}" if outcome.where else ""
            lines.append(f"{outcome.fingerprint} ×{count:,} {outcome.check} {outcome.verdict.word}{place}")
        return ShownFailures(lines=tuple(lines), number=len(counts))

    def _frame(self) -> RenderableType:
        """Draw the bar, with the most frequent failures below it."""
        shown = self._shown
        lines = [Text(f"  {line}", style="red", no_wrap=True, overflow="ellipsis") for line in shown.lines]
        if more := shown.number - len(shown.lines):
            lines.append(Text(f"  … and {text.plural(more, 'more bug')}", style="dim"))
        return Group(self._bar.get_renderable(), *lines)


def _bug_of(outcome: Outcome) -> Origin | str:
    """What a failure is counted with: those of one origin, or else those with its fingerprint."""
    return find_origin(outcome) or outcome.fingerprint or ""
