"""Where the time went."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_records import CHECKS, outcome, specs

from verifier.analysis.timing import CheckCost, measure_timing

SECONDS = dict(zip(CHECKS, (1.0, 2.0, 0.0, 4.0, 2.0), strict=True))
CASES = [spec.id for spec in specs()]


def _slow(spec, check):
    return outcome(check, seconds=SECONDS[check] * (3 if spec.config["alibi"] else 1))


@pytest.fixture
def found(make):
    made = make(specs(), _slow)
    return replace(made, done={case: float(place) for place, case in enumerate(CASES)})


def test_checks_are_told_by_what_they_took_the_dearest_first(found):
    made = measure_timing(found)
    assert [one.check for one in made.checks] == [
        "qkv.rows",
        "build.adapter",
        "forward.logits",
        "reference.acceptance",
    ]
    assert made.checks[0] == CheckCost(check="qkv.rows", runs=12, total=96.0, median=8.0, largest=12.0)


def test_a_single_slow_run_makes_no_check_the_dearest(make):
    def fails(spec, check):
        once = check == "forward.logits" and spec.id == CASES[0]
        return outcome(check, seconds=13.0 if once else 4.0 * (check == "qkv.rows"))

    first, other, *_ = measure_timing(make(specs(), fails)).checks
    assert [(one.check, one.total, one.largest) for one in (first, other)] == [
        ("qkv.rows", 48.0, 4.0),
        ("forward.logits", 13.0, 13.0),
    ]


def test_the_cases_are_summed_with_the_processes_that_shared_them(found):
    made = measure_timing(found)
    assert (made.cases, made.workers) == (66.0, 2)


def test_the_slowest_cases_come_first_each_with_its_dearest_check(found):
    slowest = measure_timing(found, most=3).slowest
    assert [one.case for one in slowest] == CASES[:-4:-1]
    assert [one.seconds for one in slowest] == [11.0, 10.0, 9.0]
    assert {(one.check, one.of_check) for one in slowest} == {("qkv.rows", 12.0)}
    assert slowest[0].name == "bias=true alibi=true kv_heads=4"


def test_cases_that_took_as_long_are_in_the_order_of_their_ids(found):
    equal = replace(found, done=dict.fromkeys(reversed(CASES), 1.0))
    assert [one.case for one in measure_timing(equal, most=4).slowest] == sorted(CASES)[:4]


def test_a_named_case_is_called_by_its_name_and_the_plainest_is_called_so(make):
    corner = replace(specs()[-1], label="corner", length=9)
    found = make([specs()[0], corner])
    made = measure_timing(replace(found, done={CASES[0]: 1.0, corner.id: 2.0}))
    assert [one.name for one in made.slowest] == ["corner", "the plainest config"]


def test_a_case_without_outcomes_has_no_dearest_check(found):
    (slow,) = measure_timing(replace(found, entries=()), most=1).slowest
    assert (slow.check, slow.of_check) == (None, 0.0)


@pytest.mark.parametrize("most", [0, -1])
def test_none_are_named_where_none_are_asked_for(found, most):
    assert measure_timing(found, most=most).slowest == ()


def test_a_record_in_which_nothing_ran_took_no_time(make):
    made = measure_timing(make([]))
    assert (made.cases, made.checks, made.slowest) == (0, (), ())
