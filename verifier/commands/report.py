"""`verifier report`: the page, or the same as Markdown, from one record or several."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verifier import record
from verifier.analysis.selftest import SelfTest
from verifier.analysis.verdict import describe_missing_shards
from verifier.analysis.view import view_record
from verifier.commands import building
from verifier.commands.run import worst
from verifier.errors import ExitStatus, UsageError, one_line
from verifier.output import text
from verifier.output.validation import convert
from verifier.record import files
from verifier.report import html, markdown
from verifier.requests.folders import REPORT_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What the user asked for, as on the command line.

    Attributes:
        out: where the report goes; None for its usual place.
        form: which report.
        selftests: what `verifier selftest --json` wrote.
        merge: whether the records are one.
        gate: whether the exit status is the records'.
        junit: where JUnit XML goes.
        github: whether GitHub is told.
    """

    out: Path | None = None
    form: str = "html"
    selftests: tuple[Path, ...] = ()
    merge: bool = False
    gate: bool = False
    junit: Path | None = None
    github: bool = False


def report(paths: Sequence[Path], options: ReportOptions) -> ExitStatus:
    """Write the report: a page beside the record, if there is one and nothing else was asked for; Markdown to the
    terminal. The shards of a run are one record; which are missing is said, and written into the report.

    Raises:
        UsageError: a record or a self-test cannot be read, a shard is there twice, or the report cannot be written.
    """
    records = record.join_shards([record.read(path) for path in paths])
    if options.merge:
        records = (record.merge_records(records),)
    tests = [_selftest(path) for path in options.selftests]
    out = options.out
    if out is None and options.form == "html":
        if len(paths) > 1:
            raise UsageError("name the page of several records with --out FILE")
        out = records[0].path.with_name(REPORT_FILE)
    for path, test in zip(options.selftests, tests, strict=True):
        if test.family not in {one.run.family for one in records}:
            raise UsageError(f"{str(path)!r} is a self-test of {test.family!r}, and no record is of that family")
    views = [view_record(one, tests) for one in records]
    made = (html if options.form == "html" else markdown).render(views)
    if out is None:
        sys.stdout.write(made)
    else:
        files.write_report(made, out)
        print(out)
    building.write_build_reports(views, junit_file=options.junit, on_github=options.github)
    lacking = [one for one in records if one.missing]
    for one in lacking:
        print(f"verifier: {text.line(_lacks(one), 4 * text.LINE_LIMIT)}", file=sys.stderr)
    statuses = [one.summary.status for one in views] if options.gate else [ExitStatus.CONFORMS]
    return worst([*statuses, *(ExitStatus.INCONCLUSIVE for _ in lacking)])


def _lacks(one: record.Record) -> str:
    """Which shards are missing, and of which run."""
    hints = [note for note in one.notes if record.OF_ANOTHER_RUN in note]
    said = (
        f"{one.run.family} × {one.run.adapter}: {describe_missing_shards(one)}, and the report is of the others alone"
    )
    return "; ".join([said, *hints])


def _selftest(path: Path) -> SelfTest:
    """What `verifier selftest --json` wrote.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    try:
        return convert(json.loads(path.read_bytes()), SelfTest, of="the file")
    except OSError as error:
        raise UsageError(f"cannot read the self-test {str(path)!r}: {error.strerror}") from error
    except (UsageError, ValueError, RecursionError) as error:
        said = error if isinstance(error, UsageError) else one_line(error)
        raise UsageError(
            f"{str(path)!r} is no self-test, as `verifier selftest FAMILY --json FILE` writes it: {said}"
        ) from error
