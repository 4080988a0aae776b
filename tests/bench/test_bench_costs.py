"""Means weigh each case by what it stands for, and the parts sum to the whole."""

from __future__ import annotations

import dataclasses

import pytest

from verifier.bench import costs
from verifier.bench.clock import Kind
from verifier.bench.sample import Stratum
from verifier.cases.spec import CaseSpec


@pytest.fixture
def found(made_run, spec: CaseSpec) -> costs.Costs:
    strata = [Stratum(cases=(spec, spec), of=6), Stratum(cases=(spec,), of=2)]
    runs = [made_run(1.0), made_run(3.0), made_run(10.0), made_run(0.5)]
    without = [made_run(1.0, cpu=seconds) for seconds in (0.75, 2.75, 9.75, 0.25)]
    return costs.of_runs(strata, runs, without)


def test_a_case_counts_as_often_as_it_stands_for(found: costs.Costs) -> None:
    # Three cases like each of the first two, and two like the third.
    assert found.seconds == pytest.approx((3 * 1 + 3 * 3 + 2 * 10) / 8)
    assert (found.cases, found.of, found.refused) == (3, 8, 0.5)
    assert found.instrument == pytest.approx(0.25)


def test_the_parts_sum_to_the_whole(found: costs.Costs) -> None:
    assert found.models + found.other + found.harness == pytest.approx(found.seconds)
    assert found.share == pytest.approx(3 / 4)
    assert found.bare == pytest.approx(found.models / 2)  # of a third and two thirds, half of it all is watched
    assert sum(inside.seconds for inside in found.inside.values()) == pytest.approx(found.models)
    assert sum(check.seconds for check in found.checks) == pytest.approx(found.seconds)
    assert sum(check.models for check in found.checks) == pytest.approx(found.models)
    assert sum(check.rest for check in found.checks) == pytest.approx(found.harness)


def test_calls_are_means_and_watched_ones_a_part_of_them(found: costs.Costs) -> None:
    inside = found.inside[Kind.FORWARD]
    assert (inside.calls, inside.watched_calls) == (4, 3)
    assert inside.watched_seconds == pytest.approx(3 / 4 * inside.seconds)
    assert found.inside[Kind.BACKWARD] == costs.Inside(calls=0, seconds=0, watched_calls=0, watched_seconds=0)


def test_the_dearest_check_comes_first(found: costs.Costs) -> None:
    assert [check.check for check in found.checks] == ["b.two", "a.one"]
    assert [check.cases for check in found.checks] == [1, 1]


def test_another_verdict_without_the_instrument_is_told(made_run, spec: CaseSpec) -> None:
    strata, runs = [Stratum(cases=(spec,), of=1)], [made_run(1.0)]
    assert costs.of_runs(strata, runs, [made_run(1.0)]).as_without
    assert not costs.of_runs(strata, runs, [made_run(1.0, verdict="fail")]).as_without


def test_a_check_that_runs_in_some_cases_only(made_run, spec: CaseSpec) -> None:
    strata = [Stratum(cases=(spec,), of=3), Stratum(cases=(spec,), of=1)]
    both = made_run(4.0)
    one = dataclasses.replace(both, checks=both.checks[:1])
    found = {check.check: check for check in costs.of_runs(strata, [one, both], [one, both]).checks}
    assert (found["a.one"].cases, found["b.two"].cases) == (1, 1 / 4)
    assert found["b.two"].seconds == pytest.approx(3.0 / 4)
