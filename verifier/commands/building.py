"""The reports of `run` and `report` for a build server: JUnit XML, and what GitHub shows beside the code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from verifier.analysis.not_started import NotStarted
from verifier.analysis.view import RecordView
from verifier.errors import UsageError
from verifier.output import pipe
from verifier.record import files
from verifier.report import github, junit

WORKSPACE, SUMMARY = "GITHUB_WORKSPACE", "GITHUB_STEP_SUMMARY"


def write_build_reports(
    views: Sequence[RecordView], *, junit_file: Path | None, on_github: bool, not_started: Sequence[NotStarted] = ()
) -> None:
    """Write the reports for a build server, once for all records of a command.

    Args:
        views: of the records.
        not_started: the adapters that were asked for and have no record.
        junit_file: the file that JUnit XML is written to; None for no such file.
        on_github: whether annotations go to the standard output, and the report into the step's summary.

    Raises:
        UsageError: a file cannot be written.
    """
    if not views and not not_started:
        return
    try:
        if junit_file is not None:
            files.write_report(junit.render(views, not_started), junit_file)
    finally:  # GitHub is told even if the file cannot be written
        if on_github:
            with pipe.until_closed(sys.stdout):
                for line in github.commands(views, Path(os.environ.get(WORKSPACE) or Path.cwd()), not_started):
                    print(line)
            if views:
                _summarise(views)


def _summarise(views: Sequence[RecordView]) -> None:
    """Append the report to the step's summary, which other commands of the step may have written to."""
    name = os.environ.get(SUMMARY)
    if not name:
        return
    try:
        before = os.path.getsize(name) if os.path.exists(name) else 0
        made = github.step_summary(views, before)
        if made is None:
            print(f"verifier: the step's summary is full: nothing was added to {name!r}", file=sys.stderr)
            return
        with open(name, "ab") as file:
            file.write(made.encode())
    except OSError as error:
        raise UsageError(f"cannot write the step's summary {name!r} ({SUMMARY}): {error.strerror}") from error
