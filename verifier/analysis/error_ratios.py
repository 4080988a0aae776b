"""How near to their bounds the errors of each check were: their ratios over the cases, in orders of magnitude."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from verifier.cases.circumstances import AXES
from verifier.cases.spec import SEMANTIC_DTYPE, WORKING_DTYPES
from verifier.judging.outcome import Outcome
from verifier.record import Record

# A histogram's bins are orders of magnitude of error over bound; the outermost ones hold all that is beyond.
LOWEST, HIGHEST = -6, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSpread:
    """The distribution of one check's errors over their bounds: 1 is the bound itself.

    Attributes:
        check: its id.
        dtype: what it judges in, a value of the axis.
        count: outcomes, or circumstances, with an error and a bound.
        median: of error over bound.
        largest: of error over bound; infinite where an error is no number, or the bound is zero.
        bins: how many are in each order of magnitude, from `LOWEST` to `HIGHEST`.
        over: how many are over the bound.
    """

    check: str
    dtype: str
    count: int
    median: float
    largest: float
    bins: tuple[int, ...]
    over: int


def ratio(outcome: Outcome) -> float | None:
    """Divide an outcome's error by its bound; None where the check measured nothing, or has no bound."""
    if outcome.measured is None or outcome.bound is None or not outcome.bound:
        return None
    found = outcome.measured / outcome.bound
    return math.inf if math.isnan(found) else found


def measure_error_spreads(record: Record) -> tuple[ErrorSpread, ...]:
    """Measure the spread of errors over bounds of every check that measures, in the order in which checks run.

    What is looked at in circumstances has one for each dtype, over the circumstances that measured an error.
    """
    in_rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in record.rows:
        for observable, worst in row.observables.items():
            if worst.ratio is not None:
                in_rows[observable][row.circumstance.get("dtype", SEMANTIC_DTYPE)].append(worst.ratio)
    spreads: list[ErrorSpread] = []
    for check, outcomes in record.outcomes_by_check.items():
        if check in in_rows:
            by_dtype = in_rows[check]
            spreads += (_spread(check, dtype, by_dtype[dtype]) for dtype in AXES["dtype"] if dtype in by_dtype)
        elif ratios := [found for outcome in outcomes if (found := ratio(outcome)) is not None]:
            spreads.append(_spread(check, dtype_of(check), ratios))
    return tuple(spreads)


def _spread(check: str, dtype: str, ratios: Sequence[float]) -> ErrorSpread:
    magnitudes = Counter(map(magnitude, ratios))
    return ErrorSpread(
        check=check,
        dtype=dtype,
        count=len(ratios),
        median=statistics.median(ratios),
        largest=max(ratios),
        bins=tuple(magnitudes[order] for order in range(LOWEST, HIGHEST + 1)),
        over=sum(one > 1 for one in ratios),
    )


def dtype_of(check: str) -> str:
    """The dtype in which a check judges, as the ids of earlier records say it."""
    return next((dtype for dtype in WORKING_DTYPES if dtype in check), SEMANTIC_DTYPE)


def magnitude(error_over_bound: float) -> int:
    """Round a ratio up to its order of magnitude; a ratio of 1, at the bound, is not yet over it."""
    if error_over_bound <= 0:
        return LOWEST
    if not math.isfinite(error_over_bound):
        return HIGHEST
    return min(max(math.ceil(math.log10(error_over_bound)), LOWEST), HIGHEST)
