"""`verifier selftest`: planted faults, and whether each check sees its own."""

from __future__ import annotations

from pathlib import Path

from verifier import adapter as adapters
from verifier.errors import ExitStatus
from verifier.record.files import write_report
from verifier.report import kill_table as table


def selftest(
    family: str, adapter: str, seed: int, *, as_markdown: bool = False, json_file: Path | None = None
) -> ExitStatus:
    """Plant the faults and print the kill table; a survivor makes it inconclusive.

    Args:
        family: whose faults are planted.
        adapter: in which adapter.
        seed: of weights and inputs.
        as_markdown: whether the table is printed as a page of documentation.
        json_file: where the table goes too, for `verifier report --selftest`.

    Raises:
        UsageError: the family or the adapter is not what it should be, or the file cannot be written.
    """
    adapters.require_findable(adapter)
    from verifier.faults.selftest import run  # imports torch

    kills = list(run(family, adapter, seed=seed))
    if as_markdown:
        print(table.markdown(kills, family))
    else:
        table.show(kills, family, adapter)
    if json_file is not None:  # the terminal has heard it, whatever becomes of the file
        write_report(table.as_json(kills, family, adapter), json_file)
    return ExitStatus.INCONCLUSIVE if any(kill.survived for kill in kills) or not kills else ExitStatus.CONFORMS
