"""The kill table: which check caught which planted fault, on which case, by how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verifier.outcome import Outcome
    from verifier.selftest import Kill


def evidence(outcome: Outcome) -> str:
    """How a fault showed, in few words."""
    if outcome.exception is not None:
        return f"{outcome.verdict}: {outcome.exception}"
    if outcome.measured is not None and outcome.bound and outcome.measured != float("inf"):
        return f"{outcome.verdict}: {outcome.measured / outcome.bound:.2g} × the bound"
    return f"{outcome.verdict}: {outcome.where or outcome.message}"


def show(kills: Sequence[Kill], family: str, adapter: str) -> None:
    """Print the table and its sum."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"planted faults, {family} × {adapter}", title_justify="left")
    for name in ("fault", "must be caught by", "", "how", "case"):
        table.add_column(name, overflow="fold")
    for kill in kills:
        if kill.outcome is not None and kill.case is not None:
            row = ("caught", evidence(kill.outcome), kill.case.id)
        elif kill.unable is not None:
            row = ("not tried", kill.unable, "")
        else:
            row = ("SURVIVED", f"{kill.what}; tried on {kill.tried} cases", "")
        table.add_row(kill.fault, kill.check, *row)
    console.print(table)
    caught = sum(kill.outcome is not None for kill in kills)
    survived = sum(kill.survived for kill in kills)
    faults = {kill.fault for kill in kills}
    console.print(
        f"{len(faults)} faults, {len(kills)} pairs of fault and check: {caught} caught, {survived} survived, "
        f"{len(kills) - caught - survived} not tried"
    )
