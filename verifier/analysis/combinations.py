"""Every flag combination once, and after them every other case: what each area said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifier.analysis.condense import FlagIndices
from verifier.analysis.rows import Cell, place_of
from verifier.analysis.summary import Summary
from verifier.cases.spec import CaseSpec
from verifier.record import Record
from verifier.record.case_description import config_difference

# Of more cases a page shows those that differ first; the others are in its data, and in the record.
MOST = 1_500


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """One case.

    Attributes:
        spec: the case.
        flags: its values, in the order of the run's flags; None where it is no combination of them.
        differs: what its config has that the plainest has not, where it is not of the matrix.
        cells: by area.
    """

    spec: CaseSpec
    flags: tuple[Any, ...] | None
    differs: Mapping[str, Any]
    cells: Mapping[str, Cell]

    def columns(self, areas: Sequence[str]) -> int:
        """How many of these areas have a cell of their own: of a refused case those up to the last with a verdict."""
        if self.spec.valid:
            return len(areas)
        filled = [place for place, area in enumerate(areas) if area in self.cells and self.cells[area].verdict]
        return max(filled, default=-1) + 1

    @property
    def differing(self) -> bool:
        """Whether there is a bug in it."""
        return any(cell.verdict is not None and cell.verdict.is_finding for cell in self.cells.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Combinations:
    """Those of a record that are shown.

    Attributes:
        of_flags: by the value of the first flag: one row for each combination.
        others: cases with a name, or with other dims.
        left_out: how many are not shown.
        placed: by place in the product of the flags: every combination, shown or not.
    """

    of_flags: tuple[tuple[Any, tuple[Combination, ...]], ...]
    others: tuple[Combination, ...]
    left_out: int
    placed: Mapping[FlagIndices, Combination]


def list_combinations(record: Record, summary: Summary, most: int = MOST) -> Combinations:
    """List at most `most` of a record's cases: combinations in the order of the flags' product, then the others.

    Args:
        record: what was run.
        summary: the summary of the same record, for its cells.
        most: the largest number of cases listed; the rest are only counted.
    """
    flags = record.run.flags
    placed: dict[FlagIndices, Combination] = {}
    others: list[Combination] = []
    for spec in record.cases.values():
        place = place_of(spec.config, flags) if spec.label is None else None
        cells = summary.cells[spec.id]
        if place is not None and place not in placed:
            values = tuple(spec.config[name] for name in flags)
            placed[place] = Combination(spec=spec, flags=values, differs={}, cells=cells)
        else:
            differs = config_difference(spec.config, record.run)
            others.append(Combination(spec=spec, flags=None, differs=differs, cells=cells))
    others.sort(key=lambda one: (not one.spec.valid, one.spec.label or "", one.spec.id))
    every = [*(one for _, one in sorted(placed.items())), *others]
    shown = {one.spec.id for one in sorted(every, key=lambda one: not one.differing)[:most]}
    groups: dict[str, tuple[Any, list[Combination]]] = {}
    for one in every:
        if one.spec.id in shown and one.flags is not None:
            first = one.flags[0] if one.flags else None
            groups.setdefault(repr(first), (first, []))[1].append(one)
    return Combinations(
        of_flags=tuple((value, tuple(group)) for value, group in groups.values()),
        others=tuple(one for one in others if one.spec.id in shown),
        left_out=len(every) - len(shown),
        placed=placed,
    )
