"""Run the cases of one adapter into a record: known failures first, then every case, then a diagnosis of failures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier import family, record
from verifier.commands import resuming
from verifier.engine import recording
from verifier.engine.asking import asking_hugging_face
from verifier.engine.events import Event, RunStarted, Stop
from verifier.engine.plan import Plan
from verifier.output import pipe
from verifier.record.known_failure import Baseline, BaselineState
from verifier.reference.acceptance import refusal_of
from verifier.requests.planning import PlannedRun, make_first_line

if TYPE_CHECKING:
    from rich.console import Console

    from verifier.report.progress import Meter

# Printers and processes are imported where they are used: a wrong command line must fail at once.


def record_run(planned: PlannedRun, folder: Path, console: Console) -> Path | None:
    """Run the cases under one adapter into a record in the folder.

    Args:
        planned: the run.
        folder: the folder that the record goes to.
        console: the console that shows the progress.

    Returns:
        The record; None if the run was interrupted before its first case.

    Raises:
        VerifierError: the harness, or code from outside at its import, failed, or something named is wrong.
    """
    from verifier.report.progress import Meter

    request, specs = planned.request, planned.specs
    with record.lock_folder(folder):
        earlier = resuming.find(folder) if request.resume else None
        header = planned.header()
        if earlier is not None:
            resuming.require_same(earlier, header, specs)
        missing = tuple(spec for spec in specs if earlier is None or spec.id not in earlier.done)
        plan = planned.plan(missing, known=record.durations(folder / record.FILE))
        if earlier is not None and not missing and earlier.end is not None and earlier.end.stop == Stop.COMPLETE:
            print(f"verifier: nothing is missing from {str(earlier.path)!r}", file=sys.stderr)
            return earlier.path
        with record.Writer(
            folder,
            of=(request.family, planned.adapter),
            shard=None if request.shard is None else str(request.shard),
            onto=earlier,
        ) as writer:
            meter = Meter(
                console,
                title=f"{request.family} × {planned.adapter}",
                cases=len(specs),
                done=len(specs) - len(missing),
                plain=not request.isolated,
            )
            try:
                with meter:
                    started = _record(planned, plan, writer, header, earlier, meter)
            except BrokenPipeError:
                pipe.discard(sys.stderr)
                started = writer.ended  # the record says whether the run came to its end before
        if not started:
            what = "nothing was written" if earlier is None else "the record is as it was"
            print(f"verifier: interrupted before the first case; {what}", file=sys.stderr)
            return None
        return writer.path


def _record(
    planned: PlannedRun,
    plan: Plan,
    writer: record.Writer,
    header: Mapping[str, Any],
    earlier: record.Record | None,
    meter: Meter,
) -> bool:
    """Run the known failures again, and then a plan into the record.

    Args:
        planned: the whole run.
        plan: what is still to be run.
        writer: of the record.
        header: the fields of the record's first line that are known before anything is loaded.
        earlier: the record that is continued.
        meter: shows the progress.

    Returns:
        Whether the run came to its first case.
    """
    run = partial(_run, planned)
    held: BaselineState | None = None
    if planned.baseline is not None:
        held = _replay(planned.baseline, plan, run, meter)
        if held is None:
            return False

    def begin(event: RunStarted) -> None:
        line = make_first_line(header, event, planned.limits)
        if earlier is None:
            writer.run(line)
        else:
            resuming.require_same_code(earlier, line)
            writer.resumed(started=line.started, workers=line.workers)
        if held is not None:
            from verifier.record.excusing import make_excuser

            writer.held(held)
            excuse, specs = make_excuser(held, line), {spec.id: spec for spec in plan.specs}
            meter.excuse = lambda case, fingerprint: excuse(specs[case], fingerprint)

    return recording.record_events(writer, run(plan), plan, run, begin, meter, isolated=planned.request.isolated)


def _replay(
    baseline: Baseline, plan: Plan, run: Callable[[Plan], Iterator[Event]], meter: Meter
) -> BaselineState | None:
    """See what became of the known failures; None if that was interrupted."""
    from verifier.baseline.replaying import replay

    refusal = refusal_of(family.load(plan.family))
    if baseline.failures:
        meter.announce_replay(len(baseline.failures))
    with asking_hugging_face(plan.family):
        settled, stop = replay(baseline, plan, run, refusal, datetime.now(UTC).date())
    if stop is not Stop.COMPLETE:
        return None
    return BaselineState(path=baseline.path, asked=baseline.asked, ran=baseline.ran, settled=settled)


def _run(planned: PlannedRun, plan: Plan) -> Iterator[Event]:
    """Run a plan in worker processes, or in this process if that is asked for."""
    if planned.request.isolated:
        from verifier.engine.run import run as run_plan

        return run_plan(plan, workers=planned.workers)
    from verifier.engine import inline
    from verifier.engine.debugger import Debugger

    return inline.run(plan, debugger=Debugger() if planned.request.pdb else None)
