"""Write the events of a run into its record, diagnose its failures, and end the record."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from verifier import record
from verifier.engine.diagnose import diagnose_failures
from verifier.engine.events import CaseFinished, CaseStarted, Event, OutcomeReady, Stop, WorkerLost
from verifier.engine.plan import Plan
from verifier.errors import ExitStatus
from verifier.record import Writer


def write_event(writer: Writer, event: object) -> None:
    """Write an event of a case into the record; events of the run as a whole are not written."""
    match event:
        case CaseStarted(spec=spec):
            writer.case(spec)
        case OutcomeReady(case=case, outcome=outcome):
            writer.outcome(case, outcome)
        case CaseFinished(case=case, seconds=seconds):
            writer.done(case, seconds)
        case WorkerLost(case=case, check=check, verdict=verdict, reason=reason):
            writer.lost(record.LostProcess(case=case, check=check, verdict=verdict, reason=reason))
        case _:
            pass


def finish(
    writer: Writer,
    plan: Plan,
    run: Callable[[Plan], Iterator[Event]] | None,
    announce: Callable[[int], None],
    *,
    stop: Stop,
    seconds: float,
) -> None:
    """Diagnose the failures of a record whose run is complete, and write its last line.

    Args:
        writer: of the record.
        plan: what was run.
        run: runs a plan; None where nothing can be diagnosed.
        announce: receives the number of cases that are diagnosed, if there are any.
        stop: why the run ended.
        seconds: how long the run took.
    """
    from verifier.analysis.verdict import conclude_status
    from verifier.record.excusing import apply_known_failures

    status = ExitStatus.INTERRUPTED
    if stop is Stop.COMPLETE:
        seen = apply_known_failures(record.read(writer.path))
        if run is not None:
            stop, more = diagnose_failures(seen, writer, plan, run, announce)
            seconds += more
        if stop is Stop.COMPLETE:
            status = conclude_status(seen)
    writer.end(status=status, stop=stop, seconds=seconds)
