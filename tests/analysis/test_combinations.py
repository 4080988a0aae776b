"""Every combination, and what each area said of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from made_records import DIMS, FLAGS, outcome, rows_fail, specs

from verifier.analysis.combinations import Combination, list_combinations
from verifier.analysis.rows import Cell
from verifier.analysis.summary import summarize
from verifier.cases.spec import CaseSpec
from verifier.judging.outcome import Verdict


def _made(record, **more):
    return list_combinations(record, summarize(record), **more)


def _shown(made):
    return [one for _, some in made.of_flags for one in some]


def test_every_combination_is_there_once_in_the_order_of_the_flags(make):
    made = _made(make(specs()[::-1]))
    assert [one.flags for one in _shown(made)] == list(itertools.product(*FLAGS.values()))
    assert (made.others, made.left_out) == ((), 0)


def test_they_are_grouped_by_the_first_flag(make):
    assert [(value, len(some)) for value, some in _made(make(specs())).of_flags] == [(False, 6), (True, 6)]


def test_each_says_what_the_areas_said(make):
    record = make(specs(), rows_fail)
    summary = summarize(record)
    made = _shown(list_combinations(record, summary))
    assert all(one.cells == summary.cells[one.spec.id] for one in made)
    assert {one.flags[0] for one in made if one.differing} == {True}
    assert {one.cells["qkv"].numbers for one in made if one.differing} == {("1",)}


def test_a_refused_one_has_its_reason(make):
    made = _shown(_made(make(specs(lambda config: config["kv_heads"] == 4))))
    assert [one.flags[2] for one in made if not one.spec.valid] == [4] * 4
    assert {one.spec.reason for one in made} == {None, "HF says no"}
    assert all((one.spec.reason is None) == one.spec.valid for one in made)


def test_named_cases_and_other_dims_come_after_them_with_what_is_other(make):
    corner = replace(specs()[-1], label="corner", config={**specs()[-1].config, "hidden_size": 8})
    refused = replace(corner, label="a refused one", length=9, valid=False, reason="HF says no")
    wider = CaseSpec(family="toy", config={**specs()[0].config, "hidden_size": 64})
    made = _made(make([refused, corner, *specs(), wider]))
    assert len(_shown(made)) == 12
    assert [one.spec.label for one in made.others] == [None, "corner", "a refused one"]
    assert [one.differs for one in made.others[:2]] == [
        {"hidden_size": 64},
        {"hidden_size": 8, "bias": True, "alibi": True, "kv_heads": 4},
    ]
    assert {one.flags for one in made.others} == {None}


def test_a_config_without_a_flag_or_with_a_strange_value_is_no_combination(make):
    cases = [CaseSpec(family="toy", config=DIMS), CaseSpec(family="toy", config={**specs()[0].config, "kv_heads": 2})]
    made = _made(make(cases))
    assert (made.of_flags, len(made.others)) == ((), 2)


@pytest.mark.parametrize("most", [0, 1, 5, 8])
def test_of_more_than_are_shown_those_that_differ_come_first(make, most):
    corners = [replace(spec, label="corner", length=9) for spec in specs()[-2:]]
    made = _made(make([*specs(), *corners], rows_fail), most=most)
    kept = [*_shown(made), *made.others]
    assert len(kept) == most
    assert made.left_out == 14 - most
    assert all(one.differing for one in kept)


def test_when_all_that_differ_are_shown_others_are_too(make):
    made = _made(make(specs(), rows_fail), most=9)
    assert sum(one.differing for one in _shown(made)) == 6
    assert [one.flags for one in _shown(made)] == sorted(
        (one.flags for one in _shown(made)), key=list(itertools.product(*FLAGS.values())).index
    )


def test_upstream_findings_are_differences_too(make):
    def fails(spec, check):
        wrong = check == "reference.acceptance" and spec.config["alibi"]
        return outcome(check, Verdict.UPSTREAM, where="eager") if wrong else None

    assert {one.flags[1] for one in _shown(_made(make(specs(), fails), most=6))} == {True}


AREAS = ("reference", "build", "qkv", "forward")


def _one(valid, *areas):
    cells = {area: Cell(verdict=Verdict.PASS, numbers=()) for area in areas}
    spec = CaseSpec(family="toy", config={}, valid=valid, reason=None if valid else "HF says no")
    return Combination(spec=spec, flags=(), differs={}, cells=cells)


@pytest.mark.parametrize(
    ("areas", "columns"),
    [((), 0), (("reference",), 1), (("reference", "build"), 2), (("build",), 2), (("qkv",), 3)],
)
def test_a_refused_case_has_cells_up_to_the_last_area_that_said_something(areas, columns):
    assert _one(False, *areas).columns(AREAS) == columns


def test_a_valid_case_has_a_cell_for_every_area():
    assert _one(True, "build").columns(AREAS) == 4


def test_an_area_without_a_verdict_said_nothing():
    silent = Cell(verdict=None, numbers=())
    one = replace(_one(False, "reference"), cells={"reference": _one(True, "a").cells["a"], "forward": silent})
    assert one.columns(AREAS) == 1
