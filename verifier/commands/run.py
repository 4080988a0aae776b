"""`verifier run`: every case, every check, one record and one report for each adapter."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from verifier import adapter, configuration, family, matrix, record
from verifier.engine.environment import usable_cores, versions
from verifier.engine.events import CaseStarted, Event, OutcomeReady, RunFinished, RunStarted, Stop
from verifier.engine.plan import Plan, distinct
from verifier.engine.run import run as run_plan
from verifier.errors import ExitStatus, Inconclusive, UsageError, VerifierError
from verifier.report import console, html, pipe, summary, terminal
from verifier.report.progress import Meter
from verifier.spec import CaseSpec

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
    """What the user asked for, as on the command line; empty where nothing was said."""

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


def run(options: RunOptions) -> ExitStatus:
    """Run the family's cases under each adapter, show and keep the results.

    Raises:
        UsageError: something named on the command line is wrong.
        Inconclusive: no case is like that.
        VerifierError: the harness, or code from outside at its import, failed.
    """
    if options.preset is not None and options.checkpoint is not None:
        raise UsageError("--preset and --checkpoint both say which model to run: give one of them")
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


def parse_where(texts: Sequence[str]) -> dict[str, str]:
    """`('alibi=true,bias=false', 'num_kv_heads=4')` → flag → value as written.

    Raises:
        UsageError: a part is not `flag=value`, or a flag is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not name or not equals or not value:
                raise UsageError(f"--where {text!r}: {part.strip()!r} is not flag=value")
            if name in found:
                raise UsageError(f"--where names {name!r} twice")
            found[name] = value
    return found


def _cases(options: RunOptions) -> tuple[CaseSpec, ...]:
    chosen = distinct(
        matrix.cases(
            family.load(options.family),
            options.family,
            seed=options.seed,
            dtypes=options.dtypes,
            device=options.device,
            where=parse_where(options.where),
            preset=options.preset,
            checkpoint=options.checkpoint,
        )
    )
    if not chosen:
        raise Inconclusive(f"no case of {options.family!r} is as --where asks; nothing ran")
    return chosen


def _folders(options: RunOptions, references: Sequence[str]) -> list[Path]:
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", f"{options.family}-{reference}") for reference in references]
    if options.out is None:
        return [REPORTS / name for name in names]
    return [options.out] if len(names) == 1 else [options.out / name for name in names]


def _run_one(options: RunOptions, reference: str, specs: tuple[CaseSpec, ...], folder: Path) -> ExitStatus:
    plan = Plan(family=options.family, adapter=reference, specs=specs, only=options.only, device=options.device)
    title = f"{options.family} × {reference}"
    with record.Writer(folder) as writer:
        try:
            with Meter(console.standard_error(), title=title, cases=len(specs)) as meter:
                started = _drive(plan, options, writer, meter)
        except BrokenPipeError:
            pipe.discard(sys.stderr)
            started = writer.ended  # the record says whether the run came to its end before
        if not started:
            print("verifier: interrupted before the first case; nothing was written", file=sys.stderr)
            return ExitStatus.INTERRUPTED
    return _show(writer.path, folder)


def _drive(plan: Plan, options: RunOptions, writer: record.Writer, meter: Meter) -> bool:
    """Run the plan into the record; whether it came to its first case."""
    started = False
    try:
        for event in _events(plan, options):
            match event:
                case RunStarted():
                    writer.run(_run_line(plan, options, event))
                    started = True
                case CaseStarted(spec=spec):
                    writer.case(spec)
                case OutcomeReady(case=case, outcome=outcome):
                    writer.outcome(case, outcome)
                case RunFinished(stop=stop, seconds=seconds):
                    if started:
                        interrupted = stop is Stop.INTERRUPTED
                        status = (
                            ExitStatus.INTERRUPTED
                            if interrupted
                            else summary.exit_status(writer.valid, writer.verdicts)
                        )
                        writer.end(status=status, stop=stop, seconds=seconds)
            meter.note(event)
    except (KeyboardInterrupt, BrokenPipeError):
        if started and not writer.ended:
            writer.end(status=ExitStatus.INTERRUPTED, stop=Stop.INTERRUPTED, seconds=0.0)
        raise
    except VerifierError as error:
        if started and not writer.ended:
            writer.end(status=error.status, stop=Stop.BROKEN, seconds=0.0)
        raise
    return started


def _events(plan: Plan, options: RunOptions) -> Iterator[Event]:
    return run_plan(plan, workers=options.workers or usable_cores())


def _run_line(plan: Plan, options: RunOptions, event: RunStarted) -> record.RunLine:
    reference = family.load(options.family)
    asked = {
        "only": list(options.only),
        "where": list(options.where),
        "preset": options.preset,
        "checkpoint": options.checkpoint,
        "dtype": list(options.dtypes),
        "device": options.device,
    }
    return record.RunLine(
        family=options.family,
        adapter=plan.adapter,
        adapter_name=event.adapter_name,
        adapter_version=event.adapter_version,
        versions=versions(plan.adapter),
        seed=options.seed,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        flags={name: list(values) for name, values in reference.flags().items()},
        dims=dict(reference.dims()),
        checks=[{"id": check.id, "doc": check.doc} for check in event.checks],
        planned={
            "valid": sum(spec.valid for spec in plan.specs),
            "refused": sum(not spec.valid for spec in plan.specs),
        },
        asked={name: value for name, value in asked.items() if value},
        workers=event.workers,
    )


def _show(path: Path, folder: Path) -> ExitStatus:
    found = summary.summarise(record.read(path))
    page = folder / REPORT_FILE
    html.write([found], page)
    out = console.standard_output()
    try:
        terminal.show(found, out)
        out.print(f"record  {path}\nreport  {page}", soft_wrap=True)
        terminal.show_verdict(found, out)
        sys.stdout.flush()
    except BrokenPipeError:
        pipe.discard(sys.stdout)  # whoever read it has seen enough; all of it is in the report
    return found.status
