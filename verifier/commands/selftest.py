"""`verifier selftest`: planted faults, and whether each check sees its own."""

from __future__ import annotations

from pathlib import Path

from verifier import adapter as adapters
from verifier.errors import ExitStatus
from verifier.record.files import write_report
from verifier.report import kill_table as table
from verifier.requests.request import RunRequest


def selftest(request: RunRequest, *, as_markdown: bool, json_file: Path | None) -> ExitStatus:
    """Plant the faults and print the kill table; a survivor makes it inconclusive.

    Args:
        request: the family whose faults are planted, the adapter that they are planted in, and the seed.
        as_markdown: whether the table is printed as a page of documentation.
        json_file: the file that the table is also written to, for `verifier report --selftest`.

    Raises:
        UsageError: the family or the adapter is not what it should be, or the file cannot be written.
    """
    family, adapter = request.family, request.adapter
    adapters.require_findable(adapter)
    from verifier.faults.selftest import run  # imports torch

    kills = list(run(family, adapter, seed=request.seed))
    if as_markdown:
        print(table.markdown(kills, family))
    else:
        table.show(kills, family, adapter)
    if json_file is not None:  # the terminal has the table, whatever becomes of the file
        write_report(table.as_json(kills, family, adapter), json_file)
    return ExitStatus.INCONCLUSIVE if any(kill.survived for kill in kills) or not kills else ExitStatus.CONFORMS
