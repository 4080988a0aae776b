"""The kill table: which check caught which planted fault, on which case, by how much."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich.table import Table

from verifier import family as families
from verifier.analysis.selftest import VERDICTS, PlantedFault, SelfTest
from verifier.output import pipe, text
from verifier.output.console import standard_output
from verifier.record.case_description import differing_values
from verifier.report import templating

if TYPE_CHECKING:
    from verifier.faults.selftest import MutantResult
    from verifier.judging.outcome import Outcome

_COLUMNS = ("fault", "must be caught by", "", "how", "case")
_CAUGHT, _SURVIVED, _NOT_TRIED = VERDICTS
_LOUD = "SURVIVED"  # as people are shown it


def describe_evidence(outcome: Outcome) -> str:
    """Describe in a few words how a fault showed: an exception, an error over its bound, or a place."""
    if outcome.exception is not None:
        return f"{outcome.verdict}: {outcome.exception}"
    if outcome.measured is not None and outcome.bound and outcome.measured != float("inf"):
        return f"{outcome.verdict}: {outcome.measured / outcome.bound:.2g} × the bound"
    return f"{outcome.verdict}: {outcome.where or outcome.message}"


def show(kills: Sequence[MutantResult], family: str, adapter: str) -> None:
    """Print the table and its totals; outside a terminal each row is one line, so that it can be searched.

    Args:
        kills: the results of the self-test, one for each pair of fault and check.
        family: the family's reference.
        adapter: the adapter's reference.
    """
    loaded, selftest = families.load(family), _summarize(kills, family, adapter)
    plain = {**loaded.dims(), **{name: values[0] for name, values in loaded.flags().items()}}
    rows = [_row(kill, planted, plain) for kill, planted in zip(kills, selftest.kills, strict=True)]
    title = f"planted faults, {family} × {adapter}"
    console = standard_output()
    with pipe.until_closed(sys.stdout):
        if console.is_terminal:
            table = Table(title=title, title_justify="left")
            for name in _COLUMNS:
                table.add_column(name, overflow="fold")
            for row in rows:
                table.add_row(*row)
            console.print(table)
        else:
            console.print(title)
            widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
            for row in (_COLUMNS, *rows):
                cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                console.print("  ".join(cells), soft_wrap=True)
        faults = {kill.fault for kill in kills}
        totals = f"{len(faults)} faults, {len(kills)} pairs of fault and check: {selftest.counted}"
        console.print(totals, soft_wrap=True)


def _row(kill: MutantResult, planted: PlantedFault, plain: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Spell a row of the table; the case is told by what its config has that the plainest config has not."""
    if kill.survived:
        return kill.fault, kill.check, _LOUD, text.line(f"{kill.what}; tried on {kill.tried} cases"), ""
    case = "" if kill.case is None else text.config(differing_values(kill.case.config, plain)) or "the plainest"
    return kill.fault, kill.check, planted.verdict, text.line(planted.evidence), case


def markdown(kills: Sequence[MutantResult], family: str) -> str:
    """Render the table as a page of documentation, without what differs from one machine to the next.

    Args:
        kills: the results of the self-test, one for each pair of fault and check.
        family: the family's reference.
    """
    by_fault: dict[str, list[PlantedFault]] = {}
    for planted in _summarize(kills, family, "").kills:
        by_fault.setdefault(planted.fault, []).append(planted)
    survivors = sum(any(planted.verdict == _SURVIVED for planted in pairs) for pairs in by_fault.values())
    marks = {_CAUGHT: "", _SURVIVED: f" ({_LOUD})", _NOT_TRIED: f" ({_NOT_TRIED})"}
    values = {"family": family, "by_fault": by_fault, "survivors": survivors, "marks": marks}
    return templating.render("kill_table.md.j2", **values).rstrip("\n")


def as_json(kills: Sequence[MutantResult], family: str, adapter: str) -> str:
    """Write the table as JSON, which `verifier report --selftest` reads.

    Args:
        kills: the results of the self-test, one for each pair of fault and check.
        family: the family's reference.
        adapter: the adapter's reference.
    """
    return json.dumps(msgspec.to_builtins(_summarize(kills, family, adapter)), indent=1) + "\n"


def _summarize(kills: Sequence[MutantResult], family: str, adapter: str) -> SelfTest:
    """Reduce the results of a self-test to what its reports show."""

    def plant(kill: MutantResult) -> PlantedFault:
        verdict = _CAUGHT if kill.outcome is not None else _SURVIVED if kill.survived else _NOT_TRIED
        shown = describe_evidence(kill.outcome) if kill.outcome is not None else kill.unable or ""
        return PlantedFault(fault=kill.fault, what=kill.what, check=kill.check, verdict=verdict, evidence=shown)

    return SelfTest(family=family, adapter=adapter, kills=tuple(map(plant, kills)))
