"""What `run` and `report` leave for a build server: JUnit XML, and what GitHub shows beside the code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from verifier.analysis.not_started import Unrun
from verifier.analysis.view import Whole
from verifier.errors import UsageError
from verifier.record import files
from verifier.report import github, junit, pipe

WORKSPACE, SUMMARY = "GITHUB_WORKSPACE", "GITHUB_STEP_SUMMARY"


def leave(wholes: Sequence[Whole], *, junit_file: Path | None, on_github: bool, unrun: Sequence[Unrun] = ()) -> None:
    """Write what was asked for of the records that a command tells of, once for all of them.

    Args:
        wholes: of the records.
        unrun: the adapters that were asked for and of which there is no record.
        junit_file: where the JUnit XML goes.
        on_github: whether annotations go to the standard output, and the report into the step's summary.

    Raises:
        UsageError: a file cannot be written.
    """
    if not wholes and not unrun:
        return
    unwritten = None
    if junit_file is not None:
        try:
            files.put(junit.render(wholes, unrun), junit_file)
        except UsageError as error:  # GitHub is told all the same
            unwritten = error
    if on_github:
        _annotate(wholes, unrun)
        if wholes:
            _summarise(wholes)
    if unwritten is not None:
        raise unwritten


def _annotate(wholes: Sequence[Whole], unrun: Sequence[Unrun]) -> None:
    workspace = Path(os.environ.get(WORKSPACE) or Path.cwd())
    try:
        for line in github.commands(wholes, workspace, unrun):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        pipe.discard(sys.stdout)


def _summarise(wholes: Sequence[Whole]) -> None:
    """Append the report to the step's summary, which other commands of the step may have written to."""
    name = os.environ.get(SUMMARY)
    if not name:
        return
    try:
        before = os.path.getsize(name) if os.path.exists(name) else 0
        made = github.step_summary(wholes, before)
        if made is None:
            print(f"verifier: the step's summary is full: nothing was added to {name!r}", file=sys.stderr)
            return
        with open(name, "ab") as file:
            file.write(made.encode())
    except OSError as error:
        raise UsageError(f"cannot write the step's summary {name!r} ({SUMMARY}): {error.strerror}") from error
