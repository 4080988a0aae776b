"""`verifier diff`: what a change broke and mended, from a record before it and one after."""

from __future__ import annotations

import sys
from pathlib import Path

from verifier import record
from verifier.analysis.diff import compare_records
from verifier.errors import ExitStatus, UsageError
from verifier.output import pipe, text
from verifier.record import files

STANDARD_OUTPUT = Path("-")


def diff(old: Path, new: Path, *, form: str, out: Path | None, json: Path | None) -> ExitStatus:
    """Compare two records and print what a change broke and mended; the status says whether anything is broken.

    Args:
        old: the record before the change, a file or its folder.
        new: the record after it.
        form: `terminal` or `markdown`.
        out: the file that the Markdown is written to; None for the standard output.
        json: the file that everything is written to as JSON; `-` is the standard output, which then has only that.

    Raises:
        UsageError: a record cannot be read, the two cannot be compared, or a file cannot be written.
    """
    if out is not None and form != "markdown":
        raise UsageError("--out takes the Markdown: give --format markdown with it; --json FILE takes the JSON")
    if json == STANDARD_OUTPUT and form == "markdown" and out is None:
        raise UsageError("--json - and --format markdown both want the standard output: name a file with --out")
    if out is not None and out == json:
        raise UsageError(f"--out and --json are two files, not both {str(out)!r}")
    changes = compare_records(record.read(old), record.read(new))
    from verifier.output import console
    from verifier.report import diff as printed

    if json is not None and json != STANDARD_OUTPUT:
        files.write_report(printed.as_json(changes), json)
    if out is not None:
        files.write_report(printed.markdown(changes), out)
    with pipe.until_closed(sys.stdout):
        if json == STANDARD_OUTPUT:
            sys.stdout.write(printed.as_json(changes))
        elif out is not None:
            print(text.line(str(out)))
        elif form == "markdown":
            sys.stdout.write(printed.markdown(changes))
        else:
            printed.show(changes, console.standard_output())
    return changes.status
