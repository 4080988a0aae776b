"""Compare several records: what each says of every area and of every combination, and which failures they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifier.analysis.combinations import Combination
from verifier.analysis.condense import FlagIndices
from verifier.analysis.rows import NOTHING, Cell, Cells, condense_flags, merge_cells
from verifier.analysis.summary import Summary
from verifier.analysis.view import RecordView
from verifier.judging.outcome import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFailure:
    """A failure, and the number of its cases in each record; None where a record has none."""

    fingerprint: str
    check: str
    place: str | None
    cases: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRow:
    """Combinations that fared alike in every record: values by flag (None: any), a cell a record (None: refused)."""

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
        areas={area: tuple(_merge_area(one, area) for one in summaries) for area in areas},
        rows=_make_rows(views),
        shared=_list_shared(summaries),
    )


def _merge_area(summary: Summary, area: str) -> Cell:
    """Find the worst of an area over all cases of a record."""
    return merge_cells(cells[area] for cells in summary.cells.values() if area in cells)


def _list_shared(summaries: Sequence[Summary]) -> tuple[SharedFailure, ...]:
    """List the failures of all records, those that most records have first."""
    bugs_of = [{bug.fingerprint: bug for bug in summary.bugs} for summary in summaries]
    shared = []
    for fingerprint in dict.fromkeys(name for bugs in bugs_of for name in bugs):
        found = [bugs.get(fingerprint) for bugs in bugs_of]
        outcome = next(bug for bug in found if bug is not None).entry.outcome
        shared.append(
            SharedFailure(
                fingerprint=fingerprint,
                check=outcome.check,
                place=outcome.where or outcome.site,
                cases=tuple(None if bug is None else len(bug.cases) for bug in found),
            )
        )
    return tuple(sorted(shared, key=lambda one: one.cases.count(None)))


def _make_rows(views: Sequence[RecordView]) -> tuple[ComparedRow, ...]:
    """Make a row for combinations that fared alike in every record; none where the records have other flags."""
    runs = [one.summary.run for one in views]
    flags = runs[0].flags
    if any(run.family != runs[0].family or list(run.flags.items()) != list(flags.items()) for run in runs):
        return ()
    placed = [view.combinations.placed for view in views]
    places = sorted(set().union(*placed))

    def find_cells(place: FlagIndices, cells: Sequence[Cells]) -> tuple[Cell | None, ...]:
        return tuple(_find_worst(by_place.get(place), of) for by_place, of in zip(placed, cells, strict=True))

    # That a case was looked at more closely than another tells no two combinations apart.
    deciding, shown = [view.summary.deciding for view in views], [view.summary.cells for view in views]
    results = {place: find_cells(place, deciding) for place in places}
    run = [{place[number] for place in places} for number, _ in enumerate(flags)]
    rows = []
    for values, members in condense_flags(results, flags, run):
        columns = zip(*(find_cells(place, shown) for place in members), strict=True)
        rows.append(ComparedRow(flags=values, cases=len(members), cells=tuple(map(_merge_known, columns))))
    return tuple(rows)


def _find_worst(combination: Combination | None, cells: Cells) -> Cell | None:
    """Find the worst of a combination; None of one that Hugging Face refuses and the adapter too, as it should."""
    if combination is None:
        return NOTHING
    worst = merge_cells(cells[combination.spec.id].values())
    return worst if combination.spec.valid or (worst.verdict or Verdict.PASS).is_finding else None


def _merge_known(cells: Iterable[Cell | None]) -> Cell | None:
    """Merge the cells that are there; None where there is none."""
    known = [cell for cell in cells if cell is not None]
    return merge_cells(known) if known else None
