"""Several records side by side: what each said of every area, of every combination, and which failures they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifier.analysis.combinations import Combination as Shown
from verifier.analysis.rows import NOTHING, Cell, Cells, condense_flags, merge_cells
from verifier.analysis.summary import Summary
from verifier.analysis.view import RecordView
from verifier.judging.outcome import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFailure:
    """A failure, and in how many cases of each record it is; None where a record has none."""

    fingerprint: str
    check: str
    place: str | None
    cases: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRow:
    """Combinations that fared alike in every record: the flags' values (None: any), a cell a record (None: refused)."""

    flags: Mapping[str, tuple[Any, ...] | None]
    cases: int
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """Records beside each other, in their order.

    Attributes:
        areas: by area, a cell a record.
        rows: combinations of the flags; empty where the records are not of one family with the same flags.
        shared: every failure of any of them, those that all have first.
    """

    areas: Mapping[str, tuple[Cell, ...]]
    rows: tuple[ComparedRow, ...]
    shared: tuple[SharedFailure, ...]


def name_views(views: Sequence[RecordView]) -> tuple[str, ...]:
    """Name each record so that no two have one name: by adapter and version, then also by folder, then by number."""
    runs = [one.summary.run for one in views]
    names = [f"{run.family} × {run.adapter_name} {run.adapter_version}" for run in runs]
    folders = [one.summary.path.parent.name for one in views]
    numbers = [f"record {number}" for number, _ in enumerate(views, start=1)]
    for marks in (folders, numbers):
        names = [f"{name} ({mark})" if names.count(name) > 1 else name for name, mark in zip(names, marks, strict=True)]
    return tuple(names)


def compare_views(views: Sequence[RecordView]) -> SideBySide | None:
    """Compare several records; None where there is a single one."""
    if len(views) < 2:
        return None
    summaries = [one.summary for one in views]
    areas = list(dict.fromkeys(area for one in summaries for area in one.areas))
    return SideBySide(
        areas={area: tuple(_area(one, area) for one in summaries) for area in areas},
        rows=_rows(views),
        shared=_shared(summaries),
    )


def _area(summary: Summary, area: str) -> Cell:
    return merge_cells(cells[area] for cells in summary.cells.values() if area in cells)


def _shared(summaries: Sequence[Summary]) -> tuple[SharedFailure, ...]:
    by_print = [{bug.fingerprint: bug for bug in one.bugs} for one in summaries]
    made = []
    for fingerprint in dict.fromkeys(name for known in by_print for name in known):
        mine = [known.get(fingerprint) for known in by_print]
        first = next(one for one in mine if one is not None)
        made.append(
            SharedFailure(
                fingerprint=fingerprint,
                check=first.entry.outcome.check,
                place=first.entry.outcome.where or first.entry.outcome.site,
                cases=tuple(None if one is None else len(one.cases) for one in mine),
            )
        )
    return tuple(sorted(made, key=lambda one: one.cases.count(None)))


def _rows(views: Sequence[RecordView]) -> tuple[ComparedRow, ...]:
    runs = [one.summary.run for one in views]
    flags = runs[0].flags
    if any(run.family != runs[0].family or list(run.flags.items()) != list(flags.items()) for run in runs):
        return ()
    placed = [one.combinations.placed for one in views]
    places = sorted({place for mine in placed for place in mine})
    # That a case was looked at more closely than another tells no two combinations apart.
    results = {
        place: tuple(_at(mine.get(place), one.summary.deciding) for one, mine in zip(views, placed, strict=True))
        for place in places
    }
    some = [{place[number] for place in places} for number, _ in enumerate(flags)]
    rows = []
    for values, members in condense_flags(results, flags, some):
        cells = tuple(
            _of_all(_at(mine.get(place), one.summary.cells) for place in members)
            for one, mine in zip(views, placed, strict=True)
        )
        rows.append(ComparedRow(flags=values, cases=len(members), cells=cells))
    return tuple(rows)


def _at(combination: Shown | None, cells: Cells) -> Cell | None:
    """The worst of a combination; None of one that HF refuses and the adapter too, as it should."""
    if combination is None:
        return NOTHING
    worst = merge_cells(cells[combination.spec.id].values())
    return worst if combination.spec.valid or (worst.verdict or Verdict.PASS).is_finding else None


def _of_all(cells: Iterable[Cell | None]) -> Cell | None:
    kept = [cell for cell in cells if cell is not None]
    return merge_cells(kept) if kept else None
