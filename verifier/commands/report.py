"""`verifier report`: the page, or the same as Markdown, from one record or several."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verifier import record
from verifier.commands.run import REPORT_FILE
from verifier.errors import ExitStatus, UsageError, one_line
from verifier.report import files, html, markdown
from verifier.report.whole import whole

_KILL = ("fault", "what", "check", "verdict", "evidence")


def report(
    paths: Sequence[Path], out: Path | None, *, form: str = "html", selftests: Sequence[Path] = (), merge: bool = False
) -> ExitStatus:
    """Write the report: a page beside the record, if there is one and nothing else was asked for; Markdown to the
    terminal.

    Raises:
        UsageError: a record or a self-test cannot be read, or the report cannot be written.
    """
    records = [record.read(path) for path in paths]
    if merge:
        records = [record.merged(records)]
    tests = [_selftest(path) for path in selftests]
    if out is None and form == "html":
        if len(paths) > 1:
            raise UsageError("name the page of several records with --out FILE")
        out = records[0].path.with_name(REPORT_FILE)
    for path, test in zip(selftests, tests, strict=True):
        if test["family"] not in {one.run.family for one in records}:
            raise UsageError(f"{str(path)!r} is a self-test of {test['family']!r}, and no record is of that family")
    made = (html if form == "html" else markdown).render([whole(one, tests) for one in records])
    if out is None:
        sys.stdout.write(made)
    else:
        files.put(made, out)
        print(out)
    return ExitStatus.CONFORMS


def _selftest(path: Path) -> dict[str, Any]:
    """What `verifier selftest --json` wrote.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    try:
        found = json.loads(path.read_bytes())
        kills = found["kills"]
        texts = [found["family"], found["adapter"], *(kill[name] for kill in kills for name in _KILL)]
    except OSError as error:
        raise UsageError(f"cannot read the self-test {str(path)!r}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{str(path)!r} is no self-test, as `verifier selftest FAMILY --json FILE` writes it: {one_line(error)}"
        ) from error
    if not all(isinstance(one, str) for one in texts):
        raise UsageError(f"{str(path)!r} is no self-test: what should be a text is none")
    return dict(found)
