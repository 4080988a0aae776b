"""`verifier diff`: what a change broke and mended, from a record before it and one after."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from verifier import record
from verifier.analysis.changes import RecordDiff
from verifier.analysis.diff import compare_records
from verifier.errors import ExitStatus, UsageError
from verifier.output import pipe, text
from verifier.record import files

STANDARD_OUTPUT = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffOptions:
    """What the user asked for, as on the command line.

    Attributes:
        old: the record before the change, a file or its folder.
        new: the record after it.
        form: `terminal` or `markdown`.
        out: where the Markdown goes; None for the standard output.
        json: where everything goes as JSON; `-` is the standard output, which then has nothing else.
    """

    old: Path
    new: Path
    form: str = "terminal"
    out: Path | None = None
    json: Path | None = None


def diff(options: DiffOptions) -> ExitStatus:
    """Compare and tell; the status says whether anything is broken.

    Raises:
        UsageError: a record cannot be read, the two cannot be compared, or a file cannot be written.
    """
    _require_sense(options)
    changes = compare_records(record.read(options.old), record.read(options.new))
    from verifier.report import diff as printed

    if options.json is not None and options.json != STANDARD_OUTPUT:
        files.write_report(printed.as_json(changes), options.json)
    if options.out is not None:
        files.write_report(printed.markdown(changes), options.out)
    with pipe.until_closed(sys.stdout):
        _tell(changes, options)
    return changes.status


def _tell(changes: RecordDiff, options: DiffOptions) -> None:
    """What goes to the standard output: one thing, for a person or for a program."""
    from verifier.output import console
    from verifier.report import diff as printed

    if options.json == STANDARD_OUTPUT:
        sys.stdout.write(printed.as_json(changes))
    elif options.out is not None:
        print(text.line(str(options.out)))
    elif options.form == "markdown":
        sys.stdout.write(printed.markdown(changes))
    else:
        printed.show(changes, console.standard_output())


def _require_sense(options: DiffOptions) -> None:
    """Raise what is wrong with options together."""
    if options.out is not None and options.form != "markdown":
        raise UsageError("--out takes the Markdown: give --format markdown with it; --json FILE takes the JSON")
    if options.json == STANDARD_OUTPUT and options.form == "markdown" and options.out is None:
        raise UsageError("--json - and --format markdown both want the standard output: name a file with --out")
    if options.out is not None and options.out == options.json:
        raise UsageError(f"--out and --json are two files, not both {str(options.out)!r}")
