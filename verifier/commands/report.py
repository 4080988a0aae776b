"""`verifier report`: the page, or the same as Markdown, from one record or several."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from verifier import record
from verifier.analysis.selftest import SelfTest
from verifier.analysis.verdict import describe_missing_shards
from verifier.analysis.view import view_record
from verifier.commands import building
from verifier.commands.run import worst
from verifier.errors import ExitStatus, UsageError
from verifier.output import text
from verifier.output.validation import convert
from verifier.record import files
from verifier.report import html, markdown
from verifier.requests.folders import REPORT_FILE
from verifier.system.files import parse_json, read_file


def report(
    paths: Sequence[Path],
    *,
    out: Path | None,
    form: str,
    selftests: Sequence[Path],
    merge: bool,
    gate: bool,
    junit: Path | None,
    github: bool,
) -> ExitStatus:
    """Write the report of one record or several; the shards of a run are one record, of which missing ones are named.

    Args:
        paths: the records, files or their folders.
        out: the file that the report is written to; None for a page beside the record, or Markdown on the standard
            output.
        form: `html` or `markdown`.
        selftests: files that `verifier selftest --json` wrote.
        merge: whether the records are joined to one.
        gate: whether the exit status is that of the records.
        junit: the file that JUnit XML is written to; None for no such file.
        github: whether annotations and the step's summary are written for GitHub.

    Raises:
        UsageError: a record or a self-test cannot be read, a shard is there twice, or the report cannot be written.
    """
    records = record.join_shards([record.read(path) for path in paths])
    if merge:
        records = (record.merge_records(records),)
    if out is None and form == "html":
        if len(paths) > 1:
            raise UsageError("name the page of several records with --out FILE")
        out = records[0].path.with_name(REPORT_FILE)
    families = {one.run.family for one in records}
    tests = [_read_selftest(path, families) for path in selftests]
    views = [view_record(one, tests) for one in records]
    written = (html if form == "html" else markdown).render(views)
    if out is None:
        sys.stdout.write(written)
    else:
        files.write_report(written, out)
        print(out)
    building.write_build_reports(views, junit_file=junit, on_github=github)
    statuses = [view.summary.status for view in views] if gate else [ExitStatus.CONFORMS]
    for one in records:
        if one.missing:
            print(f"verifier: {text.line(_describe_missing(one), 4 * text.LINE_LIMIT)}", file=sys.stderr)
            statuses.append(ExitStatus.INCONCLUSIVE)
    return worst(statuses)


def _describe_missing(one: record.Record) -> str:
    """Say which shards of a run are missing, and which of the given records are of another run."""
    missing = f"{one.run.family} × {one.run.adapter}: {describe_missing_shards(one)}"
    hints = [note for note in one.notes if record.OF_ANOTHER_RUN in note]
    return "; ".join([f"{missing}, and the report is of the others alone", *hints])


def _read_selftest(path: Path, families: Collection[str]) -> SelfTest:
    """Read what `verifier selftest --json` wrote for one of the families.

    Raises:
        UsageError: the file cannot be read, or is of another family, or something else.
    """
    try:
        test = convert(parse_json(read_file(path)), SelfTest, of="the file")
    except OSError as error:
        raise UsageError(f"cannot read the self-test {str(path)!r}: {error.strerror}") from error
    except (UsageError, ValueError) as error:
        raise UsageError(
            f"{str(path)!r} is no self-test, as `verifier selftest FAMILY --json FILE` writes it: {error}"
        ) from error
    if test.family not in families:
        raise UsageError(f"{str(path)!r} is a self-test of {test.family!r}, and no record is of that family")
    return test
