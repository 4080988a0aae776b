"""One run into one record: known failures first, then every case, then a closer look at what failed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier import family, record
from verifier.commands import resuming
from verifier.engine import recording
from verifier.engine.events import Event, RunStarted, Stop
from verifier.engine.plan import Plan
from verifier.output import pipe
from verifier.record.known_failure import BaselineState
from verifier.requests.planning import PlannedRun, make_first_line

if TYPE_CHECKING:
    from rich.console import Console

    from verifier.report.progress import Meter

# Printers and processes are imported where they are used: a wrong command line must fail at once.


def record_run(planned: PlannedRun, folder: Path, shown: Console) -> Path | None:
    """Run the cases under one adapter into a record in the folder.

    Args:
        planned: the run.
        folder: where the record goes.
        shown: where the progress of the run is shown.

    Returns:
        The record; None where the run was interrupted before its first case.

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
            recorder = _Recorder(planned=planned, plan=plan, writer=writer, header=header, earlier=earlier)
            meter = Meter(
                shown,
                title=f"{request.family} × {planned.adapter}",
                cases=len(specs),
                done=len(specs) - len(missing),
                plain=not request.isolated,
            )
            try:
                with meter:
                    started = recorder.run(meter)
            except BrokenPipeError:
                pipe.discard(sys.stderr)
                started = writer.ended  # the record says whether the run came to its end before
        if not started:
            what = "nothing was written" if earlier is None else "the record is as it was"
            print(f"verifier: interrupted before the first case; {what}", file=sys.stderr)
            return None
        return writer.path


@dataclass(slots=True, kw_only=True)
class _Recorder:
    """Records one run.

    Attributes:
        planned: the whole run.
        plan: what is still to be run.
        writer: of the record.
        header: what is known of the record's first line before anything is loaded.
        earlier: the record that is continued.
        held: the run against its baseline, with what became of each known failure; None until their cases have run.
    """

    planned: PlannedRun
    plan: Plan
    writer: record.Writer
    header: Mapping[str, Any]
    earlier: record.Record | None
    held: BaselineState | None = None

    def run(self, meter: Meter) -> bool:
        """Run the plan into the record; whether it came to its first case."""
        if not self._replay(meter):
            return False
        begin = partial(self._begin, meter)
        return recording.record_events(self.writer, self._events(self.plan), self.plan, self._events, begin, meter)

    def _replay(self, meter: Meter) -> bool:
        """See what became of the known failures; whether that came to its end."""
        baseline = self.planned.baseline
        if baseline is None:
            return True
        from verifier.baseline.replaying import replay

        refusal = family.load(self.plan.family).refusal
        if baseline.failures:
            meter.replay(len(baseline.failures))
        today = datetime.now(UTC).date()
        settled, stop = replay(baseline, self.plan, self._events, refusal, today)
        self.held = BaselineState(path=baseline.path, asked=baseline.asked, ran=baseline.ran, settled=settled)
        return stop is Stop.COMPLETE

    def _events(self, plan: Plan) -> Iterator[Event]:
        if self.planned.request.isolated:
            from verifier.engine.run import run as run_plan

            return run_plan(plan, workers=self.planned.workers)
        from verifier.engine import inline

        debugger = None
        if self.planned.request.pdb:
            from verifier.engine.debugger import Debugger

            debugger = Debugger()
        return inline.run(plan, debugger=debugger)

    def _begin(self, meter: Meter, event: RunStarted) -> None:
        line = make_first_line(self.header, event, self.planned.limits)
        if self.earlier is None:
            self.writer.run(line)
        else:
            resuming.require_same_code(self.earlier, line)
            self.writer.resumed(started=line.started, workers=line.workers)
        if self.held is not None:
            self.writer.held(self.held)
            meter.excuse = self._excuse(self.held, line)

    def _excuse(self, held: BaselineState, line: record.RunLine) -> Callable[[str, str | None], bool]:
        from verifier.record.excusing import make_excuser

        excuse, specs = make_excuser(held, line), {spec.id: spec for spec in self.plan.specs}
        return lambda case, fingerprint: excuse(specs[case], fingerprint)
