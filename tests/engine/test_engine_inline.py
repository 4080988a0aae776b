"""A run in this process: the same events, and a debugger at each failure."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from pathlib import Path

import pytest
from hostile import last_outcomes

from verifier.engine import debugger, events, inline
from verifier.engine.case_runner import InProcessRunner
from verifier.engine.run import run
from verifier.judging.outcome import Verdict


def test_the_events_are_those_of_a_run_in_workers(plan):
    wanted = plan("Exits", count=3, refused=True)

    def told(seen):
        return sorted(
            (type(event).__name__, event.case, event.outcome.check, event.outcome.verdict, event.outcome.message)
            if isinstance(event, events.OutcomeReady)
            else (type(event).__name__, getattr(event, "case", ""))
            for event in seen
            if not isinstance(event, events.Heartbeat)
        )

    here, there = list(inline.run(wanted)), list(run(wanted, workers=2))
    assert told(here) == told(there)
    assert here[0] == type(there[0])(**{**vars_of(there[0]), "workers": 1})
    assert here[-1].stop is events.Stop.COMPLETE
    assert Verdict.ERROR in {outcome.verdict for outcome in last_outcomes(here).values()}


def vars_of(event):
    return {name: getattr(event, name) for name in event.__struct_fields__}


def test_an_adapter_that_goes_elsewhere_takes_nobody_with_it(plan, place, monkeypatch):
    monkeypatch.chdir(place)
    wanted = plan("Wanders", count=2)
    assert {Path.cwd() for _ in inline.run(wanted)} == {place}
    runner = InProcessRunner(wanted)
    wrapped, left_behind = runner.run(wanted.specs[0], ["build.adapter"]).outcomes
    assert wrapped.verdict is Verdict.PASS
    assert (left_behind.verdict, left_behind.where) == (Verdict.FAIL, "working folder")
    assert Path.cwd() == place


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_ends_a_run_between_two_cases_is_an_interrupt(plan, number):
    running = inline.run(plan("Right", count=2))
    with contextlib.closing(running):
        next(event for event in running if isinstance(event, events.CaseFinished))
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


@pytest.fixture
def typed(monkeypatch):
    def type_in(text):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    return type_in


def test_the_debugger_stands_where_it_was_raised_and_goes_on(plan, typed, capsys):
    typed("p type(self).__name__\nc\np 6 * 7\nc\n")
    seen = list(inline.run(plan("Exits", count=2, only=("build.adapter",)), debugger=debugger.Debugger()))
    said = capsys.readouterr()
    assert "'Exits'" in said.out
    assert "42" in said.out
    assert said.err.count("build.adapter on case ") == 2
    assert seen[-1].stop is events.Stop.COMPLETE


def test_who_leaves_the_debugger_ends_the_run_and_keeps_what_was_found(plan, typed):
    typed("q\n")
    seen = list(inline.run(plan("Exits", count=3, only=("build.adapter",)), debugger=debugger.Debugger()))
    assert [outcome.verdict for outcome in last_outcomes(seen).values()] == [Verdict.ERROR]
    assert seen[-1].stop is events.Stop.INTERRUPTED


def test_a_difference_is_looked_at_beside_its_case(plan, typed, capsys):
    typed("p check.id, case.spec.id, outcome.verdict.value\nq\n")
    wanted = plan("Zeros", count=1, only=("forward.logits",))
    seen = list(inline.run(wanted, debugger=debugger.Debugger()))
    assert f"('forward.logits', '{wanted.specs[0].id}', 'fail')" in capsys.readouterr().out
    assert seen[-1].stop is events.Stop.INTERRUPTED


def test_what_passes_is_not_stopped_at(plan, typed):
    typed("")
    seen = list(inline.run(plan("Right", count=1), debugger=debugger.Debugger()))
    assert seen[-1].stop is events.Stop.COMPLETE
