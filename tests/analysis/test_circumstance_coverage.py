"""In which circumstances a record's cases were looked at, and how near to their bounds the errors came there."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from made_records import row, specs
from msgspec import structs
from read_markdown import tables

from verifier.analysis.circumstance_coverage import AxisValueCoverage, measure_circumstance_coverage
from verifier.analysis.view import view_record
from verifier.cases.circumstances import AXES
from verifier.judging.outcome import Verdict
from verifier.judging.row_summary import RowSummary, WorstFinding
from verifier.report import html, markdown

CASE = specs()[0].id
SEEN = row(CASE)
REFUSED = RowSummary(case=CASE, circumstance={"attention": "other"}, seconds=0.25, refused="there is no other")
LACKING = RowSummary(
    case=CASE,
    circumstance={"past": "token"},
    seconds=0.25,
    not_offered="it has no cache",
    passed=("state.settings",),
)


@pytest.fixture
def looked(make):
    return replace(make(specs()), rows=(SEEN, row(CASE, dtype="float16", ratio=0.5), REFUSED, LACKING))


def _value(record, axis, value):
    return next(one for one in measure_circumstance_coverage(record).values if (one.axis, one.value) == (axis, value))


def test_each_row_is_looked_at_refused_or_not_offered(looked):
    found = measure_circumstance_coverage(looked)
    assert (found.rows, found.looked, found.refused, found.not_offered, found.seconds) == (4, 2, 1, 1, 1.5)
    assert [(one.text, one.count) for one in found.reasons] == [
        ("double: it raises", 2),
        ("it has no cache", 1),
        ("there is no other", 1),
    ]


def test_every_value_has_its_rows_and_its_worst_error(looked):
    found = measure_circumstance_coverage(looked)
    assert [(one.axis, one.value) for one in found.values] == [(axis, one) for axis in AXES for one in AXES[axis]]
    worst = {ratio: WorstFinding(ratio=ratio, where="blocks.0.attn.hook_q") for ratio in (0.25, 0.5)}
    for axis, value, rows, ratio in (
        ("dtype", "bfloat16", 1, 0.25),
        ("mask", "left", 2, 0.5),
        ("mode", "eval", 2, 0.5),
    ):
        assert _value(looked, axis, value) == AxisValueCoverage(
            axis=axis, value=value, rows=rows, observable="hooks.shown", worst=worst[ratio]
        )
    assert _value(looked, "past", "token") == AxisValueCoverage(
        axis="past", value="token", rows=0, observable=None, worst=None
    )


def test_what_has_no_bound_is_no_worst_error(make):
    wrong = structs.replace(
        SEEN, observables={"a.b": WorstFinding(verdict=Verdict.ERROR), "a.c": WorstFinding(ratio=math.inf)}
    )
    found = _value(replace(make(specs()), rows=(wrong,)), "mask", "left")
    assert (found.observable, found.worst) == ("a.c", WorstFinding(ratio=math.inf))


def test_a_record_without_circumstances_has_no_coverage_of_them(make):
    found = view_record(make(specs()))
    assert found.circumstances is None
    assert "The record tells of no circumstance." in html.render([found])
    assert "### Circumstances" not in markdown.render([found])


def test_both_reports_have_the_counts_and_the_values(looked):
    view = view_record(looked)
    page, text = html.render([view]), markdown.render([view])
    said = "in 1.5 s: the adapter was looked at in 2; Hugging Face refuses 1; not offered 1."
    assert said in page
    assert said in text
    assert "<td>float16</td>" in page
    assert "| dtype | float16 | 1 | 0.5 | hooks.shown | `blocks.0.attn.hook_q` |\n" in text
    assert [6] * (2 + sum(map(len, AXES.values()))) in tables(text)
