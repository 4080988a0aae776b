"""`verifier run`: run every check on every case, with one record and one report for each adapter."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from verifier import record
from verifier.analysis.not_started import NotStarted
from verifier.cases.shards import select_shard
from verifier.cases.spec import CaseSpec
from verifier.commands.recording import record_run
from verifier.engine.asking import asking_hugging_face
from verifier.errors import ExitStatus, Inconclusive, UsageError, VerifierError
from verifier.output import pipe
from verifier.record.known_failure import Baseline
from verifier.requests.cases import select_cases
from verifier.requests.folders import REPORT_FILE, result_folders
from verifier.requests.planning import PlannedRun, require_known
from verifier.requests.request import RunRequest

if TYPE_CHECKING:
    from verifier.analysis.view import RecordView

# Printers and processes are imported where they are used: a wrong command line must fail at once.

# Of several adapters' statuses the first of these is the command's.
_WORST_FIRST = (
    ExitStatus.INTERRUPTED,
    ExitStatus.BROKEN,
    ExitStatus.USAGE,
    ExitStatus.DIFFERS,
    ExitStatus.INCONCLUSIVE,
    ExitStatus.CONFORMS,
)


def run(request: RunRequest) -> ExitStatus:
    """Run the family's cases under each adapter, print the results, and write records and reports.

    Raises:
        UsageError: something named on the command line is wrong.
        Inconclusive: no case is selected.
        VerifierError: the harness, or code from outside at its import, failed.
    """
    require_known(request)
    baselines = _baselines(request)
    with asking_hugging_face(request.family):
        specs = _cases(request)
    folders = result_folders(request)
    wanted = _adapters_to_run(request, baselines)
    if not wanted:
        return ExitStatus.CONFORMS
    from verifier.output import console

    statuses: list[ExitStatus] = []
    views: list[RecordView] = []
    not_started: list[NotStarted] = []

    def note_not_started(reference: str, status: ExitStatus, reason: str) -> None:
        not_started.append(NotStarted(family=request.family, adapter=reference, status=status, reason=reason))

    for reference in wanted:
        planned = PlannedRun(request=request, adapter=reference, specs=specs, baseline=baselines.get(reference))
        try:
            path = record_run(planned, folders[reference], console.standard_error())
            view = None if path is None else show(path, folders[reference], request.slowest)
        except VerifierError as error:
            if isinstance(error, record.RecordLost):
                show_rest(error)
            note_not_started(reference, error.status, str(error))
            if len(wanted) == 1:
                _write_build_reports(request, views, not_started)
                raise
            # The other adapters are not to blame for this one.
            print(f"verifier: {error}", file=sys.stderr)
            status = error.status
        else:
            if view is None:
                status = ExitStatus.INTERRUPTED
                note_not_started(reference, status, "interrupted before its first case")
            else:
                status = view.summary.status
                views.append(view)
        statuses.append(status)
        if status is ExitStatus.INTERRUPTED:
            break
    for reference in wanted[len(statuses) :]:
        note_not_started(reference, ExitStatus.INTERRUPTED, "interrupted before it")
    _write_build_reports(request, views, not_started)
    return worst(statuses)


def _write_build_reports(request: RunRequest, views: Sequence[RecordView], not_started: Sequence[NotStarted]) -> None:
    if request.junit is not None or request.github:
        from verifier.commands import building

        building.write_build_reports(views, junit_file=request.junit, on_github=request.github, not_started=not_started)


def worst(statuses: Sequence[ExitStatus]) -> ExitStatus:
    """Choose the exit status of a command that did several things: the worst one."""
    return min(statuses, key=_WORST_FIRST.index)


def _baselines(request: RunRequest) -> dict[str, Baseline]:
    """Read the baselines, by the adapter that each is of."""
    if not request.baseline:
        return {}
    from verifier.baseline.file import read

    baselines: dict[str, Baseline] = {}
    for path in request.baseline:
        one = read(path)
        if one.family != request.family or one.adapter not in request.adapters:
            if "baseline" in request.configured:
                print(
                    f"verifier: the configured baseline {str(path)!r} is of {one.family} × {one.adapter}: not used",
                    file=sys.stderr,
                )
                continue
            raise UsageError(
                f"the baseline {str(path)!r} is of {one.family} × {one.adapter}, and this run of {request.family} × "
                f"{', '.join(request.adapters)}"
            )
        if one.adapter in baselines:
            raise UsageError(f"{baselines[one.adapter].path!r} and {str(path)!r} are both baselines of {one.adapter!r}")
        baselines[one.adapter] = one
    return baselines


def _adapters_to_run(request: RunRequest, baselines: Mapping[str, Baseline]) -> Sequence[str]:
    """List the adapters to run; with `--changed-since`, print for each whether a change touches it, and why."""
    if request.changed_since is None:
        return request.adapters
    from verifier.commands import changed_since

    changes = changed_since.since(request.changed_since, Path.cwd())
    wanted = []
    for reference in request.adapters:
        beside = [Path(baselines[reference].path)] if reference in baselines else []
        beside += [request.cases] if request.cases is not None else []
        beside += [Path(request.checkpoint).expanduser()] if request.checkpoint is not None else []
        touched = changed_since.look(changes, family=request.family, adapter=reference, beside=beside)
        print(f"verifier: {touched.sentence}", file=sys.stderr)
        wanted += [reference] if touched.is_touched else []
    if not wanted:
        print("verifier: no adapter is to be run; nothing ran", file=sys.stderr)
    return wanted


def _cases(request: RunRequest) -> tuple[CaseSpec, ...]:
    """Select the cases of the request, or of its shard."""
    specs = select_cases(request)
    if request.shard is None:
        return specs
    in_shard = select_shard(specs, request.shard)
    if not in_shard:
        raise Inconclusive(
            f"shard {request.shard} has no case: there are {len(specs)} to be dealt out, so that the last shard with "
            f"one is {len(specs)}/{request.shard.of}; nothing ran"
        )
    return in_shard


def show_rest(lost: record.RecordLost) -> None:
    """Print what was recorded until the record could not be written on; nothing where that is nothing.

    Args:
        lost: the error, which has what was recorded.
    """
    from verifier.analysis.view import view_record
    from verifier.output import console
    from verifier.report import terminal

    if not lost.content:
        return
    summary = view_record(record.read_content(lost.path, lost.content)).summary
    out = console.standard_output()
    with pipe.until_closed(sys.stdout):
        terminal.show(summary, out)
        terminal.show_verdict(summary, out)


def show(path: Path, folder: Path, slowest: int) -> RecordView:
    """Print what a record says, and write its report; the terminal is told even if the report cannot be written.

    Args:
        path: the record.
        folder: where the report goes.
        slowest: how many of the slowest cases are named.

    Raises:
        VerifierError: the report cannot be written.
    """
    from verifier.analysis.view import view_record
    from verifier.output import console
    from verifier.record import files
    from verifier.report import html, terminal

    read = record.read(path)
    view = view_record(read)
    page = folder / REPORT_FILE
    unwritten = None
    try:
        files.write_report(html.render([view]), page)
    except VerifierError as error:
        unwritten = error
    out = console.standard_output()
    with pipe.until_closed(sys.stdout):
        terminal.show(view.summary, out)
        terminal.show_slowest(read, slowest, out)
        out.print(f"record  {path}" + (f"\nreport  {page}" if unwritten is None else ""), soft_wrap=True)
        terminal.show_verdict(view.summary, out)
    if unwritten is not None:
        raise unwritten
    return view
