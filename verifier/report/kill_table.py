"""The kill table: which check caught which planted fault, on which case, by how much."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table

from verifier import family as families
from verifier.analysis.selftest import VERDICTS, PlantedFault, SelfTest
from verifier.output import pipe, text
from verifier.output.console import standard_output
from verifier.record.case_description import same_value

if TYPE_CHECKING:
    from verifier.faults.selftest import MutantResult
    from verifier.judging.outcome import Outcome

_MARKS = {"survived": " (SURVIVED)", "not tried": " (not tried)"}
_COLUMNS = ("fault", "must be caught by", "", "how", "case")


def evidence(outcome: Outcome) -> str:
    """How a fault showed, in few words."""
    if outcome.exception is not None:
        return f"{outcome.verdict}: {outcome.exception}"
    if outcome.measured is not None and outcome.bound and outcome.measured != float("inf"):
        return f"{outcome.verdict}: {outcome.measured / outcome.bound:.2g} × the bound"
    return f"{outcome.verdict}: {outcome.where or outcome.message}"


def show(kills: Sequence[MutantResult], family: str, adapter: str) -> None:
    """Print the table and its sum; a row is one line where it is no terminal, to be searched."""
    found = families.load(family)
    plain = {**found.dims(), **{name: values[0] for name, values in found.flags().items()}}
    with pipe.until_closed(sys.stdout):
        _show(standard_output(), kills, f"planted faults, {family} × {adapter}", plain)


def markdown(kills: Sequence[MutantResult], family: str) -> str:
    """Render the table as a page of documentation, without what differs from one machine to the next."""
    by_fault: dict[str, list[MutantResult]] = {}
    for kill in kills:
        by_fault.setdefault(kill.fault, []).append(kill)
    survivors = len({kill.fault for kill in kills if kill.survived})
    rows = [
        "# The kill table",
        "",
        f"Each planted fault of `{family}`, and the checks that must catch it: {text.plural(len(by_fault), 'fault')}, "
        f"{survivors or 'none'} of which {'survive' if survivors > 1 else 'survives'}.",
        f"`verifier selftest {family} --markdown > docs/kill-table.md` writes this page.",
        "",
        "| planted fault | what is wrong | caught by |",
        "|---|---|---|",
    ]
    for fault, mine in by_fault.items():
        seen = ", ".join(f"`{kill.check}`" + _MARKS.get(_verdict(kill), "") for kill in mine)
        rows.append(f"| {fault} | {mine[0].what.replace('|', chr(92) + '|')} | {seen} |")
    return "\n".join(rows)


def as_json(kills: Sequence[MutantResult], family: str, adapter: str) -> str:
    """The table for `verifier report --selftest`."""
    return json.dumps(msgspec.to_builtins(_selftest(kills, family, adapter)), indent=1) + "\n"


def _selftest(kills: Sequence[MutantResult], family: str, adapter: str) -> SelfTest:
    return SelfTest(
        family=family,
        adapter=adapter,
        kills=tuple(
            PlantedFault(
                fault=kill.fault,
                what=kill.what,
                check=kill.check,
                verdict=_verdict(kill),
                evidence=evidence(kill.outcome) if kill.outcome is not None else kill.unable or "",
            )
            for kill in kills
        ),
    )


def _verdict(kill: MutantResult) -> str:
    caught, survived, not_tried = VERDICTS
    return caught if kill.outcome is not None else survived if kill.survived else not_tried


def _show(console: Console, kills: Sequence[MutantResult], title: str, plain: Mapping[str, Any]) -> None:
    rows = [_row(kill, plain) for kill in kills]
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
    counted = _selftest(kills, "", "").counted
    console.print(f"{len(faults)} faults, {len(kills)} pairs of fault and check: {counted}", soft_wrap=True)


def _row(kill: MutantResult, plain: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    if kill.outcome is not None and kill.case is not None:
        differs = {
            name: value
            for name, value in kill.case.config.items()
            if name not in plain or not same_value(plain[name], value)
        }
        ended = ("caught", evidence(kill.outcome), text.config(differs) or "the plainest")
    elif kill.unable is not None:
        ended = ("not tried", kill.unable, "")
    else:
        ended = ("SURVIVED", f"{kill.what}; tried on {kill.tried} cases", "")
    return kill.fault, kill.check, ended[0], text.line(ended[1]), ended[2]
