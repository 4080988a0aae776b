"""What came of each circumstance of a case leaves the engine once, in plain values, whoever runs the case."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

import pytest
from msgspec import structs

from verifier.engine import events, inline
from verifier.engine.case_runner import InProcessRunner, SubprocessRunner
from verifier.engine.run import run
from verifier.judging.outcome import Verdict
from verifier.judging.row_summary import RowSummary

CIRCUMSTANCES = ({"mask": "left"}, {"past": "token"})
ONLY = ("forward.outputs", "forward.losses", "build.adapter")


@pytest.fixture
def looked(plan):
    """A plan of one case in two circumstances, under an adapter that has no cache."""
    made = plan("Right", count=1, only=ONLY)
    return replace(made, specs=tuple(replace(spec, circumstances=CIRCUMSTANCES) for spec in made.specs))


def _without_time(rows: Iterable[RowSummary]) -> list[RowSummary]:
    return [structs.replace(row, seconds=0.0) for row in rows]


def test_each_row_is_told_once_before_the_outcome_that_needed_it(looked):
    began = time.perf_counter()
    happened = list(run(looked, workers=1))
    rows = [event.row for event in happened if isinstance(event, events.RowReady)]
    assert [row.circumstance for row in rows] == list(CIRCUMSTANCES)
    assert {row.case for row in rows} == {looked.specs[0].id}
    assert 0 < sum(row.seconds for row in rows) < time.perf_counter() - began
    told = [
        event.outcome.check if isinstance(event, events.OutcomeReady) else "row"
        for event in happened
        if isinstance(event, events.OutcomeReady | events.RowReady)
    ]
    assert told[told.index("forward.outputs") - 2 : told.index("forward.outputs")] == ["row", "row"]
    left, cached = rows
    assert "forward.outputs" in left.passed
    assert (left.looked, left.refused, left.gates) == (True, None, False)
    assert cached.not_offered is not None
    assert not cached.looked


def test_no_row_is_run_for_a_check_that_needs_none(looked):
    happened = list(inline.run(replace(looked, only=("build.adapter",))))
    assert not any(isinstance(event, events.RowReady) for event in happened)


def test_a_wrong_row_says_what_is_wrong_and_where(looked):
    happened = inline.run(replace(looked, adapter="subjects:HalvesPadded"))
    row = next(event.row for event in happened if isinstance(event, events.RowReady))
    worst = row.observables["forward.outputs"]
    assert worst.verdict is Verdict.FAIL
    assert worst.where == "logits"
    assert worst.ratio is not None
    assert worst.ratio > 1
    assert row.gates


@pytest.mark.parametrize("kind", [InProcessRunner, SubprocessRunner])
def test_who_runs_one_case_at_a_time_gives_its_rows(looked, kind):
    runner = kind(looked)
    try:
        given = runner.run(looked.specs[0], ["forward.outputs"])
    finally:
        runner.close()
    told = [event.row for event in inline.run(looked) if isinstance(event, events.RowReady)]
    assert _without_time(given.rows) == _without_time(told)
    assert len(told) == 2
