"""`verifier report`: the page again, from one record or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from verifier import record
from verifier.commands.run import REPORT_FILE
from verifier.errors import ExitStatus, UsageError
from verifier.report import html
from verifier.report.summary import summarise


def report(paths: Sequence[Path], out: Path | None) -> ExitStatus:
    """Write the page; beside the record if there is one, and nothing else was asked for.

    Raises:
        UsageError: a record cannot be read, or the page cannot be written.
    """
    records = [record.read(path) for path in paths]
    if out is None:
        if len(records) > 1:
            raise UsageError("name the page of several records with --out FILE")
        out = records[0].path.with_name(REPORT_FILE)
    html.write([summarise(one) for one in records], out)
    print(out)
    return ExitStatus.CONFORMS
