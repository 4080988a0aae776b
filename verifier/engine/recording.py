"""Write the events of a run into its record, diagnose its failures, and end the record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from verifier import record
from verifier.engine import events
from verifier.engine.diagnose import diagnose_failures
from verifier.engine.plan import Plan
from verifier.errors import ExitStatus, VerifierError
from verifier.record import Writer
from verifier.record.fuzz_finding import ShrunkFailure


class Display(Protocol):
    """Shows how far a run is."""

    def note(self, event: Any) -> None:
        """Take an event in, and show it if it is time."""

    def announce_diagnosis(self, cases: int) -> None:
        """Say that a number of failing cases is looked at once more."""

    def announce_confirming(self, failures: int) -> None:
        """Say that a number of failures is run again, each alone."""


class Silent:
    """Shows nothing."""

    def note(self, event: Any) -> None:
        """Leave an event aside."""

    def announce_diagnosis(self, cases: int) -> None:
        """Leave it unsaid."""

    def announce_confirming(self, failures: int) -> None:
        """Leave it unsaid."""


def record_events(
    writer: Writer,
    happening: Iterable[object],
    plan: Plan,
    run: Callable[[Plan], Iterator[events.Event]],
    begin: Callable[[events.RunStarted], None],
    display: Display,
    *,
    isolated: bool,
) -> bool:
    """Write the events of a run into its record as they come, look at its failures again, and end the record.

    If the run is broken off, the last line of the record says so.

    Args:
        writer: of the record.
        happening: the events of the run.
        plan: what is run.
        run: runs a plan, to diagnose failures.
        begin: writes the first line of the record.
        display: shows each event.
        isolated: whether cases run in processes of their own.

    Returns:
        Whether the run came to its first case.

    Raises:
        VerifierError, KeyboardInterrupt, BrokenPipeError: what broke the run off.
    """
    started = False

    def break_off(status: ExitStatus, stop: events.Stop) -> None:
        if started and not writer.ended:
            with contextlib.suppress(VerifierError):  # where the disk is full there is no room for this line either
                writer.end(status=status, stop=stop, seconds=0.0)

    try:
        for event in happening:
            match event:
                case events.RunStarted():
                    begin(event)
                    started = True
                case events.RunFinished(stop=stop, seconds=seconds):
                    if started:
                        finish(writer, plan, run, display, isolated=isolated, stop=stop, seconds=seconds)
                case _:
                    write_event(writer, event)
            display.note(event)
    except (KeyboardInterrupt, BrokenPipeError):
        break_off(ExitStatus.INTERRUPTED, events.Stop.INTERRUPTED)
        raise
    except VerifierError as error:
        break_off(error.status, events.Stop.BROKEN)
        raise
    return started


def write_event(writer: Writer, event: object) -> None:
    """Write an event of a case, or a finding, into the record; events of the run as a whole are not written.

    Args:
        writer: of the record.
        event: an event of the run, or a `ShrunkFailure`.
    """
    match event:
        case events.CaseStarted(spec=spec):
            writer.case(spec)
        case events.CaseRefused(case=case, reason=reason):
            writer.refused(case, reason)
        case events.OutcomeReady(case=case, outcome=outcome):
            writer.outcome(case, outcome)
        case events.RowReady(row=row):
            writer.row(row)
        case events.CaseFinished(case=case, seconds=seconds):
            writer.done(case, seconds)
        case events.WorkerLost(case=case, check=check, verdict=verdict, reason=reason):
            writer.lost(record.LostProcess(case=case, check=check, verdict=verdict, reason=reason))
        case ShrunkFailure():
            writer.found(event)


def finish(
    writer: Writer,
    plan: Plan,
    run: Callable[[Plan], Iterator[events.Event]] | None,
    display: Display,
    *,
    isolated: bool,
    stop: events.Stop,
    seconds: float,
) -> None:
    """Diagnose the failures of a record whose run is complete, run each again alone, and write the last line.

    Every outcome is in the record before: an interrupt loses none of them.

    Args:
        writer: of the record.
        plan: what was run.
        run: runs a plan; None where nothing can be diagnosed.
        display: shows what is done.
        isolated: whether cases run in processes of their own.
        stop: why the run ended.
        seconds: how long the run took.
    """
    from verifier.analysis.verdict import conclude_status
    from verifier.engine.confirming import confirm_failures
    from verifier.record.excusing import apply_known_failures

    status = ExitStatus.INTERRUPTED
    if stop is events.Stop.COMPLETE:
        seen = apply_known_failures(record.read(writer.path))
        if run is not None:
            stop, more = diagnose_failures(seen, writer, plan, run, display.announce_diagnosis)
            seconds += more
            if stop is events.Stop.COMPLETE:
                stop, more = confirm_failures(seen, writer, plan, display.announce_confirming, isolated=isolated)
                seconds += more
        if stop is events.Stop.COMPLETE:
            status = conclude_status(seen)
    writer.end(status=status, stop=stop, seconds=seconds)
