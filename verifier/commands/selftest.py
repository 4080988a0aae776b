"""`verifier selftest`: planted faults, and whether each check sees its own."""

from __future__ import annotations

import sys
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

    kills = list(run(family, adapter, seed=request.seed, quick=request.quick))
    if as_markdown:
        print(table.markdown(kills, family))
    else:
        table.show(kills, family, adapter)
    if json_file is not None:  # the terminal has the table, whatever becomes of the file
        write_report(table.as_json(kills, family, adapter), json_file)
    return ExitStatus.INCONCLUSIVE if any(kill.survived for kill in kills) or not kills else ExitStatus.CONFORMS


def generated(request: RunRequest, workers: int) -> ExitStatus:
    """Run the circumstances of a default run with every generated mutant armed, and print those that survive.

    Args:
        request: the family, the right adapter, and the seed.
        workers: how many processes.

    Raises:
        UsageError: the family or the adapter is not what it should be.
    """
    adapters.require_findable(request.adapter)
    from verifier.faults.generated_selftest import run  # imports torch

    found = run(
        request.family,
        request.adapter,
        seed=request.seed,
        workers=workers,
        quick=request.quick,
        progress=_tell_progress,
    )
    for effect, trigger in found.survivors:
        print(f"SURVIVED  {effect}: {' and '.join(f'{axis} is {value}' for axis, value in sorted(trigger))}")
    print(f"{found.sentence}: {len(found.survivors) or 'none'} survived")
    return ExitStatus.INCONCLUSIVE if found.survivors or not found.rows else ExitStatus.CONFORMS


def _tell_progress(done: int, cases: int) -> None:
    """Say ten times in a run how far it is."""
    if done * 10 // cases > (done - 1) * 10 // cases:
        print(f"{done} of {cases} cases", file=sys.stderr, flush=True)
