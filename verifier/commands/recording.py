"""One run into one record: known failures first, then every case, then a closer look at what failed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier import family, record
from verifier.cases.spec import CaseSpec
from verifier.commands import resuming
from verifier.engine import diagnose
from verifier.engine.environment import usable_cores
from verifier.engine.events import (
    CaseFinished,
    CaseStarted,
    Event,
    OutcomeReady,
    RunFinished,
    RunStarted,
    Stop,
    WorkerLost,
)
from verifier.engine.plan import Plan
from verifier.errors import ExitStatus, VerifierError
from verifier.output import pipe
from verifier.record.known_failure import Baseline, BaselineState
from verifier.requests.header import header_of, limits_of, now
from verifier.requests.request import RunOptions

if TYPE_CHECKING:
    from rich.console import Console

    from verifier.report.progress import Meter

# Printers and processes are imported where they are used: a wrong command line must fail at once.


def recorded(
    options: RunOptions,
    reference: str,
    specs: tuple[CaseSpec, ...],
    folder: Path,
    baseline: Baseline | None,
    shown: Console,
) -> Path | None:
    """Run the cases under one adapter into a record in the folder.

    Args:
        options: what was asked for.
        reference: the adapter.
        specs: the cases.
        folder: where the record goes.
        baseline: what is known to fail.
        shown: where it is shown how far the run is.

    Returns:
        The record; None where the run was interrupted before its first case.

    Raises:
        VerifierError: the harness, or code from outside at its import, failed, or something named is wrong.
    """
    from verifier.report.progress import Meter

    with record.held(folder):
        earlier = resuming.find(folder) if options.resume else None
        header = header_of(options, reference, specs, baseline)
        if earlier is not None:
            resuming.require_same(earlier, header, specs)
        missing = tuple(spec for spec in specs if earlier is None or spec.id not in earlier.done)
        plan = Plan(
            family=options.family,
            adapter=reference,
            specs=missing,
            only=options.only,
            device=specs[0].device,
            limits=limits_of(options, specs),
            known=record.durations(folder / record.FILE),
        )
        if earlier is not None and not missing and earlier.end is not None and earlier.end.stop == Stop.COMPLETE:
            print(f"verifier: nothing is missing from {str(earlier.path)!r}", file=sys.stderr)
            return earlier.path
        with record.Writer(
            folder,
            of=(options.family, reference),
            shard=None if options.shard is None else str(options.shard),
            onto=earlier,
        ) as writer:
            drive = _Drive(plan=plan, options=options, writer=writer, header=header, earlier=earlier, baseline=baseline)
            meter = Meter(
                shown,
                title=f"{options.family} × {reference}",
                cases=len(specs),
                done=len(specs) - len(missing),
                plain=not options.isolation,
            )
            try:
                with meter:
                    started = drive.run(meter)
            except BrokenPipeError:
                pipe.discard(sys.stderr)
                started = writer.ended  # the record says whether the run came to its end before
        if not started:
            what = "nothing was written" if earlier is None else "the record is as it was"
            print(f"verifier: interrupted before the first case; {what}", file=sys.stderr)
            return None
        return writer.path


@dataclass(slots=True, kw_only=True)
class _Drive:
    """One run into one record.

    Attributes:
        plan: what is still to be run.
        options: what the user asked for.
        writer: of the record.
        header: what is known of the record's first line before anything is loaded.
        earlier: the record that is gone on with.
        baseline: what it is held against.
        held: the same, with what became of each known failure; None until their cases have been run again.
        started: whether the run came to its first case.
    """

    plan: Plan
    options: RunOptions
    writer: record.Writer
    header: Mapping[str, Any]
    earlier: record.Record | None
    baseline: Baseline | None = None
    held: BaselineState | None = None
    started: bool = False

    def run(self, meter: Meter) -> bool:
        """Run the plan into the record; whether it came to its first case."""
        writer = self.writer
        if not self._replay(meter):
            return False
        try:
            for event in self._events(self.plan):
                match event:
                    case RunStarted():
                        self._begin(event, meter)
                    case CaseStarted(spec=spec):
                        writer.case(spec)
                    case OutcomeReady(case=case, outcome=outcome):
                        writer.outcome(case, outcome)
                    case CaseFinished(case=case, seconds=seconds):
                        writer.done(case, seconds)
                    case WorkerLost(case=case, check=check, verdict=verdict, reason=reason):
                        writer.lost(record.Lost(case=case, check=check, verdict=verdict, reason=reason))
                    case RunFinished(stop=stop, seconds=seconds) if self.started:
                        diagnose.finish_record(writer, self.plan, self._events, meter.look, stop=stop, seconds=seconds)
                meter.note(event)
        except (KeyboardInterrupt, BrokenPipeError):
            self._broken_off(ExitStatus.INTERRUPTED, Stop.INTERRUPTED)
            raise
        except VerifierError as error:
            self._broken_off(error.status, Stop.BROKEN)
            raise
        return self.started

    def _replay(self, meter: Meter) -> bool:
        """See what became of the known failures; whether that came to its end."""
        if self.baseline is None:
            return True
        from verifier.baseline.replaying import replay

        refusal = family.load(self.plan.family).refusal
        if self.baseline.failures:
            meter.replay(len(self.baseline.failures))
        today = datetime.now(UTC).date()
        settled, stop = replay(self.baseline, self.plan, self._events, refusal, today)
        one = self.baseline
        self.held = BaselineState(path=one.path, asked=one.asked, ran=one.ran, settled=settled)
        return stop is Stop.COMPLETE

    def _broken_off(self, status: ExitStatus, stop: Stop) -> None:
        if self.started and not self.writer.ended:
            with contextlib.suppress(VerifierError):  # where the disk is full there is no room for this line either
                self.writer.end(status=status, stop=stop, seconds=0.0)

    def _events(self, plan: Plan) -> Iterator[Event]:
        if self.options.isolation:
            from verifier.engine.run import run as run_plan

            return run_plan(plan, workers=self.options.workers or usable_cores())
        from verifier.engine import inline

        debugger = None
        if self.options.pdb:
            from verifier.engine.debugger import Debugger

            debugger = Debugger()
        return inline.run(plan, debugger=debugger)

    def _begin(self, event: RunStarted, meter: Meter) -> None:
        line = record.RunLine(
            **self.header,
            adapter_name=event.adapter_name,
            adapter_version=event.adapter_version,
            started=now(),
            checks=[check.to_json() for check in event.checks],
            workers=event.workers,
            limits={"timeout": self.plan.limits.seconds, "memory": self.plan.limits.bytes},
        )
        if self.earlier is None:
            self.writer.run(line)
        else:
            resuming.require_same_code(self.earlier, line)
            self.writer.resumed(started=line.started, workers=line.workers)
        self.started = True
        if self.held is not None:
            self.writer.held(self.held)
            meter.excuse = self._excuse(self.held, line)

    def _excuse(self, held: BaselineState, line: record.RunLine) -> Callable[[str, str | None], bool]:
        from verifier.record.excusing import excuser

        excuse, specs = excuser(held, line), {spec.id: spec for spec in self.plan.specs}
        return lambda case, fingerprint: excuse(specs[case], fingerprint)
