"""What of the circumstances was looked at: each value of each axis, and how near to its bound the worst error was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verifier.analysis.tallies import Tally, count_texts
from verifier.cases.circumstances import AXES, PLAIN
from verifier.judging.row_summary import RowSummary, WorstFinding
from verifier.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisValueCoverage:
    """What was seen where an axis has one value.

    Attributes:
        axis: the axis.
        value: its value.
        rows: in how many circumstances of cases the adapter was looked at so.
        observable: the one with the largest error over its bound; None where no error had to be measured.
        worst: what was found on it.
    """

    axis: str
    value: str
    rows: int
    observable: str | None
    worst: WorstFinding | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CircumstanceCoverage:
    """What of the circumstances a record's cases were looked at in; a case in a circumstance is a row.

    Attributes:
        rows: how many rows there are.
        looked: in how many of them the adapter was looked at.
        refused: how many Hugging Face's own model refuses.
        not_offered: how many need what the adapter does not offer.
        seconds: how long all of them took.
        values: every value of every axis.
        reasons: why rows, or parts of them, were not looked at, the most frequent first.
    """

    rows: int
    looked: int
    refused: int
    not_offered: int
    seconds: float
    values: tuple[AxisValueCoverage, ...]
    reasons: tuple[Tally, ...]


def measure_circumstance_coverage(record: Record) -> CircumstanceCoverage | None:
    """Measure in which values of the axes a record's cases were looked at; None for a record without circumstances."""
    if not record.rows:
        return None
    looked = [row for row in record.rows if row.looked]
    by_value: dict[tuple[str, str], list[RowSummary]] = {
        (axis, value): [] for axis, values in AXES.items() for value in values
    }
    for row in looked:
        circumstance: Mapping[str, str] = {**PLAIN, **row.circumstance}
        for place in circumstance.items():
            by_value.setdefault(place, []).append(row)
    not_offered = sum(row.not_offered is not None for row in record.rows)
    reasons = [reason for row in record.rows for reason in (row.refused, row.not_offered) if reason is not None]
    return CircumstanceCoverage(
        rows=len(record.rows),
        looked=len(looked),
        refused=len(record.rows) - len(looked) - not_offered,
        not_offered=not_offered,
        seconds=sum(row.seconds for row in record.rows),
        values=tuple(_measure_value(axis, value, rows) for (axis, value), rows in by_value.items()),
        reasons=count_texts((reason, None) for reason in reasons),
    )


def _measure_value(axis: str, value: str, rows: Sequence[RowSummary]) -> AxisValueCoverage:
    measured = [(name, one) for row in rows for name, one in row.observables.items() if one.ratio is not None]
    observable, worst = max(measured, key=lambda named: named[1].ratio or 0.0, default=(None, None))
    return AxisValueCoverage(axis=axis, value=value, rows=len(rows), observable=observable, worst=worst)
