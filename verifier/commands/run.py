"""`verifier run`: every case, every check, one record and one report for each adapter."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier import adapter, checks, configuration, family, record
from verifier.commands import looking, resuming, selection
from verifier.engine.environment import usable_cores, versions
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
from verifier.engine.limits import Limits, defaults
from verifier.engine.plan import Plan
from verifier.errors import ExitStatus, UsageError, VerifierError
from verifier.report import pipe
from verifier.spec import CaseSpec

if TYPE_CHECKING:
    from verifier.report.progress import Meter

# Printers and processes are imported where they are used: a wrong command line must fail at once.

REPORTS = Path("reports")
REPORT_FILE = "report.html"

# Of several adapters' statuses the first of these is the command's.
_WORST_FIRST = (
    ExitStatus.INTERRUPTED,
    ExitStatus.BROKEN,
    ExitStatus.USAGE,
    ExitStatus.DIFFERS,
    ExitStatus.INCONCLUSIVE,
    ExitStatus.CONFORMS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the user asked for, as on the command line; empty where nothing was said.

    Of `timeout` (seconds) and `memory` (bytes) 0 stands for no limit, and None for the default one.
    """

    family: str
    adapters: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    preset: str | None = None
    checkpoint: str | None = None
    dtypes: tuple[str, ...] = ()
    device: str = "cpu"
    seed: int = 0
    workers: int | None = None
    out: Path | None = None
    cases: Path | None = None
    everywhere: bool = False
    resume: bool = False
    timeout: float | None = None
    memory: int | None = None
    isolation: bool = True
    pdb: bool = False
    slowest: int = 0


def run(options: RunOptions) -> ExitStatus:
    """Run the family's cases under each adapter, show and keep the results.

    Raises:
        UsageError: something named on the command line is wrong.
        Inconclusive: no case is like that.
        VerifierError: the harness, or code from outside at its import, failed.
    """
    _require_sense(options)
    checks.require_known(options.only)
    references = options.adapters or (configuration.read(Path.cwd()).adapter,)
    for reference in references:
        require_adapter(reference)
    specs = _cases(options)
    folders = _folders(options, references)
    statuses = []
    failures: list[VerifierError] = []
    for reference, folder in zip(references, folders, strict=True):
        try:
            status = _run_one(options, reference, specs, folder)
        except VerifierError as error:
            if len(references) == 1:
                raise
            # The other adapters are not to blame for this one.
            failures.append(error)
            print(f"verifier: {error}", file=sys.stderr)
            status = error.status
        statuses.append(status)
        if status is ExitStatus.INTERRUPTED:
            break
    return worst(statuses)


def worst(statuses: Sequence[ExitStatus]) -> ExitStatus:
    """The status of a command that did several things."""
    return min(statuses, key=_WORST_FIRST.index)


def require_adapter(reference: str) -> None:
    """Make sure, without importing it, that there is something of that name: a typo must not cost an import of torch.

    Raises:
        UsageError: there is not.
    """
    if ":" not in reference:
        if reference not in adapter.registered():
            adapter.load(reference)  # says what is registered
        return
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    top = reference.partition(":")[0].partition(".")[0]
    if not top or importlib.util.find_spec(top) is None:
        adapter.load(reference)


def _cases(options: RunOptions) -> tuple[CaseSpec, ...]:
    if options.cases is not None:
        return selection.from_file(options.family, options.cases)
    return selection.from_matrix(
        options.family,
        seed=options.seed,
        dtypes=options.dtypes,
        device=options.device,
        where=options.where,
        preset=options.preset,
        checkpoint=options.checkpoint,
        everywhere=options.everywhere,
    )


def _require_sense(options: RunOptions) -> None:
    """Raise what is wrong with options together."""
    if options.preset is not None and options.checkpoint is not None:
        raise UsageError("--preset and --checkpoint both say which model to run: give one of them")
    narrowing = {"--where": options.where, "--preset": options.preset, "--checkpoint": options.checkpoint}
    for name, value in narrowing.items():
        if options.cases is not None and value:
            raise UsageError(f"--cases and {name} both say what to run: give one of them")
    if not options.isolation and options.workers not in (None, 1):
        raise UsageError("--no-isolation runs in this very process: it goes with --workers 1 alone")
    if not options.isolation and (options.timeout is not None or options.memory is not None):
        raise UsageError("--timeout and --memory need processes of their own to end: not with --no-isolation or --pdb")


