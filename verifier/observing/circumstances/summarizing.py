"""Summarize what came of a circumstance into plain values: of each observable its worst finding alone."""

from __future__ import annotations

import math

from verifier.cases.circumstances import differences
from verifier.judging.outcome import Finding, Verdict
from verifier.judging.row_summary import RowSummary, WorstFinding
from verifier.observing.circumstances.row import RowResult, rests_on_failure

_WORST_LAST = (Verdict.PASS, Verdict.REDUCED, Verdict.FAIL)


def summarize_row(case: str, result: RowResult) -> RowSummary:
    """Summarize what came of a circumstance.

    Args:
        case: the case's id.
        result: of the circumstance.
    """
    worst = {name: _worst(result, name) for name in dict.fromkeys([*result.findings, *result.errors])}
    passed = tuple(name for name, one in worst.items() if one == WorstFinding())
    return RowSummary(
        case=case,
        circumstance=differences(result.circumstance),
        seconds=round(result.seconds, 3),
        refused=result.refused,
        not_offered=result.not_offered,
        passed=passed,
        observables={name: one for name, one in worst.items() if name not in passed},
    )


def _worst(result: RowResult, observable: str) -> WorstFinding:
    if observable in result.errors:
        return WorstFinding(verdict=Verdict.ERROR)
    if rests_on_failure(result, observable):
        return WorstFinding(verdict=Verdict.SKIP)
    # Of findings that are equally bad the first: its place is what the others follow from.
    worst = max(result.findings[observable], key=lambda one: (_WORST_LAST.index(one.verdict), _ratio(one) or 0.0))
    ratio = _ratio(worst)
    if worst.verdict is Verdict.PASS and not ratio:
        return WorstFinding()
    # Three digits are what reports show, and more would be most of a record.
    return WorstFinding(
        verdict=worst.verdict, ratio=None if ratio is None else float(f"{ratio:.3g}"), where=worst.where
    )


def _ratio(finding: Finding) -> float | None:
    """Divide the error by its bound; None for a condition, which has none."""
    if not finding.bound:
        return None
    return math.inf if math.isnan(finding.ratio) else float(finding.ratio)
