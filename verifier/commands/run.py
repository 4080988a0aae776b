"""`verifier run`: every case, every check, one record and one report for each adapter."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from verifier import adapter, record
from verifier.analysis.not_started import NotStarted
from verifier.cases.shards import dealt
from verifier.cases.spec import CaseSpec
from verifier.commands.recording import recorded
from verifier.engine import catalogue
from verifier.errors import ExitStatus, Inconclusive, UsageError, VerifierError
from verifier.output import pipe
from verifier.record.known_failure import Baseline
from verifier.requests import cases
from verifier.requests.folders import REPORT_FILE, result_folders
from verifier.requests.request import RunOptions, require_sense

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


def run(options: RunOptions) -> ExitStatus:
    """Run the family's cases under each adapter, show and keep the results.

    Raises:
        UsageError: something named on the command line is wrong.
        Inconclusive: no case is like that.
        VerifierError: the harness, or code from outside at its import, failed.
    """
    require_sense(options)
    catalogue.require_known(options.only)
    references = options.adapters
    for reference in references:
        adapter.require_findable(reference)
    baselines = _baselines(options, references)
    specs = _cases(options)
    folders = dict(zip(references, result_folders(options, references), strict=True))
    wanted = _wanted(options, references, baselines)
    if not wanted:
        return ExitStatus.CONFORMS
    statuses = []
    told: list[RecordView] = []
    not_started: list[NotStarted] = []
    for reference in wanted:
        folder = folders[reference]
        try:
            one = _run_one(options, reference, specs, folder, baselines.get(reference))
        except VerifierError as error:
            not_started.append(_not_started(options, reference, error.status, str(error)))
            if len(wanted) == 1:
                _leave(options, told, not_started)
                raise
            # The other adapters are not to blame for this one.
            print(f"verifier: {error}", file=sys.stderr)
            status = error.status
        else:
            if one is None:
                status = ExitStatus.INTERRUPTED
                not_started.append(_not_started(options, reference, status, "interrupted before its first case"))
            else:
                status = one.summary.status
                told.append(one)
        statuses.append(status)
        if status is ExitStatus.INTERRUPTED:
            break
    not_started += [
        _not_started(options, one, ExitStatus.INTERRUPTED, "interrupted before it") for one in wanted[len(statuses) :]
    ]
    _leave(options, told, not_started)
    return worst(statuses)


def _not_started(options: RunOptions, reference: str, status: ExitStatus, reason: str) -> NotStarted:
    return NotStarted(family=options.family, adapter=reference, status=status, reason=reason)


def _leave(options: RunOptions, told: Sequence[RecordView], not_started: Sequence[NotStarted]) -> None:
    if options.junit is not None or options.github:
        from verifier.commands import building

        building.leave(told, junit_file=options.junit, on_github=options.github, not_started=not_started)


def worst(statuses: Sequence[ExitStatus]) -> ExitStatus:
    """The status of a command that did several things."""
    return min(statuses, key=_WORST_FIRST.index)


def _baselines(options: RunOptions, references: Sequence[str]) -> dict[str, Baseline]:
    """The baselines by the adapter that each is of."""
    if not options.baseline:
        return {}
    from verifier.baseline.file import read

    found: dict[str, Baseline] = {}
    for path in options.baseline:
        one = read(path)
        if one.family != options.family or one.adapter not in references:
            if "baseline" in options.configured:
                print(
                    f"verifier: the configured baseline {str(path)!r} is of {one.family} × {one.adapter}: not used",
                    file=sys.stderr,
                )
                continue
            raise UsageError(
                f"the baseline {str(path)!r} is of {one.family} × {one.adapter}, and this run of {options.family} × "
                f"{', '.join(references)}"
            )
        if one.adapter in found:
            raise UsageError(f"{found[one.adapter].path!r} and {str(path)!r} are both baselines of {one.adapter!r}")
        found[one.adapter] = one
    return found


def _wanted(options: RunOptions, references: Sequence[str], baselines: Mapping[str, Baseline]) -> Sequence[str]:
    """The adapters that are to be run: with `--changed-since` those alone that something of was touched, said one by
    one."""
    if options.changed_since is None:
        return references
    from verifier.commands import changed_since

    changes = changed_since.since(options.changed_since, Path.cwd())
    wanted = []
    for reference in references:
        beside = [Path(baselines[reference].path)] if reference in baselines else []
        beside += [options.cases] if options.cases is not None else []
        beside += [Path(options.checkpoint).expanduser()] if options.checkpoint is not None else []
        found = changed_since.look(changes, family=options.family, adapter=reference, beside=beside)
        print(f"verifier: {found.sentence}", file=sys.stderr)
        wanted += [reference] if found.is_touched else []
    if not wanted:
        print("verifier: no adapter is to be run; nothing ran", file=sys.stderr)
    return wanted


def _cases(options: RunOptions) -> tuple[CaseSpec, ...]:
    specs = cases.of(options)
    if options.shard is None:
        return specs
    mine = dealt(specs, options.shard)
    if not mine:
        raise Inconclusive(
            f"shard {options.shard} has no case: there are {len(specs)} to be dealt out, so that the last shard with "
            f"one is {len(specs)}/{options.shard.of}; nothing ran"
        )
    return mine


def _run_one(
    options: RunOptions, reference: str, specs: tuple[CaseSpec, ...], folder: Path, baseline: Baseline | None
) -> RecordView | None:
    """What came of it; None where it was interrupted before its first case."""
    from verifier.output import console

    path = recorded(options, reference, specs, folder, baseline, console.standard_error())
    return None if path is None else show(path, folder, options.slowest)


def show(path: Path, folder: Path, slow: int) -> RecordView:
    """Tell what the record says, and give it back; the terminal hears it whatever becomes of the page."""
    from verifier.analysis import view
    from verifier.output import console
    from verifier.record import files
    from verifier.report import html, terminal

    kept = record.read(path)
    everything = view.view_record(kept)
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
        terminal.show_slowest(kept, slow, out)
        out.print(f"record  {path}" + (f"\nreport  {page}" if unwritten is None else ""), soft_wrap=True)
        terminal.show_verdict(found, out)
        sys.stdout.flush()
    except BrokenPipeError:
        pipe.discard(sys.stdout)  # whoever read it has seen enough; all of it is in the report
    if unwritten is not None:
        raise unwritten
    return everything