def folder_name(*parts: str) -> str:
    """What a folder is called that is of these."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))


def _folders(options: RunOptions, references: Sequence[str]) -> list[Path]:
    names = [folder_name(options.family, reference) for reference in references]
    if options.out is None:
        return [REPORTS / name for name in names]
    return [options.out] if len(names) == 1 else [options.out / name for name in names]


def _run_one(options: RunOptions, reference: str, specs: tuple[CaseSpec, ...], folder: Path) -> ExitStatus:
    from verifier.report import console
    from verifier.report.progress import Meter

    with record.held(folder):
        earlier = resuming.find(folder) if options.resume else None
        header = _header(options, reference, specs)
        if earlier is not None:
            resuming.require_same(earlier, header, specs)
        missing = tuple(spec for spec in specs if earlier is None or spec.id not in earlier.done)
        plan = Plan(
            family=options.family,
            adapter=reference,
            specs=missing,
            only=options.only,
            device=specs[0].device,
            limits=_limits(options, specs),
            known=record.durations(folder / record.FILE),
        )
        if earlier is not None and not missing and earlier.end is not None and earlier.end.stop == Stop.COMPLETE:
            print(f"verifier: nothing is missing from {str(earlier.path)!r}", file=sys.stderr)
            return show(earlier.path, folder, options.slowest)
        with record.Writer(folder, of=(options.family, reference), onto=earlier) as writer:
            drive = _Drive(plan=plan, options=options, writer=writer, header=header, earlier=earlier)
            meter = Meter(
                console.standard_error(),
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
            return ExitStatus.INTERRUPTED
        return show(writer.path, folder, options.slowest)


@dataclass(slots=True, kw_only=True)
class _Drive:
    """One run into one record.

    Attributes:
        plan: what is still to be run.
        options: what the user asked for.
        writer: of the record.
        header: what is known of the record's first line before anything is loaded.
        earlier: the record that is gone on with.
        started: whether the run came to its first case.
    """

    plan: Plan
    options: RunOptions
    writer: record.Writer
    header: Mapping[str, Any]
    earlier: record.Record | None
    started: bool = False

    def run(self, meter: Meter) -> bool:
        """Run the plan into the record; whether it came to its first case."""
        writer = self.writer
        try:
            for event in self._events(self.plan):
                match event:
                    case RunStarted():
                        self._begin(event)
                    case CaseStarted(spec=spec):
                        writer.case(spec)
                    case OutcomeReady(case=case, outcome=outcome):
                        writer.outcome(case, outcome)
                    case CaseFinished(case=case, seconds=seconds):
                        writer.done(case, seconds)
                    case WorkerLost(case=case, check=check, verdict=verdict, reason=reason):
                        writer.lost(record.Lost(case=case, check=check, verdict=verdict, reason=reason))
                    case RunFinished(stop=stop, seconds=seconds) if self.started:
                        looking.finish(writer, self.plan, self._events, meter.look, stop=stop, seconds=seconds)
                meter.note(event)
        except (KeyboardInterrupt, BrokenPipeError):
            self._broken_off(ExitStatus.INTERRUPTED, Stop.INTERRUPTED)
            raise
        except VerifierError as error:
            self._broken_off(error.status, Stop.BROKEN)
            raise
        return self.started

    def _broken_off(self, status: ExitStatus, stop: Stop) -> None:
        if self.started and not self.writer.ended:
            with contextlib.suppress(VerifierError):  # where the disk is full there is no room for this line either
                self.writer.end(status=status, stop=stop, seconds=0.0)

    def _events(self, plan: Plan) -> Iterator[Event]:
        if self.options.isolation:
            from verifier.engine.run import run as run_plan

            return run_plan(plan, workers=_workers(self.options))
        from verifier.engine import inline

        debugger = None
        if self.options.pdb:
            from verifier.engine.debugger import Debugger

            debugger = Debugger()
        return inline.run(plan, debugger=debugger)

    def _begin(self, event: RunStarted) -> None:
        line = record.RunLine(
            **self.header,
            adapter_name=event.adapter_name,
            adapter_version=event.adapter_version,
            started=now(),
            checks=[{"id": check.id, "doc": check.doc, "applies": check.applies} for check in event.checks],
            workers=event.workers,
            limits={"timeout": self.plan.limits.seconds, "memory": self.plan.limits.bytes},
        )
        if self.earlier is None:
            self.writer.run(line)
        else:
            resuming.require_same_code(self.earlier, line)
            self.writer.resumed(started=line.started, workers=line.workers)
        self.started = True


def now() -> str:
    """As a record's first line has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _workers(options: RunOptions) -> int:
    return options.workers or usable_cores()


def _limits(options: RunOptions, specs: Sequence[CaseSpec]) -> Limits:
    """What was asked for, 0 standing for no limit, and defaults elsewhere."""
    large = options.preset is not None or any(spec.checkpoint for spec in specs)
    usual = defaults(large=large, workers=_workers(options))
    return usual.or_as_asked(options.timeout, options.memory)


def _header(options: RunOptions, reference: str, specs: Sequence[CaseSpec]) -> dict[str, Any]:
    """The fields of the record's first line that are known before anything is loaded."""
    described = family.load(options.family)
    asked = {
        "only": list(options.only),
        "where": list(options.where),
        "preset": options.preset,
        "checkpoint": options.checkpoint,
        "cases": None if options.cases is None else str(options.cases),
        "everywhere": options.everywhere,
        "dtype": list(options.dtypes),
        "device": options.device,
    }
    return {
        "family": options.family,
        "adapter": reference,
        "versions": versions(reference),
        "seed": specs[0].seed,
        "flags": {name: list(values) for name, values in described.flags().items()},
        "dims": dict(described.dims()),
        "planned": {
            "valid": sum(spec.valid for spec in specs),
            "refused": sum(not spec.valid for spec in specs),
        },
        "asked": {name: value for name, value in asked.items() if value},
    }


def show(path: Path, folder: Path, slow: int) -> ExitStatus:
    """Tell what the record says; the terminal hears it whatever becomes of the page."""
    from verifier.report import console, files, html, slowest, terminal, whole

    kept = record.read(path)
    everything = whole.whole(kept)
    found = everything.summary
    page = folder / REPORT_FILE
    unwritten = None
    try:
        files.put(html.render([everything]), page)
    except UsageError as error:
        unwritten = error
    out = console.standard_output()
    try:
        terminal.show(found, out)
        slowest.show(kept, slow, out)
        out.print(f"record  {path}" + (f"\nreport  {page}" if unwritten is None else ""), soft_wrap=True)
        terminal.show_verdict(found, out)
        sys.stdout.flush()
    except BrokenPipeError:
        pipe.discard(sys.stdout)  # whoever read it has seen enough; all of it is in the report
    if unwritten is not None:
        raise unwritten
    return found.status
