"""Every flag combination once, and after them every other case: what each area said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
        case: its id.
        flags: its values, in the order of the run's flags; None where it is no combination of them.
        label: what it is called, where it is not of the matrix.
        differs: what its config has that the plainest has not, where it is not of the matrix.
        valid: whether HF accepts it.
        reason: why HF refuses it.
        cells: by area.
    """

    case: str
    flags: tuple[Any, ...] | None
    label: str | None
    differs: Mapping[str, Any]
    valid: bool
    reason: str | None
    cells: Mapping[str, Cell]

    def columns(self, areas: Sequence[str]) -> int:
        """How many of these areas have a cell of their own: of a refused case those up to the last with a verdict."""
        if self.valid:
            return len(areas)
        said = [place for place, area in enumerate(areas) if area in self.cells and self.cells[area].verdict]
        return max(said, default=-1) + 1

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
    placed: Mapping[tuple[int, ...], Combination]


def list_combinations(record: Record, summary: Summary, most: int = MOST) -> Combinations:
    """The record's cases, at most that many: combinations in the product's order, then the others."""
    flags = record.run.flags
    placed: dict[tuple[int, ...], Combination] = {}
    others: list[Combination] = []
    for spec in record.cases.values():
        place = place_of(spec.config, flags) if spec.label is None else None
        new = place is not None and place not in placed
        one = _combination(spec, record, summary, of_flags=new)
        if place is not None and new:
            placed[place] = one
        else:
            others.append(one)
    ordered = [one for _, one in sorted(placed.items())]
    others.sort(key=lambda one: (not one.valid, one.label or "", one.case))
    kept = _kept([*ordered, *others], most)
    groups: dict[str, tuple[Any, list[Combination]]] = {}
    for one in ordered:
        if one.case in kept:
            assert one.flags is not None
            first = one.flags[0] if one.flags else None
            groups.setdefault(repr(first), (first, []))[1].append(one)
    return Combinations(
        of_flags=tuple((value, tuple(some)) for value, some in groups.values()),
        others=tuple(one for one in others if one.case in kept),
        left_out=len(ordered) + len(others) - len(kept),
        placed=placed,
    )


def _combination(spec: CaseSpec, record: Record, summary: Summary, *, of_flags: bool) -> Combination:
    return Combination(
        case=spec.id,
        flags=tuple(spec.config[name] for name in record.run.flags) if of_flags else None,
        label=spec.label,
        differs={} if of_flags else config_difference(spec.config, record.run),
        valid=spec.valid,
        reason=spec.reason,
        cells=summary.cells[spec.id],
    )


def _kept(all_: Sequence[Combination], most: int) -> set[str]:
    if len(all_) <= most:
        return {one.case for one in all_}
    return {one.case for one in sorted(all_, key=lambda one: not one.differing)[:most]}
