"""Show how far a fuzzing campaign is: live on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from verifier.engine.events import Event, OutcomeReady
from verifier.judging.outcome import Outcome
from verifier.output import text
from verifier.record.fuzz_finding import CampaignProgress, ReplayedFailure, ShrinkStatus, ShrunkFailure
from verifier.report.progress import PLAIN_SECONDS

MOST_SHOWN = 12


class CampaignMeter:
    """Shows on a console how far a campaign is, until its block is left.

    Invariant: rich draws in a thread of its own, which reads nothing but `_shown`, a tuple of the lines of the moment.

    Args:
        console: where to show it.
        title: what is fuzzed.
        seconds: how long the campaign may take; None for no limit.
    """

    def __init__(self, console: Console, title: str, *, seconds: float | None = None) -> None:
        self._console = console
        self._title = title
        self._seconds = seconds
        self._progress: CampaignProgress | None = None
        self._failures: dict[str, Outcome] = {}
        self._shrunk: dict[str, ShrunkFailure] = {}
        self._shown = self._spell()
        self._spoken = time.monotonic()
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(console=console, transient=True, refresh_per_second=4, get_renderable=self._frame)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        else:
            self._console.print(f"{self._title}: loading", markup=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        elif kind is None and self._progress is not None:
            self._console.print(self._line(), markup=False, soft_wrap=True)

    def note(self, event: Event | ShrunkFailure | CampaignProgress | ReplayedFailure) -> None:
        """Take an event in, and show it if it is time."""
        match event:
            case OutcomeReady(outcome=outcome) if outcome.verdict.gates and outcome.fingerprint:
                self._failures.setdefault(outcome.fingerprint, outcome)
            case ShrunkFailure():
                self._shrunk[event.fingerprint] = event
            case CampaignProgress():
                self._progress = event
                if self._live is None and time.monotonic() - self._spoken >= PLAIN_SECONDS:
                    self._spoken = time.monotonic()
                    self._console.print(self._line(), markup=False, soft_wrap=True)
            case _:
                return
        self._shown = self._spell()

    def announce_diagnosis(self, cases: int) -> None:
        """Say that the campaign is over, and that a number of failing cases is looked at once more."""
        self._announce(f"looking closer at {text.plural(cases, 'failing case')}")

    def announce_confirming(self, failures: int) -> None:
        """Say that a number of failures that were not shrunk is run again, each alone."""
        self._announce(f"running {text.plural(failures, 'failure')} again, each alone")

    def _announce(self, what: str) -> None:
        self._console.print(f"{self._title}: {what}", markup=False, soft_wrap=True)

    def _line(self) -> str:
        """Spell how far the campaign is."""
        now = self._progress
        if now is None:
            return f"{self._title}: loading"
        parts = [
            now.phase,
            f"{text.plural(now.cases, 'case')} ({now.refused:,} refused by HF)",
            f"{now.cases / now.seconds if now.seconds else 0:.1f}/s",
            f"pairs {now.pairs[0]:,} of {now.pairs[1]:,}",
            text.plural(now.found, "failure"),
        ]
        if now.shrinking:
            parts.append(f"{now.shrinking:,} more to shrink them")
        if self._seconds is not None:
            parts.append(f"{text.duration(max(0.0, self._seconds - now.seconds))} left")
        return f"{self._title}: " + ", ".join(parts)

    def _spell(self) -> tuple[str, ...]:
        """Spell how far the campaign is, and below it the failures so far."""
        lines = [self._line()]
        for fingerprint, outcome in itertools.islice(self._failures.items(), MOST_SHOWN):
            found = self._shrunk.get(fingerprint)
            state = "shrinking" if found is None else text.config(found.differs) or "the plainest case"
            place = f" at {text.line(outcome.where, 50)}" if outcome.where else ""
            lines.append(f"  {fingerprint} {outcome.check} {outcome.verdict.word}{place}: {state}")
        if len(self._failures) > MOST_SHOWN:
            lines.append(f"  … and {len(self._failures) - MOST_SHOWN} more")
        return tuple(lines)

    def _frame(self) -> RenderableType:
        """Draw how far the campaign is, with the failures so far."""
        shown = self._shown
        below = (Text(line, style="red", no_wrap=True, overflow="ellipsis") for line in shown[1:])
        return Group(Text(shown[0], style="bold"), *below)


def show_replayed(replayed: Sequence[ReplayedFailure], folder: Path, console: Console) -> None:
    """Print what became of the failures of earlier campaigns.

    Args:
        replayed: the failures that were run again; with none, nothing is printed.
        folder: the folder of the files in which they are kept.
        console: where it is printed.
    """
    if not replayed:
        return
    counts = Counter(one.status for one in replayed)
    words = ", ".join(f"{counts[status]} {status}" for status in ShrinkStatus if counts[status])
    console.print(f"kept from before: {words}", soft_wrap=True)
    for one in replayed:
        if one.status is not ShrinkStatus.STILL:
            file = folder / f"{one.kept.fingerprint}.json"
            console.print(f"  {one.kept.fingerprint} {one.kept.check}: {one.status} ({file})", soft_wrap=True)
