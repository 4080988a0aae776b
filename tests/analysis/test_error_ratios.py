"""How near to the bound each check's errors were."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from made_records import outcome, row, specs
from msgspec import structs

from verifier.analysis.error_ratios import HIGHEST, LOWEST, dtype_of, magnitude, measure_error_spreads, ratio
from verifier.judging.outcome import Verdict
from verifier.judging.row_summary import WorstFinding

INF, NAN = math.inf, math.nan
BINS = HIGHEST - LOWEST + 1


def _measured(make, *errors, bound=1.0):
    """The spread of a check that measured these errors, a case each."""
    found = make(specs()[:1])
    entries = [
        replace(found.entries[0], case=spec.id, outcome=outcome("qkv.rows", measured=error, bound=bound))
        for spec, error in zip(specs(), errors, strict=False)
    ]
    (spread,) = measure_error_spreads(replace(found, entries=tuple(entries)))
    return spread


@pytest.mark.parametrize(
    ("measured", "bound", "expected"),
    [
        (0.5, 0.25, 2.0),
        (0.0, 0.25, 0.0),
        (0.25, 0.25, 1.0),
        (INF, 0.25, INF),
        (NAN, 0.25, INF),
        (0.25, NAN, INF),
        (INF, INF, INF),
        (1e300, 1e-300, INF),
        (None, 0.25, None),
        (0.25, None, None),
        (1.0, 0.0, None),
    ],
)
def test_an_error_is_told_in_bounds_where_there_is_one(measured, bound, expected):
    assert ratio(outcome("a.b", measured=measured, bound=bound)) == expected


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (0.0, LOWEST),
        (1e-300, LOWEST),
        (1e-6, LOWEST),
        (0.099, -1),
        (0.1, -1),
        (0.11, 0),
        (math.nextafter(1.0, 0.0), 0),
        (1.0, 0),
        (math.nextafter(1.0, 2.0), 1),
        (10.0, 1),
        (10.1, 2),
        (1e300, HIGHEST),
        (INF, HIGHEST),
    ],
)
def test_an_order_of_magnitude_ends_with_its_largest_number(one, expected):
    assert magnitude(one) == expected


def test_what_is_at_the_bound_is_not_over_it(make):
    spread = _measured(make, 1.0, math.nextafter(1.0, 2.0))
    assert (spread.over, spread.bins[-LOWEST], spread.bins[1 - LOWEST]) == (1, 1, 1)


def test_what_is_over_the_bound_stands_right_of_it(make):
    errors = [0.0, 1e-9, 0.3, 1.0, 1.0000001, 7.0, 1e9, INF, NAN]
    spread = _measured(make, *errors)
    assert len(spread.bins) == BINS
    assert sum(spread.bins) == spread.count == len(errors)
    assert sum(spread.bins[1 - LOWEST :]) == spread.over == 5
    assert max(spread.bins) == 3


def test_median_and_largest_are_of_the_errors_in_bounds(make):
    spread = _measured(make, 1.0, 2.0, 6.0, bound=2.0)
    assert (spread.median, spread.largest) == (1.0, 3.0)


def test_an_error_that_is_no_number_is_the_largest(make):
    assert _measured(make, 1.0, NAN, 2.0).largest == INF


def test_checks_that_measure_are_in_the_order_in_which_they_run(make):
    def measures(spec, check):
        return outcome(check, measured=1e-15, bound=1e-14) if check in ("forward.logits", "build.adapter") else None

    assert [(one.check, one.count) for one in measure_error_spreads(make(specs(), measures))] == [
        ("build.adapter", 12),
        ("forward.logits", 12),
    ]


def test_failures_and_what_passes_are_counted_alike(make):
    verdicts = dict(zip((spec.id for spec in specs()), (Verdict.PASS, Verdict.REDUCED, Verdict.FAIL), strict=False))

    def measures(spec, check):
        return outcome(check, verdicts.get(spec.id, Verdict.SKIP), where="x", measured=2.0, bound=1.0)

    assert {one.count for one in measure_error_spreads(make(specs(), measures))} == {12}


def test_what_is_looked_at_in_circumstances_has_a_spread_for_each_dtype(make):
    def measures(spec, check):
        return outcome(check, measured=1e-15, bound=1e-14) if check in ("build.adapter", "forward.logits") else None

    def in_circumstance(case, dtype, ratio):
        return structs.replace(row(case, dtype=dtype), observables={"forward.logits": WorstFinding(ratio=ratio)})

    cases = [spec.id for spec in specs()]
    rows = [in_circumstance(case, dtype, 0.5) for case in cases[:2] for dtype in ("bfloat16", "float32")]
    rows.append(in_circumstance(cases[2], "bfloat16", 2.0))
    spreads = measure_error_spreads(replace(make(specs(), measures), rows=tuple(rows)))
    assert [(one.check, one.dtype, one.count, one.largest, one.over) for one in spreads] == [
        ("build.adapter", "float64", 12, pytest.approx(0.1), 0),
        ("forward.logits", "float32", 2, 0.5, 0),
        ("forward.logits", "bfloat16", 3, 2.0, 1),
    ]


def test_a_record_in_which_nothing_was_measured_has_none(make):
    assert measure_error_spreads(make(specs())) == ()


@pytest.mark.parametrize(
    ("check", "dtype"),
    [("hooks.activations", "float64"), ("forward.bfloat16", "bfloat16"), ("backward.float16_gradients", "float16")],
)
def test_a_check_says_what_it_judges_in(check, dtype):
    assert dtype_of(check) == dtype
